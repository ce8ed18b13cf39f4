"""What a chain of models can do, at every setting of its accept thresholds.

With predictions each threshold is tried at quantiles of its tier's confidence, and every answer is
the one that was given to that example: no assumption of independence. Without predictions, who
escalates is taken to be independent of who is right: each model is right as often on what climbs as
on everything. Confidence that means something does better, so this is a low estimate.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

# Thresholds that are tried at each stop but the last, by the number of stops.
NUM_THRESHOLDS = {1: 1, 2: 65, 3: 25, 4: 11}


@dataclass(frozen=True, slots=True)
class Answers:
    """What every model said on the same n examples: ``score`` and ``correct`` are (k, n)."""

    score: Floats
    correct: Bools


@dataclass(frozen=True, slots=True)
class Curve:
    """P settings of a chain with K stops.

    ``reach`` (P, K) is the share of requests that come to a stop, ``accuracy`` (P,) of all answers,
    ``cut`` (P, K) the accuracy when nothing climbs beyond a stop, ``accept_at`` (P, K - 1) the
    thresholds, NaN in an estimate.
    """

    reach: Floats
    accuracy: Floats
    cut: Floats
    accept_at: Floats
    is_estimate: bool = False

    @property
    def num(self) -> int:
        """How many settings."""
        return len(self.accuracy)

    def take(self, chosen: npt.NDArray[np.int64] | Bools) -> Curve:
        """Some of the settings."""
        return Curve(
            self.reach[chosen],
            self.accuracy[chosen],
            self.cut[chosen],
            self.accept_at[chosen],
            self.is_estimate,
        )


def curve_of(answers: Answers, rows: Sequence[int]) -> Curve:
    """The settings of a chain of models that have predictions, lowest first."""
    score, correct = answers.score[list(rows)], answers.correct[list(rows)]
    last = len(rows) - 1
    steps = np.linspace(0, 1, NUM_THRESHOLDS[len(rows)])
    # Nothing is below the first threshold, everything below the last one.
    grids = [np.unique(np.append(np.quantile(score[k], steps), np.inf)) for k in range(last)]
    points = []
    for accept_at in itertools.product(*grids):
        reach, cut = [1.0], []
        climbs = np.ones(correct.shape[1], np.bool_)
        right = 0.0
        for stop, accept in enumerate(accept_at):
            own = correct[stop]
            cut.append(right + float((own & climbs).mean()))
            stays = climbs & (score[stop] >= accept)
            right += float((own & stays).mean())
            climbs = climbs & ~stays
            reach.append(float(climbs.mean()))
        cut.append(right + float((correct[last] & climbs).mean()))
        points.append((reach, cut, accept_at))
    cuts = np.asarray([cut for _, cut, _ in points])
    return pruned(
        Curve(
            np.asarray([reach for reach, _, _ in points]),
            cuts[:, -1].copy(),
            cuts,
            np.asarray([at for _, _, at in points]).reshape(len(points), last),
        )
    )


def estimated_curve(accuracies: Sequence[float]) -> Curve:
    """The settings of a chain of which only each model's accuracy is known."""
    last = len(accuracies) - 1
    steps = np.linspace(0, 1, NUM_THRESHOLDS[len(accuracies)])
    points = []
    for shares in itertools.product(steps, repeat=last):
        reach = [1.0, *np.cumprod(shares).tolist()]
        cut, right = [], 0.0
        for stop, here in enumerate(reach):
            cut.append(right + here * accuracies[stop])
            above = reach[stop + 1] if stop < last else 0.0
            right += (here - above) * accuracies[stop]
        points.append((reach, cut))
    cuts = np.asarray([cut for _, cut in points])
    return pruned(
        Curve(
            np.asarray([reach for reach, _ in points]),
            cuts[:, -1].copy(),
            cuts,
            np.full((len(points), last), np.nan),
            is_estimate=True,
        )
    )


def pruned(curve: Curve) -> Curve:
    """Without settings that another beats in everything: fewer climb, and no accuracy is lower.

    Cost, latency and what is left without a link depend on nothing else, so none of them can be the
    better choice. Of equals the first is kept.
    """
    keep = np.ones(curve.num, np.bool_)
    for point in range(curve.num):
        fewer = (curve.reach <= curve.reach[point]).all(axis=1)
        better = fewer & (curve.cut >= curve.cut[point]).all(axis=1) & keep
        is_same = (curve.reach == curve.reach[point]).all(axis=1) & (
            curve.cut == curve.cut[point]
        ).all(axis=1)
        is_same[:point] = False
        keep[point] = not (better & ~is_same).any()
    return curve.take(keep)
