"""Takes one of several ways in, by how often the model is right with each.

The likeliest is taken of those that none is clearly better than: right where it is wrong so often
that chance is no explanation (a sign test).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from model_zoo import calibrate
from model_zoo.importing import scores
from model_zoo.importing.options import Tried
from runtime.binding import InputBinding
from runtime.core.confidence import softmax
from runtime.core.score_forms import to_logits
from runtime.errors import PolicyError
from runtime.messages import Tensors

# Of one way being better than another by chance alone, all ways together.
CHANCE = 0.001
# Of a log loss that is as good as the best.
LOSS_FACTOR, LOSS_SLACK = 1.5, 0.05


@dataclass
class Attempt:
    """A way that was tried, and what the file gave."""

    words: str
    binds: dict[str, InputBinding]
    found: Tensors
    loss: float = math.inf
    correct: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))


def best_of(
    attempts: list[Attempt],
    chosen: scores.Scores,
    labels: npt.NDArray[np.int64],
    notes: list[str],
) -> tuple[Attempt, tuple[Tried, ...]]:
    """The likeliest way, or one that is clearly better than it."""
    usable = []
    for one in attempts:
        values = one.found.get(chosen.tensor.name)
        if values is None:
            continue
        logits = to_logits(values, chosen.form, chosen.floor)
        finite = np.asarray(np.isfinite(logits).all(axis=1))
        said = np.where(finite[:, None], logits, 0).argmax(axis=1)
        one.correct = finite & (said == labels[: len(logits)])
        if not finite.any():
            continue
        one.loss = calibrate.log_loss(
            softmax(logits[finite]), labels[: len(logits)][finite].astype(np.int64)
        )
        usable.append(one)
    if not usable:
        raise PolicyError("the model gives no finite scores for any of the data")
    first = usable[0]
    best = max(usable, key=lambda one: float(one.correct.mean()))
    limit = CHANCE / max(1, len(usable) - 1)
    # Those that the best is not clearly better than; of them the likeliest whose scores say as much
    # about the labels: numbers of another size often leave the labels and ruin the confidence.
    good = [
        one
        for one in usable
        if one is best or not is_clearly_better(best.correct, one.correct, limit)
    ]
    least = min(one.loss for one in good)
    taken = next(one for one in good if one.loss <= LOSS_FACTOR * least + LOSS_SLACK)
    why = f"{taken.correct.mean():.1%} right on {len(taken.correct)} examples"
    if taken is not first:
        why += f"; {first.words}: {first.correct.mean():.1%}"
    notes.append(f"inputs: {taken.words} ({why})")
    share = np.bincount(labels).max() / len(labels)
    if float(taken.correct.mean()) <= share + 1.0 / math.sqrt(len(labels)):
        notes.append(
            f"WARNING: that is no better than always saying the most frequent class ({share:.1%}). "
            "Are --labels in the order of the scores, and inputs what the model was trained on? "
            "See --normalise, --scale, --input-layout"
        )
    tried = sorted(
        (Tried(one.words, float(one.correct.mean())) for one in usable),
        key=lambda one: -one.accuracy,
    )
    return taken, tuple(tried)


def is_clearly_better(
    one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_], limit: float
) -> bool:
    """Whether ``one`` is right where ``other`` is wrong more often than chance explains.

    A one-sided exact sign test on the examples on which they differ (McNemar, 1947).
    """
    wins, losses = int((one & ~other).sum()), int((other & ~one).sum())
    num = wins + losses
    if wins <= losses:
        return False
    tail = sum(math.comb(num, count) for count in range(wins, num + 1))
    return bool(tail <= limit * 2**num)
