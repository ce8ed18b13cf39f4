"""Several labels for one example: how sure the weakest of them is.

Scores are logits, one for each label, of which each stands for itself. Fails towards safety, as
``runtime.core.confidence``: what is empty or not finite is invalid, and no measure raises.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runtime.core.confidence import INVALID, Confidence, Floats

Float64s = npt.NDArray[np.float64]
_BATCH_AND_LABELS = 2
# A chance that is exactly 0 or 1 has no finite logit.
_LEAST = 1e-7


def chances(logits: Floats, temperature: float = 1.0) -> Float64s:
    """The chance of every label; rows that are not finite become NaN."""
    scaled = np.asarray(logits, np.float64) / temperature
    scaled = np.where(np.isfinite(scaled).all(axis=-1, keepdims=True), scaled, np.nan)
    # Beyond these, the chance is 0 or 1 in 64 bits, and the power would overflow.
    found: Float64s = 1.0 / (1.0 + np.exp(-np.clip(scaled, -700, 700)))
    return found


def multilabel_confidence(
    logits: Floats,
    thresholds: Sequence[float],
    temperature: float = 1.0,
    *,
    agreement: float = 1.0,
) -> Confidence:
    """Confidence of a ``(batch, labels)`` answer: that of its weakest row, of its weakest label.

    ``margin`` is the weakest label's distance to its threshold, as a share of what it may be on its
    side: 0 at the threshold, 1 where the chance is 0 or 1. ``probability`` is ``(1 + margin) / 2``,
    which at a threshold of 0.5 is the chance that this label is rightly there or not there.
    Thresholds lie between 0 and 1, both excluded.
    """
    if logits.ndim != _BATCH_AND_LABELS or not logits.size or logits.shape[1] != len(thresholds):
        return INVALID
    found = chances(logits, temperature)
    if not np.isfinite(found).all():
        return INVALID
    limits = np.asarray(thresholds, np.float64)
    margins = np.where(found >= limits, (found - limits) / (1 - limits), (limits - found) / limits)
    margin = float(np.clip(margins.min(), 0.0, 1.0))
    chance = float(np.clip(np.abs(found - 0.5).min() + 0.5, _LEAST, 1 - _LEAST))
    entropy = float(-(chance * np.log2(chance) + (1 - chance) * np.log2(1 - chance)))
    return Confidence(
        label=None,
        probability=(1 + margin) / 2,
        margin=margin,
        entropy=min(1.0, max(0.0, entropy)),
        is_valid=True,
        agreement=agreement,
    )


def labels_of(logits: Floats, thresholds: Sequence[float], temperature: float = 1.0) -> list[int]:
    """The labels of one ``(labels,)`` answer whose chance reaches their threshold, in order."""
    found = chances(logits, temperature) >= np.asarray(thresholds, np.float64)
    return [int(place) for place in np.flatnonzero(found)]


@dataclass(frozen=True, slots=True)
class CombinedScores:
    """What several members say together; ``used`` are the places of those that count."""

    scores: npt.NDArray[np.float32]
    agreement: float
    used: tuple[int, ...]


def combine_labels(
    scores: Sequence[Floats], weights: Sequence[float], thresholds: Sequence[float]
) -> CombinedScores | None:
    """Logits of the weighted mean of members' chances; None where no member is usable.

    ``agreement`` is the share of members that give the combined labels, the smallest over the
    batch.
    """
    usable = [
        place
        for place, one in enumerate(scores)
        if one.ndim == _BATCH_AND_LABELS
        and one.size
        and one.shape[1] == len(thresholds)
        and np.isfinite(np.asarray(one, np.float64)).all()
    ]
    if not usable:
        return None
    used = tuple(place for place in usable if scores[place].shape == scores[usable[0]].shape)
    stack = np.stack([chances(scores[place]) for place in used])
    shares = np.array([weights[place] for place in used])
    mean = np.clip(np.tensordot(shares / shares.sum(), stack, axes=1), _LEAST, 1 - _LEAST)
    limits = np.asarray(thresholds, np.float64)
    alike = ((stack >= limits) == (mean >= limits)).all(axis=2)
    return CombinedScores(
        np.log(mean / (1 - mean)).astype(np.float32), float(alike.mean(axis=0).min()), used
    )
