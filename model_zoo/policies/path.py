"""The path of configurations: learned on the training split alone, dearest first.

Every placement is fitted at every penalty; what each does is estimated by cross-fitting, so that no
table is judged on examples it was made from. The Pareto front of loss and cost is the path. The
calibration split plays no part: the path is fixed before it is read, which is why walking it has
no price of multiplicity (fixed-sequence testing; Angelopoulos et al., "Learn then Test", 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from model_zoo.policies.journeys import Itinerary, Learner
from model_zoo.policies.placements import Placement, placements
from model_zoo.policies.stages import Journeys, Stage
from model_zoo.policies.tables import Ints
from runtime.policy import Targets

NUM_FOLDS = 5
# One partition into folds is a matter of luck; the mean of two less so.
NUM_PARTITIONS = 2
# Below 0 a request climbs although the own answer is as good: the safe end of the path.
PENALTIES = (
    *(-(10.0**power) for power in (0, -0.5, -1, -1.5, -2, -2.5)),
    0.0,
    *np.geomspace(0.002, 2.0, 48).tolist(),
)
# Steps that save less than this are not worth a chance to stumble.
MIN_SAVING = 0.002
# A configuration near the allowed share of late answers would end the walk for nothing; so would
# one near the allowed cost, and the dearest come first.
LATE_HEADROOM = 0.8
COST_HEADROOM = 0.95
# Steps that lose this much more than is allowed cannot be certified.
LOSS_SLACK = 0.02


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a configuration is expected to do: means over examples, cross-fitted."""

    placement: Placement
    penalty: float
    loss: float
    cost: float
    late: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Step:
    """One configuration of a path, fitted on the whole training split."""

    itinerary: Itinerary
    estimate: Estimate


Progress = Callable[[str], None]


def _quiet(_step: str) -> None:
    return


def explore(
    stage: Stage,
    *,
    seed: int,
    chosen: Sequence[Placement] | None = None,
    progress: Progress = _quiet,
) -> list[Estimate]:
    """Estimates of all placements at all penalties."""
    if chosen is None:
        chosen = placements(
            len(stage.price),
            with_races=stage.timing is not None,
            with_averages=stage.predictions.beliefs is not None,
        )
    partitions = [_partition(stage, seed + number) for number in range(NUM_PARTITIONS)]
    found = []
    for placement in chosen:
        progress(placement.describe(stage.predictions.tiers))
        learners = [
            [(Learner(rest, placement), held, which) for rest, held, which in partition]
            for partition in partitions
        ]
        for penalty in PENALTIES:
            ends = [_cross_fitted(partition, penalty, stage.num) for partition in learners]
            found.append(_estimate(stage, placement, penalty, ends))
    return found


def _partition(stage: Stage, seed: int) -> list[tuple[Stage, Stage, Ints]]:
    """For every fold: the examples outside of it, those in it, and which those are."""
    order = np.random.default_rng(seed).permutation(stage.num)
    folds = np.empty(stage.num, np.int64)
    folds[order] = np.arange(stage.num) % NUM_FOLDS
    parts = []
    for fold in range(NUM_FOLDS):
        rest, held = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        parts.append((stage.take(rest), stage.take(held), held))
    return parts


def _cross_fitted(parts: list[tuple[Learner, Stage, Ints]], penalty: float, num: int) -> Journeys:
    ends = Journeys.empty(num)
    for learner, held_stage, held in parts:
        ends.put(held, learner.fit(penalty).follow(held_stage))
    return ends


def _estimate(
    stage: Stage, placement: Placement, penalty: float, ends: Sequence[Journeys]
) -> Estimate:
    accuracy = float(np.mean([one.correct.mean() for one in ends]))
    return Estimate(
        placement=placement,
        penalty=penalty,
        loss=float(stage.correct[-1].mean()) - accuracy,
        cost=float(np.mean([one.cost.mean() for one in ends])),
        late=float(np.mean([one.late.mean() for one in ends])),
        accuracy=accuracy,
    )


def front(estimates: Sequence[Estimate], targets: Targets) -> list[Estimate]:
    """The path: no estimate on it is both dearer and worse than another; dearest first."""
    allowed = [
        estimate
        for estimate in estimates
        if estimate.loss <= targets.max_loss + LOSS_SLACK
        and (targets.max_late is None or estimate.late <= LATE_HEADROOM * targets.max_late)
        and (targets.min_accuracy is None or estimate.accuracy >= targets.min_accuracy)
        and (targets.max_cost is None or estimate.cost <= COST_HEADROOM * targets.max_cost)
    ]
    kept: list[Estimate] = []
    for estimate in sorted(allowed, key=lambda one: (one.cost, one.loss)):
        if not kept or estimate.loss < kept[-1].loss - 1e-12:
            kept.append(estimate)
    thinned: list[Estimate] = []
    for estimate in reversed(kept):
        if not thinned or thinned[-1].cost - estimate.cost >= MIN_SAVING:
            thinned.append(estimate)
    return thinned


def fit_steps(stage: Stage, path: Sequence[Estimate]) -> list[Step]:
    """The path's configurations, fitted on all examples."""
    learners: dict[Placement, Learner] = {}
    steps = []
    for estimate in path:
        if estimate.placement not in learners:
            learners[estimate.placement] = Learner(stage, estimate.placement)
        steps.append(Step(learners[estimate.placement].fit(estimate.penalty), estimate))
    return steps
