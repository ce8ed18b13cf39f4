"""What a tier holds likely, in whole numbers, and the average of what several tiers do.

A *belief* is a tier's calibrated probabilities as shares of 65,535. It travels to the tiers above
and is kept for the fit in this form, and a tier takes its own in it as well, so that the fit
averages the very numbers that tiers will. Shares below 1 in 131,000 are rounded to nothing; an
average of several has no use for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runtime.averages import MAX_CLASSES, Average
from runtime.core.confidence import MIN_CLASSES, Confidence, confidence_of

WHOLE = 65_535
BYTES_PER_CLASS = 2
# Little-endian wherever it is read.
Belief = npt.NDArray[np.uint16]
Floats = npt.NDArray[np.float64]


def believed(probabilities: npt.NDArray[np.generic]) -> Belief | None:
    """``(..., classes)`` probabilities as beliefs; None where they cannot be told as such.

    That is: over 64 classes, fewer than two, or something that is no probability.
    """
    shares = np.asarray(probabilities, np.float64)
    if shares.ndim < 1 or not MIN_CLASSES <= shares.shape[-1] <= MAX_CLASSES:
        return None
    if not (np.isfinite(shares).all() and (shares >= 0).all()):
        return None
    totals = shares.sum(axis=-1, keepdims=True)
    if not (np.isfinite(totals).all() and (totals > 0).all()):
        return None
    found: Belief = np.rint(shares / totals * WHOLE).astype("<u2")
    return found


def is_belief(shares: Belief) -> bool:
    """Whether all of ``(..., classes)`` shares add up to what rounding can leave of a whole."""
    num_classes = shares.shape[-1]
    if not MIN_CLASSES <= num_classes <= MAX_CLASSES:
        return False
    totals = shares.sum(axis=-1, dtype=np.int64)
    return bool((np.abs(totals - WHOLE) <= num_classes).all())


def probabilities(belief: Belief) -> Floats:
    """``(..., classes)`` probabilities that sum to 1."""
    shares = belief.astype(np.float64)
    found: Floats = shares / shares.sum(axis=-1, keepdims=True)
    return found


def average(beliefs: Sequence[Belief], weights: Sequence[float]) -> Floats:
    """``(..., classes)`` weighted mean of as many beliefs as there are weights."""
    # One by one, so that an example comes to the same number alone and among others.
    total: Floats = np.zeros(beliefs[0].shape)
    for belief, weight in zip(beliefs, weights, strict=True):
        total += weight * probabilities(belief)
    return total


@dataclass(frozen=True, slots=True)
class Averaged:
    """What a tier answers where its gear averages; ``logits`` are ``(1, classes)``."""

    confidence: Confidence
    logits: npt.NDArray[np.float32]


def take_average(
    agreed: Average, earlier: Sequence[tuple[str, bytes]], own: Belief
) -> Averaged | None:
    """The average at a stop; None unless exactly the tiers below it told what they hold likely.

    Args:
        agreed: the tiers and how much each counts.
        earlier: what came along, by tier and lowest first.
        own: of the deciding tier, ``(classes,)``.
    """
    if tuple(tier for tier, _ in earlier) != agreed.tiers[:-1]:
        return None
    beliefs = [np.frombuffer(shares, "<u2") for _, shares in earlier]
    if any(len(belief) != len(own) for belief in beliefs):
        return None
    mean = average([*beliefs, own], agreed.weights)
    # As the answer of an ensemble is written: finite even where a share is 0.
    logs = np.log(np.maximum(mean, np.finfo(np.float32).tiny)).astype(np.float32)
    return Averaged(confidence_of(mean), logs[np.newaxis])
