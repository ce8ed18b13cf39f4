"""What is chosen by data for tasks that are no classification, and measured of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from runtime.errors import PolicyError

Float64s = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
_STEPS = 100
_SMALL = 1e-9
# Thresholds are tried where they make a difference, and stay off 0 and 1.
_MAX_TRIED = 500
_LEAST, _MOST = 0.01, 0.99


def fit_logistic(scores: Float64s, is_odd: Bools) -> tuple[float, float]:
    """Threshold and scale of ``1 / (1 + exp(-(score - threshold) / scale))``.

    By maximum likelihood with the smoothed targets of Platt ("Probabilistic outputs for support
    vector machines", 1999), which keep the scale finite where scores part the kinds.

    Raises:
        PolicyError: scores of anomalies are not higher.
    """
    mean, spread = float(scores.mean()), float(scores.std())
    if not spread > 0:
        raise PolicyError("the model gives all examples the same score")
    x = np.stack([(scores - mean) / spread, np.ones(len(scores))], axis=1)
    odd, ordinary = int(is_odd.sum()), int((~is_odd).sum())
    wanted = np.where(is_odd, (odd + 1) / (odd + 2), 1 / (ordinary + 2))
    weights = np.zeros(2)
    for _ in range(_STEPS):
        share = 1 / (1 + np.exp(-np.clip(x @ weights, -500, 500)))
        slope = x.T @ (share - wanted)
        curve = (x * (share * (1 - share))[:, None]).T @ x + _SMALL * np.eye(2)
        step = np.linalg.solve(curve, slope)
        # A whole step of Newton's may overshoot where the kinds are far apart.
        weights -= step * min(1.0, 5.0 / float(np.abs(step).max(initial=_SMALL)))
        if float(np.abs(step).max()) < _SMALL:
            break
    if not weights[0] > _SMALL:
        raise PolicyError(
            "scores of anomalous examples are not higher than those of ordinary ones: are labels 1 "
            "for anomalous, and does the file give a score that grows with it?"
        )
    return float(mean - spread * weights[1] / weights[0]), float(spread / weights[0])


def area_under_roc(scores: Float64s, is_odd: Bools) -> float:
    """The chance that an anomalous example scores higher than an ordinary one; ties are a half."""
    order = np.argsort(scores, kind="stable")
    _, places, counts = np.unique(scores[order], return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = np.empty(len(scores))
    ranks[order] = (ends - (counts - 1) / 2)[places]
    odd = int(is_odd.sum())
    ordinary = len(scores) - odd
    return float((ranks[is_odd].sum() - odd * (odd + 1) / 2) / (odd * ordinary))


def class_means(
    vectors: Float64s, labels: npt.NDArray[np.int64], names: Sequence[str]
) -> npt.NDArray[np.float32]:
    """``(labels, d)`` means of vectors of length 1.

    Raises:
        PolicyError: a label has no vector that points anywhere.
    """
    lengths = np.linalg.norm(vectors, axis=1)
    found = []
    for place, name in enumerate(names):
        mine = (labels == place) & (lengths > 0)
        mean = (vectors[mine] / lengths[mine, None]).mean(axis=0) if mine.any() else np.zeros(1)
        if not np.linalg.norm(mean) > 0:
            raise PolicyError(
                f"there is no example of {name!r} to make a prototype of: give more data, or "
                "--prototypes"
            )
        found.append(mean)
    return np.stack(found).astype(np.float32)


def label_thresholds(shares: Float64s, holds: Bools) -> tuple[float, ...]:
    """The threshold of each label with the best F1; 0.5 for one that never or always holds."""
    found = []
    for mine, truth in zip(shares.T, holds.T, strict=True):
        best, limit = -1.0, 0.5
        if truth.any() and not truth.all():
            values = np.unique(mine)
            middles = (values[1:] + values[:-1]) / 2
            middles = middles[:: max(1, len(middles) // _MAX_TRIED)]
            # The default first: another has to be better.
            for one in (0.5, *middles.tolist()):
                one_limit = min(_MOST, max(_LEAST, one))
                score = micro_f1(mine >= one_limit, truth)
                if score > best + _SMALL:
                    best, limit = score, one_limit
        found.append(round(float(limit), 6))
    return tuple(found)


def micro_f1(said: Bools, holds: Bools) -> float:
    """Of all labels together: twice the hits over what was said and what holds; 1 of nothing."""
    total = int(said.sum()) + int(holds.sum())
    return 2 * int((said & holds).sum()) / total if total else 1.0
