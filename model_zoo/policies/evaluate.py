"""How good fitted policies are: against the oracle and hindsight, over many calibrations.

The examples are parted in two. On the first half the path is learned; the second half is taken for
the whole population: calibration examples are drawn from it (with replacement), and what the
certified configuration does on all of it is the truth, so whether a promise was broken is known
exactly. Several such partitions, many draws in each. Costs are in prices of the top tier.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from model_zoo.policies.betting import share_upper
from model_zoo.policies.certify import MIN_CERTIFIED, walk, walk_in_expectation
from model_zoo.policies.fit import MIN_CALIBRATION, MIN_TRAIN, check_targets
from model_zoo.policies.journeys import Itinerary, Learner
from model_zoo.policies.measures import (
    ScoreQuality,
    calibration_error,
    excess_aurc,
    generalized_aurc,
    oracle_cost,
)
from model_zoo.policies.path import Estimate, explore, fit_steps, front
from model_zoo.policies.placements import Placement
from model_zoo.policies.predictions import Predictions
from model_zoo.policies.stages import Journeys, Stage
from model_zoo.policies.tables import Floats
from runtime.errors import PolicyError
from runtime.policy import Gear, Targets

NUM_PARTITIONS = 10


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Means over all calibrations; ``uncertified_rate`` of them fell back to the top tier alone.

    ``match_saving`` and ``match_loss`` are those of the configuration that the training half alone
    shows to be the cheapest without any loss: the cost to match the top tier.
    ``escalations_per_corrected`` is the share that left the lowest tier over the accuracy that this
    won.
    """

    dataset: str
    n: int
    n_calibrations: int
    num_labels: int
    max_loss: float
    delta: float
    tiers: tuple[str, ...]
    cost_mean: float
    cost_oracle: float
    cost_hindsight: float
    loss_mean: float
    violation_rate: float
    violation_upper95: float
    savings_captured: float
    savings_captured_hindsight: float
    answered_by: dict[str, float]
    uncertified_rate: float
    escalations_per_corrected: float
    match_saving: float
    match_loss: float
    scores: dict[str, ScoreQuality]


@dataclass(frozen=True, slots=True)
class Curve:
    """Accuracy by cost on the population of one partition, for pictures."""

    cost: Floats
    accuracy: Floats
    oracle_cost: Floats
    oracle_accuracy: Floats
    lowest: tuple[float, float]
    top: tuple[float, float]


@dataclass(frozen=True, slots=True)
class _Half:
    """What one partition shows."""

    cost: Floats
    loss: Floats
    shares: Floats
    left_lowest: Floats
    hindsight: float
    oracle: float
    is_uncertified: int
    match: tuple[float, float]


