"""A number with an interval: how sure a model is of it, against what is tolerated.

Scores are ``(batch, 3)``: the lower end, the value and the upper end of an interval, as quantile
heads give them (Koenker and Bassett, 1978). Fails towards safety: an interval that is not finite,
or whose ends are not on both sides of the value, is invalid.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runtime.core.confidence import INVALID, Confidence, Floats
from runtime.core.multilabel import CombinedScores

LOW, VALUE, HIGH = 0, 1, 2
NUM_SCORES = 3
_BATCH_AND_SCORES = 2


def regression_confidence(
    scores: Floats, tolerance: float, *, agreement: float = 1.0
) -> Confidence:
    """Confidence of a ``(batch, 3)`` answer: that of its widest interval.

    ``probability`` is ``tolerance / (tolerance + reach)``, where the reach is the distance from the
    value to the farther end: 1 for an interval of no width, 0.5 where the reach is what is
    tolerated. It is no chance, but grows with every narrowing. ``tolerance`` > 0, in the value's
    unit.
    """
    if not is_usable_interval(scores):
        return INVALID
    values = np.asarray(scores, np.float64)
    reach = max(
        float((values[:, VALUE] - values[:, LOW]).max()),
        float((values[:, HIGH] - values[:, VALUE]).max()),
    )
    sureness = tolerance / (tolerance + reach)
    return Confidence(
        label=None,
        probability=sureness,
        margin=sureness,
        entropy=1.0 - sureness,
        is_valid=True,
        agreement=agreement,
    )


def is_usable_interval(scores: Floats) -> bool:
    """Whether these are ``(batch, 3)`` finite numbers, each row in order."""
    if scores.ndim != _BATCH_AND_SCORES or not scores.size or scores.shape[1] != NUM_SCORES:
        return False
    values = np.asarray(scores, np.float64)
    return bool(np.isfinite(values).all() and (np.diff(values, axis=1) >= 0).all())


def combine_intervals(scores: Sequence[Floats], weights: Sequence[float]) -> CombinedScores | None:
    """The weighted mean of members' values; None where no member is usable.

    The ends are the means of the members' ends, moved out by the standard deviation of their
    values: what members disagree on is as unsure as what each of them is unsure of.
    ``agreement`` is the share of members whose value lies in the interval, the smallest over the
    batch.
    """
    usable = [place for place, one in enumerate(scores) if is_usable_interval(one)]
    if not usable:
        return None
    used = tuple(place for place in usable if scores[place].shape == scores[usable[0]].shape)
    stack = np.stack([np.asarray(scores[place], np.float64) for place in used])
    shares = np.array([weights[place] for place in used])
    shares /= shares.sum()
    mean = np.tensordot(shares, stack, axes=1)
    values = stack[:, :, VALUE]
    spread = np.sqrt(np.tensordot(shares, (values - mean[:, VALUE]) ** 2, axes=1))
    mean[:, LOW] -= spread
    mean[:, HIGH] += spread
    # Rounded to 32 bits, an end must not pass the value.
    rounded = np.sort(mean.astype(np.float32), axis=1)
    inside = (values >= mean[:, LOW]) & (values <= mean[:, HIGH])
    return CombinedScores(rounded, float(inside.mean(axis=0).min()), used)
