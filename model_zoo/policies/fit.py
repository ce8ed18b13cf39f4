"""Fits a policy: for every budget and load a path from the training split, walked on calibration.

The chance ``delta`` of a wrong promise is split over the gears. Without a certified step a gear
sends everything straight to the top tier, and promises nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from model_zoo.policies.averaging import averaged_kind, can_average
from model_zoo.policies.certify import MIN_CERTIFIED, Walk, p_value_of, walk, walk_in_expectation
from model_zoo.policies.feasibility import check_possible
from model_zoo.policies.live_facts import score_reference, spread, trace_facts
from model_zoo.policies.measures import best_scores, oracle_cost
from model_zoo.policies.path import Estimate, Step, explore, fit_steps, front
from model_zoo.policies.placements import Placement
from model_zoo.policies.predictions import Predictions, check_disjoint
from model_zoo.policies.review import ReviewTerms, with_review
from model_zoo.policies.stages import Journeys, Stage, straight_to_the_top
from model_zoo.policies.tables import Floats
from model_zoo.policies.trace import timing_of
from runtime.averages import Average
from runtime.errors import PolicyError
from runtime.messages import Guarantee
from runtime.policy import (
    DecisionTable,
    Gear,
    Interval,
    Policy,
    Promise,
    SaferStep,
    Score,
    SplitFacts,
    Targets,
)
from runtime.version import software

METHOD = (
    "Gain per label, score and agreement, fitted on train; Pareto path by cross-fitting on train; "
    "walked on calibration by fixed-sequence testing with the paired betting p-value."
)
EXPECTATION_METHOD = "Conformal risk control on the harm along the path, for few examples."
NUM_95 = 1.959964
# Fewer examples say nothing: no gain can be told from noise.
MIN_TRAIN = 100
MIN_CALIBRATION = 30
MAX_GEARS = 24


@dataclass(frozen=True, slots=True)
class Conditions:
    """The link and load that gears are fitted for; without a trace time plays no part.

    ``review`` is what people cost who look at answers of the top tier; None: nobody does.
    """

    budgets_ms: tuple[float, ...] = (0.0,)
    loads: tuple[float, ...] = (1.0,)
    trace: Floats | None = None
    review: ReviewTerms | None = None


@dataclass(frozen=True, slots=True)
class Splits:
    """Disjoint examples: to learn the path from, and to certify it on."""

    train: Predictions
    calibration: Predictions


Progress = Callable[[str], None]


def fit_policy(
    splits: Splits,
    targets: Targets,
    conditions: Conditions,
    *,
    name: str,
    seed: int = 0,
    progress: Progress = lambda _step: None,
) -> Policy:
    """The policy with a gear for every budget and load.

    Raises:
        PolicyError: the splits, targets or conditions cannot be used.
        ImpossibleError: no placement can meet the targets.
    """
    check_disjoint(splits.train, splits.calibration)
    check_targets(targets)
    _check_sizes(splits, conditions)
    kinds = best_scores(splits.train)
    splits = Splits(splits.train.using(kinds), splits.calibration)
    # What a review is worth is known of the top tier's own answers.
    with_averages = conditions.review is None and can_average(splits.train, splits.calibration)
    if not with_averages:
        splits = Splits(splits.train.without_beliefs(), splits.calibration)
    train, calibration = splits.train, splits.calibration
    cells = list(itertools.product(conditions.budgets_ms, sorted(conditions.loads)))
    gears = tuple(
        _fit_gear(
            splits,
            targets,
            conditions,
            budget_ms=budget_ms,
            load=load,
            delta=targets.delta / len(cells),
            seed=seed,
            progress=progress,
        )
        for budget_ms, load in cells
    )
    is_expected = calibration.num_examples < MIN_CERTIFIED
    return Policy(
        name=name,
        tiers=train.tiers,
        prices=tuple(train.relative_price.tolist()),
        labels=train.label_names,
        targets=targets,
        train=SplitFacts(train.digest, train.num_examples, train.source),
        calibration=SplitFacts(calibration.digest, calibration.num_examples, calibration.source),
        gears=gears,
        models=dict(train.models),
        method=f"{METHOD} {EXPECTATION_METHOD}" if is_expected else METHOD,
        software=software(),
        with_averages=with_averages,
        trace=None if conditions.trace is None else trace_facts(conditions.trace, train.tiers),
        scores=score_reference(calibration.using({train.tiers[0]: train.kind_at(0)})),
    )


def check_targets(targets: Targets) -> None:
    """Refuses what is no target.

    Raises:
        PolicyError: a number is outside its range.
    """
    ranges = (
        ("max-loss", targets.max_loss, 0.0, 1.0),
        ("delta", targets.delta, 1e-9, 0.5),
        ("max-late", targets.max_late, 0.0, 1.0),
        ("min-accuracy", targets.min_accuracy, 0.0, 1.0),
        ("max-cost", targets.max_cost, 0.0, 100.0),
    )
    for name, value, low, high in ranges:
        if value is not None and not low <= value <= high:
            raise PolicyError(f"--{name} {value:g} is outside {low:g} .. {high:g}")


def _check_sizes(splits: Splits, conditions: Conditions) -> None:
    for what, split, least in (
        ("train", splits.train, MIN_TRAIN),
        ("calibration", splits.calibration, MIN_CALIBRATION),
    ):
        if split.num_examples < least:
            raise PolicyError(
                f"{what} has {split.num_examples} examples; at least {least} are needed, "
                f"{MIN_CERTIFIED} for a certificate: collect more labelled examples"
            )
    num_gears = len(conditions.budgets_ms) * len(conditions.loads)
    if not 1 <= num_gears <= MAX_GEARS:
        raise PolicyError(f"{num_gears} gears; 1 to {MAX_GEARS} budgets times loads work")
    if conditions.trace is None and (num_gears > 1 or conditions.budgets_ms != (0.0,)):
        raise PolicyError("budgets and loads mean something only with a trace: add --trace")


def _fit_gear(
    splits: Splits,
    targets: Targets,
    conditions: Conditions,
    *,
    budget_ms: float,
    load: float,
    delta: float,
    seed: int,
    progress: Progress,
) -> Gear:
    name = f"{budget_ms:g}ms-x{load:g}" if conditions.trace is not None else "any"

    def stage_of(predictions: Predictions, seed: int) -> Stage:
        if conditions.trace is None:
            return Stage(predictions)
        return Stage(
            predictions,
            timing_of(predictions, conditions.trace, budget_ms, load=load, seed=seed),
        )

    train = stage_of(splits.train, seed)
    estimates = explore(train, seed=seed, progress=lambda step: progress(f"gear {name}: {step}"))
    check_possible(
        [*estimates, _estimate_of_top(train)],
        targets,
        splits.train.tiers,
        gear="" if conditions.trace is None else name,
    )
    steps = fit_steps(train, front(estimates, targets))
    progress(f"gear {name}: walk {len(steps)} steps")
    # Only now, when the path is fixed.
    tiers = splits.train.tiers
    kinds = {name: splits.train.kind_at(tier) for tier, name in enumerate(tiers)}
    held = stage_of(splits.calibration.using(kinds), seed + 1)
    path = [step.itinerary.follow(held) for step in steps]
    is_expected = held.num < MIN_CERTIFIED
    found = (
        walk_in_expectation(held.correct[-1], path, targets)
        if is_expected
        else walk(held.correct[-1], path, targets, delta)
    )
    gear = _gear(
        name,
        found,
        steps,
        path,
        held,
        targets=msgspec.structs.replace(targets, delta=delta),
        is_expected=is_expected,
        budget_ms=budget_ms,
        load=load,
    )
    return gear if conditions.review is None else with_review(gear, conditions.review, train, held)


def _estimate_of_top(stage: Stage) -> Estimate:
    ends = straight_to_the_top(stage)
    accuracy = float(ends.correct.mean())
    return Estimate(
        placement=Placement((len(stage.price) - 1,)),
        penalty=0.0,
        loss=float(stage.correct[-1].mean()) - accuracy,
        cost=1.0,
        late=float(ends.late.mean()),
        accuracy=accuracy,
    )


def _gear(
    name: str,
    found: Walk,
    steps: Sequence[Step],
    path: Sequence[Journeys],
    held: Stage,
    *,
    targets: Targets,
    is_expected: bool,
    budget_ms: float,
    load: float,
) -> Gear:
    if found.last < 0:
        ends = straight_to_the_top(held)
        return Gear(
            name=name,
            guarantee=Guarantee.NONE,
            penalty=0.0,
            tables=(),
            promise=promise_of(held, ends, targets),
            budget_ms=budget_ms,
            load=load,
            placement=held.predictions.tiers[-1],
        )
    step, ends = steps[found.last], path[found.last]
    averages = step.itinerary.averages(held.predictions.tiers)
    # In expectation, a dearer step that misses the cost is passed by, so it is not certified.
    has_steps = not is_expected or targets.max_cost is None
    costs = [float(one.cost.mean()) for one in path[: found.last + 1]] if has_steps else []
    return Gear(
        name=name,
        guarantee=Guarantee.EXPECTATION if is_expected else Guarantee.CERTIFIED,
        penalty=step.itinerary.penalty,
        tables=_tables(step, held),
        promise=promise_of(held, ends, targets),
        budget_ms=budget_ms,
        load=load,
        placement=step.itinerary.placement.describe(held.predictions.tiers),
        averages=averages,
        safer=tuple(_safer(steps[index], path[index], held) for index in spread(costs)),
    )


def _tables(step: Step, held: Stage) -> tuple[DecisionTable, ...]:
    tiers = held.predictions.tiers
    averages = step.itinerary.averages(tiers)
    return tuple(
        msgspec.structs.replace(table, score=_kind_of(held.predictions, table, averages))
        for table in step.itinerary.tables(tiers)
    )


def _safer(step: Step, ends: Journeys, held: Stage) -> SaferStep:
    """A step that was certified on the way; its tables are its own, as they price what follows."""
    return SaferStep(
        penalty=step.itinerary.penalty,
        tables=_tables(step, held),
        cost=float(ends.cost.mean()),
        loss=float((held.correct[-1] - ends.correct).mean()),
        placement=step.itinerary.placement.describe(held.predictions.tiers),
        averages=step.itinerary.averages(held.predictions.tiers),
    )


def _kind_of(predictions: Predictions, table: DecisionTable, averages: Sequence[Average]) -> Score:
    tier = predictions.tiers.index(table.tiers[-1])
    if any(agreed.tiers == table.tiers for agreed in averages):
        return averaged_kind(predictions, tier)
    return predictions.kind_at(tier)


def promise_of(stage: Stage, ends: Journeys, targets: Targets) -> Promise:
    """What a configuration did on a data set, with intervals."""
    tiers = stage.predictions.tiers
    counts = np.bincount(ends.answered_by, minlength=len(tiers)) / stage.num
    saved = 1 - oracle_cost(stage, targets.max_loss)
    return Promise(
        answered_by={tier: float(share) for tier, share in zip(tiers, counts, strict=True)},
        cost=interval_of(ends.cost),
        loss=interval_of(stage.correct[-1] - ends.correct),
        accuracy=interval_of(ends.correct),
        late=float(ends.late.mean()),
        savings_captured=(1 - float(ends.cost.mean())) / saved if saved > 0 else 0.0,
        p_value=p_value_of(stage.correct[-1], ends, targets, targets.delta),
        disagreement=interval_of(_differs(stage, ends)),
    )


def _differs(stage: Stage, ends: Journeys) -> Floats:
    """(n,) 1 where the final answer is not the top tier's."""
    predicted = stage.predictions.predicted
    final = predicted[ends.answered_by, np.arange(stage.num)]
    differs: Floats = (final != predicted[-1]).astype(np.float64)
    return differs


def interval_of(values: Floats) -> Interval:
    """Mean with the normal 95 % interval."""
    mean = float(values.mean())
    half = (
        NUM_95 * float(values.std(ddof=1)) / float(np.sqrt(len(values))) if len(values) > 1 else 1
    )
    return Interval(mean, mean - half, mean + half)