def evaluate(
    predictions: Predictions,
    targets: Targets,
    *,
    num_labels: int,
    num_calibrations: int,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Evaluation:
    """Fits and certifies ``num_calibrations`` times with ``num_labels`` calibration labels each.

    Raises:
        PolicyError: too few examples or labels, or a target outside its range.
    """
    check_targets(targets)
    if num_labels < MIN_CALIBRATION or num_calibrations < 1:
        raise PolicyError(
            f"{num_labels} labels and {num_calibrations} calibrations; at least "
            f"{MIN_CALIBRATION} and 1 are needed"
        )
    if predictions.num_examples < 2 * MIN_TRAIN:
        raise PolicyError(
            f"{predictions.num_examples} examples are too few to learn on one half and judge on "
            f"the other; at least {2 * MIN_TRAIN} are needed"
        )
    num_partitions = min(NUM_PARTITIONS, num_calibrations)
    halves = []
    for number in range(num_partitions):
        draws = num_calibrations // num_partitions + (number < num_calibrations % num_partitions)
        halves.append(_evaluate_half(predictions, targets, num_labels, draws, seed + number))
        progress(number + 1, num_partitions)
    cost = np.concatenate([half.cost for half in halves])
    loss = np.concatenate([half.loss for half in halves])
    shares = np.concatenate([half.shares for half in halves])
    left = np.concatenate([half.left_lowest for half in halves])
    broken = int((loss > targets.max_loss + 1e-12).sum())
    oracle = float(np.mean([half.oracle for half in halves]))
    hindsight = float(np.mean([half.hindsight for half in halves]))
    correct = predictions.correct.mean(axis=1)
    won = float(correct[-1]) - float(loss.mean()) - float(correct[0])
    return Evaluation(
        dataset=predictions.source,
        n=predictions.num_examples,
        n_calibrations=num_calibrations,
        num_labels=num_labels,
        max_loss=targets.max_loss,
        delta=targets.delta,
        tiers=predictions.tiers,
        cost_mean=float(cost.mean()),
        cost_oracle=oracle,
        cost_hindsight=hindsight,
        loss_mean=float(loss.mean()),
        violation_rate=broken / num_calibrations,
        violation_upper95=share_upper(broken, num_calibrations),
        savings_captured=_captured(float(cost.mean()), oracle),
        savings_captured_hindsight=_captured(hindsight, oracle),
        answered_by=dict(zip(predictions.tiers, shares.mean(axis=0).tolist(), strict=True)),
        uncertified_rate=sum(half.is_uncertified for half in halves) / num_calibrations,
        escalations_per_corrected=float(left.mean()) / won if won > 0 else 0.0,
        match_saving=1 - float(np.mean([half.match[0] for half in halves])),
        match_loss=float(np.mean([half.match[1] for half in halves])),
        scores=score_qualities(predictions, seed),
    )


def _captured(cost: float, oracle: float) -> float:
    return (1 - cost) / (1 - oracle) if oracle < 1 else 0.0


def partition(predictions: Predictions, seed: int) -> tuple[Stage, Stage]:
    """A random half to learn on, and the other half."""
    order = np.random.default_rng(seed).permutation(predictions.num_examples)
    middle = len(order) // 2
    return Stage(predictions.take(order[:middle])), Stage(predictions.take(order[middle:]))


def _evaluate_half(
    predictions: Predictions, targets: Targets, num_labels: int, draws: int, seed: int
) -> _Half:
    train, population = partition(predictions, seed)
    estimates = explore(train, seed=seed)
    path = [
        step.itinerary.follow(population) for step in fit_steps(train, front(estimates, targets))
    ]
    top_correct = population.correct[-1]
    costs = np.asarray([ends.cost.mean() for ends in path])
    losses = np.asarray([(top_correct - ends.correct).mean() for ends in path])
    shares = np.asarray([_shares(ends, len(predictions.tiers)) for ends in path])
    left = np.asarray([(ends.cost > population.price[0] + 1e-12).mean() for ends in path])
    # One more, last, for "nothing certified": everything to the top.
    only_top = np.eye(len(predictions.tiers))[-1:]
    costs, losses = np.append(costs, 1.0), np.append(losses, 0.0)
    shares = np.concatenate([shares.reshape(len(path), -1), only_top])
    left = np.append(left, 1.0)
    generator = np.random.default_rng([seed, 1])
    found = np.asarray(
        [
            _certify(path, top_correct, targets, generator.integers(0, population.num, num_labels))
            for _ in range(draws)
        ],
        np.int64,
    )
    return _Half(
        cost=costs[found],
        loss=losses[found],
        shares=shares[found],
        left_lowest=left[found],
        hindsight=_hindsight(train, population, estimates, targets.max_loss),
        oracle=oracle_cost(population, targets.max_loss),
        is_uncertified=int((found == -1).sum()),
        match=_match(train, population, estimates),
    )


def _shares(ends: Journeys, num_tiers: int) -> Floats:
    shares: Floats = np.bincount(ends.answered_by, minlength=num_tiers) / len(ends.answered_by)
    return shares


def _certify(
    path: Sequence[Journeys],
    top_correct: Floats,
    targets: Targets,
    drawn: np.ndarray[tuple[int], np.dtype[np.int64]],
) -> int:
    held = top_correct[drawn]
    steps = [ends.take(drawn) for ends in path]
    if len(drawn) < MIN_CERTIFIED:
        return walk_in_expectation(held, steps, targets).last
    return walk(held, steps, targets, targets.delta).last


def _hindsight(
    train: Stage, population: Stage, estimates: Sequence[Estimate], max_loss: float
) -> float:
    """The least cost of all configurations that lose no more than allowed on the population."""
    top = float(population.correct[-1].mean())
    learners: dict[Placement, Learner] = {}
    best = 1.0
    for estimate in estimates:
        if estimate.cost >= best + 0.05:
            continue
        learner = learners.setdefault(estimate.placement, Learner(train, estimate.placement))
        ends = learner.fit(estimate.penalty).follow(population)
        if top - float(ends.correct.mean()) <= max_loss:
            best = min(best, float(ends.cost.mean()))
    return best


def _match(train: Stage, population: Stage, estimates: Sequence[Estimate]) -> tuple[float, float]:
    """Cost and loss on the population of what the training half shows to match the top tier."""
    matching = [estimate for estimate in estimates if estimate.loss <= 0]
    if not matching:
        return 1.0, 0.0
    cheapest = min(matching, key=lambda estimate: estimate.cost)
    ends = Learner(train, cheapest.placement).fit(cheapest.penalty).follow(population)
    loss = float(population.correct[-1].mean()) - float(ends.correct.mean())
    return float(ends.cost.mean()), loss


def score_qualities(predictions: Predictions, seed: int) -> dict[str, ScoreQuality]:
    """How good every tier's score is, on the half that its table was not fitted on."""
    train, held = partition(predictions, seed)
    found = {}
    for tier, name in enumerate(predictions.tiers):
        score, correct = held.predictions.score[tier], held.correct[tier]
        found[name] = ScoreQuality(
            accuracy=float(correct.mean()),
            e_aurc=excess_aurc(score, correct),
            augrc=generalized_aurc(score, correct),
            ece_before=calibration_error(score, correct),
            ece_after=calibration_error(calibrated(train, held, tier), correct),
        )
    return found


def calibrated(train: Stage, held: Stage, tier: int) -> Floats:
    """(n,) chance that a tier's answer is right, by its label and score."""
    return Learner(train, Placement((tier, len(train.price)))).chance_right(held, tier)


def judge(gear: Gear, stage: Stage) -> Journeys:
    """Where the examples of a data set end under a gear that was read from a file.

    Raises:
        PolicyError: the gear is for other tiers, classes or kinds of scores.
    """
    kinds = {table.tiers[-1]: table.score for table in gear.tables}
    scored = Stage(stage.predictions.using(kinds), stage.timing)
    itinerary = Itinerary.of(gear, stage.predictions.tiers, stage.predictions.label_names)
    return itinerary.follow(scored)


def curve(predictions: Predictions, seed: int) -> Curve:
    """Accuracy by cost on one held-out half: the path, the oracle, and the single tiers."""
    train, population = partition(predictions, seed)
    loose = Targets(max_loss=1.0, delta=0.1)
    steps = fit_steps(train, front(explore(train, seed=seed), loose))
    ends = [step.itinerary.follow(population) for step in steps]
    top, lowest = (float(population.correct[tier].mean()) for tier in (-1, 0))
    ceiling = float(population.correct.max(axis=0).mean())
    wanted = np.linspace(lowest, ceiling, 60)
    return Curve(
        cost=np.asarray([one.cost.mean() for one in ends]),
        accuracy=np.asarray([one.correct.mean() for one in ends]),
        oracle_cost=np.asarray([oracle_cost(population, top - accuracy) for accuracy in wanted]),
        oracle_accuracy=wanted,
        lowest=(float(population.price[0]), lowest),
        top=(1.0, top),
    )
