"""Which output holds the class scores, and what they are: logits or probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from runtime.adapters.signatures import FileTensor
from runtime.binding import LEAST_PROBABILITY, ScoreForm
from runtime.errors import ArtifactError

Array = npt.NDArray[np.generic]
Wanted = Literal["auto", "logits", "probabilities"]
# Sums of probabilities that were rounded to 16 bits; integers add a step for each class.
SUM_TOLERANCE = 5e-3
_TWO = 2
_HINTS = ("prob", "softmax", "score", "logit", "pred", "class", "output", "dense", "identity")


@dataclass(frozen=True, slots=True)
class Scores:
    """The output that is served; ``note`` is for a person, empty where there was no choice."""

    tensor: FileTensor
    num_classes: int
    form: ScoreForm
    floor: float
    note: str = ""


def choose(
    found: Mapping[str, Array],
    outputs: Sequence[FileTensor],
    *,
    num_labels: int | None,
    at_least: int = 2,
    chosen: str = "",
    wanted: Wanted = "auto",
    source: str,
) -> Scores:
    """The output of class scores among ``(n, k)`` values of all numeric outputs.

    Args:
        found: by the file's names.
        outputs: what the file says of them.
        num_labels: how many classes there are, where that is known.
        at_least: so many classes there are, where their number is not known.
        chosen: the output that somebody has named.
        wanted: what somebody says that the scores are.
        source: names the file in errors.

    Raises:
        ArtifactError: none fits, or several do.
    """
    fits = [
        one
        for one in outputs
        if one.name in found and _may_hold(found[one.name].shape[1], num_labels, at_least)
    ]
    if chosen:
        fits = [one for one in outputs if one.name == chosen and one.name in found]
    if not fits and not chosen and len(outputs) == 1 and outputs[0].name in found:
        # Whoever counts the labels says better what is wrong.
        fits = list(outputs)
    listing = ", ".join(f"{name} of {one.shape[1]}" for name, one in found.items()) or "none"
    if not fits:
        named = f" {chosen!r}" if chosen else ""
        raise ArtifactError(
            f"{source}: no output{named} holds scores of {num_labels or 'some'} classes; it gives "
            f"{listing} numbers an example. Look at --labels, or name the output with "
            "--scores-output"
        )
    # One class for each label before a single score, floats that are named like scores before.
    fits.sort(key=lambda one: (found[one.name].shape[1] == 1, _rank(one)))
    if len(fits) > 1 and num_labels is None and not chosen:
        sizes = {found[one.name].shape[1] for one in fits}
        if len(sizes) > 1:
            raise ArtifactError(
                f"{source} has several outputs: {listing} numbers an example. Name the one with "
                "the class scores with --scores-output"
            )
    taken = fits[0]
    note = f"the class scores are the output {taken.name!r}" if len(outputs) > 1 else ""
    return _of(taken, np.asarray(found[taken.name], np.float64), wanted, note)


def _may_hold(size: int, num_labels: int | None, at_least: int) -> bool:
    """Whether so many numbers may be scores; a single one stands for two classes."""
    if size == 1:
        return num_labels == _TWO or (num_labels is None and at_least == _TWO)
    return size == num_labels if num_labels is not None else size >= at_least


def _rank(tensor: FileTensor) -> int:
    name = tensor.name.lower()
    ranks = [place for place, hint in enumerate(_HINTS) if hint in name]
    return min(ranks, default=len(_HINTS)) + (0 if tensor.datatype.startswith("FP") else 100)


def _of(tensor: FileTensor, values: npt.NDArray[np.float64], wanted: Wanted, note: str) -> Scores:
    num_classes = values.shape[1]
    floor = max(tensor.step / 2, LEAST_PROBABILITY)
    # Integers and float16 leave 0..1 by rounding.
    slack = max(tensor.step, 1e-3)
    is_share = bool(((values >= -slack) & (values <= 1 + slack)).all())
    tolerance = SUM_TOLERANCE + tensor.step * num_classes
    sums_to_one = bool((np.abs(values.sum(axis=1) - 1) <= tolerance).all())
    if num_classes == 1:
        is_chance = wanted == "probabilities" or (wanted == "auto" and is_share)
        form: ScoreForm = "binary_probability" if is_chance else "binary_logit"
        return Scores(tensor, 2, form, floor, note)
    if wanted != "auto":
        return Scores(tensor, num_classes, wanted, floor, note)
    if is_share and not sums_to_one:
        extra = (
            "its scores lie in 0..1 and do not sum to 1 (a sigmoid for each class): they are taken "
            "as probabilities, divided by their sum; --scores logits says otherwise"
        )
        note = f"{note}; {extra}" if note else extra
    return Scores(tensor, num_classes, "probabilities" if is_share else "logits", floor, note)
