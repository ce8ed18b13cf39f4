"""The walk: it promises no more than the calibration split bears out, and reads it last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, overload

import numpy as np
import pytest

from fakes.labelled import sampled
from model_zoo.policies.certify import Walk, p_value_of, walk, walk_in_expectation
from model_zoo.policies.fit import Conditions, Splits, fit_policy
from model_zoo.policies.path import Step, explore, fit_steps, front
from model_zoo.policies.placements import Placement
from model_zoo.policies.predictions import Predictions
from model_zoo.policies.stages import Journeys, Stage
from model_zoo.policies.tables import Floats
from runtime.messages import Guarantee
from runtime.policy import Targets

DELTA = 0.1
LENIENT = Targets(max_loss=0.05, delta=DELTA)
NUM = 2000


def journeys(
    num: int = NUM,
    *,
    wrong: int = 0,
    late: int = 0,
    cost: float = 0.3,
    dearest: float = 1.4,
) -> Journeys:
    """Journeys of which the first few are wrong, and the last few late."""
    correct, is_late = np.ones(num), np.zeros(num, np.bool_)
    correct[:wrong] = 0
    is_late[num - late :] = True
    return Journeys(correct, np.full(num, cost), np.zeros(num, np.int64), is_late, dearest)


ALWAYS_RIGHT = np.ones(NUM)


class Recorded(Sequence[Journeys]):
    """A path that remembers which of its steps were looked at."""

    def __init__(self, steps: Sequence[Journeys]) -> None:
        self.steps = steps
        self.seen: list[int] = []

    @overload
    def __getitem__(self, index: int) -> Journeys: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Journeys]: ...

    def __getitem__(self, index: int | slice) -> Journeys | Sequence[Journeys]:
        if isinstance(index, slice):
            raise TypeError("one step after the other")
        step = self.steps[index]
        self.seen.append(index)
        return step

    def __len__(self) -> int:
        return len(self.steps)


def test_the_walk_goes_as_far_as_it_is_certain() -> None:
    path = [journeys(), journeys(wrong=20), journeys(wrong=40)]

    found = walk(ALWAYS_RIGHT, path, LENIENT, DELTA)

    assert found.last == 2
    assert found.p_value == p_value_of(ALWAYS_RIGHT, path[2], LENIENT, DELTA) <= DELTA


def test_the_walk_stops_at_the_first_step_that_is_not_certain() -> None:
    path = Recorded([journeys(), journeys(wrong=10), journeys(wrong=200), journeys(), journeys()])

    found = walk(ALWAYS_RIGHT, path, LENIENT, DELTA)

    # Steps that lie behind it are never looked at, however good.
    assert found.last == 1
    assert path.seen == [0, 1, 2]


@pytest.mark.parametrize("path", [[], [journeys(wrong=200)], [journeys(wrong=200), journeys()]])
def test_a_walk_that_gets_nowhere_promises_nothing(path: list[Journeys]) -> None:
    assert walk(ALWAYS_RIGHT, path, LENIENT, DELTA) == Walk(-1, 1.0)
    assert walk_in_expectation(ALWAYS_RIGHT, path, LENIENT) == Walk(-1, 1.0)


def test_the_loss_is_what_the_top_tier_has_right_and_the_answer_wrong() -> None:
    # The top tier is wrong just as often, so nothing is lost.
    top_correct = journeys(wrong=400).correct

    assert walk(top_correct, [journeys(wrong=400)], LENIENT, DELTA).last == 0
    assert walk(ALWAYS_RIGHT, [journeys(wrong=400)], LENIENT, DELTA).last == -1


VETOED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "accuracy": ({"wrong": 60}, {"min_accuracy": 0.975}),
    "late": ({"late": 100}, {"max_late": 0.055}),
    "cost": ({"cost": 0.3}, {"max_cost": 0.3}),
}


@pytest.mark.parametrize("what", VETOED)
def test_every_target_can_veto_a_step(what: str) -> None:
    found, asked = VETOED[what]
    ends, targets = journeys(**found), Targets(max_loss=0.1, delta=DELTA, **asked)
    without = Targets(max_loss=0.1, delta=DELTA)

    assert walk(ALWAYS_RIGHT, [ends], without, DELTA).last == 0
    assert walk(ALWAYS_RIGHT, [ends], targets, DELTA).last == -1


MET: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "loss": ({"wrong": 1}, {"max_loss": 0.1}),
    "accuracy": ({"wrong": 20}, {"min_accuracy": 0.975}),
    "late": ({"late": 50}, {"max_late": 0.055}),
    "cost": ({"cost": 0.2}, {"max_cost": 0.3}),
    "a loss that none can exceed": ({"wrong": 1900}, {"max_loss": 1.0}),
    "an accuracy that all have": ({}, {"min_accuracy": 0.0}),
    "a cost that none can exceed": ({"cost": 1.3}, {"max_cost": 1.4}),
    "lateness that all may have": ({}, {"max_late": 1.0}),
}


@pytest.mark.parametrize("what", MET)
def test_targets_that_are_met_with_room_to_spare_veto_nothing(what: str) -> None:
    found, asked = MET[what]
    targets = Targets(**{"max_loss": 0.1, "delta": DELTA} | asked)

    assert walk(ALWAYS_RIGHT, [journeys(**found)], targets, DELTA).last == 0


@pytest.mark.parametrize("what", MET)
def test_they_veto_nothing_in_expectation_either(what: str) -> None:
    found, asked = MET[what]
    targets = Targets(**{"max_loss": 0.1, "delta": DELTA} | asked)

    assert walk_in_expectation(ALWAYS_RIGHT, [journeys(**found)], targets).last == 0


@pytest.mark.parametrize("what", VETOED)
def test_every_target_can_veto_a_step_in_expectation(what: str) -> None:
    found, asked = VETOED[what]
    targets = Targets(max_loss=0.1, delta=DELTA, **asked)
    # Still further from what was asked for than the veto of a test needs.
    ends = journeys(**{name: value * 1.3 if name == "cost" else value * 2
                       for name, value in found.items()})  # fmt: skip

    assert walk_in_expectation(ALWAYS_RIGHT, [ends], targets).last == -1


def test_nothing_is_said_of_cost_when_the_dearest_journey_is_not_known() -> None:
    ends = replace(journeys(cost=0.1), dearest=np.inf)
    targets = Targets(max_loss=0.1, delta=DELTA, max_cost=0.3)

    assert walk(ALWAYS_RIGHT, [ends], targets, DELTA).last == -1
    assert walk_in_expectation(ALWAYS_RIGHT, [ends], targets).last == -1


def test_in_expectation_a_step_that_is_too_dear_is_passed_by() -> None:
    path = [journeys(cost=1.0), journeys(cost=0.6), journeys(cost=0.2)]
    targets = Targets(max_loss=0.1, delta=DELTA, max_cost=0.3)

    assert walk_in_expectation(ALWAYS_RIGHT, path, targets).last == 2


def test_in_expectation_harm_once_done_counts_from_then_on() -> None:
    # Neither step alone does more harm than is allowed; together they do.
    one, other = journeys(wrong=60), journeys()
    other.correct[-60:] = 0

    assert walk_in_expectation(ALWAYS_RIGHT, [one], LENIENT).last == 0
    assert walk_in_expectation(ALWAYS_RIGHT, [other], LENIENT).last == 0
    assert walk_in_expectation(ALWAYS_RIGHT, [one, other], LENIENT).last == 0


def test_in_expectation_help_does_not_make_up_for_harm() -> None:
    top_correct = journeys(wrong=400).correct
    ends = journeys()
    ends.correct[-200:] = 0

    assert walk_in_expectation(top_correct, [ends], LENIENT).last == -1


# Simulated calibrations from known populations.

#       harm, help: what is lost is their difference.
CHANCES = ((0.0, 0.0), (0.004, 0.002), (0.01, 0.004), (0.014, 0.003), (0.016, 0.002), (0.05, 0.0))
MAX_LOSS = 0.01
FIRST_UNSAFE = 3


def drawn(random: np.random.Generator, num: int) -> tuple[Floats, list[Journeys]]:
    """The top tier's rights, and steps that are worse than it by what ``CHANCES`` say."""
    # A step is wrong where the one before was: the losses of a path go together.
    luck = random.random(num)
    top_correct = np.ones(num)
    top_correct[luck > 0.95] = 0
    path = []
    for harm, help_ in CHANCES:
        ends = journeys(num)
        ends.correct[:] = top_correct
        ends.correct[luck < harm] = 0
        ends.correct[luck > 1 - help_] = 1
        path.append(ends)
    return top_correct, path


@pytest.mark.parametrize("num", [1000, 4000])
def test_a_certificate_is_wrong_no_more_often_than_allowed(num: int) -> None:
    random = np.random.default_rng(11)
    targets = Targets(max_loss=MAX_LOSS, delta=DELTA)

    lasts = [walk(*drawn(random, num), targets, DELTA).last for _ in range(400)]

    assert np.mean(np.array(lasts) >= FIRST_UNSAFE) <= DELTA
    # And it is no empty promise.
    assert np.mean(np.array(lasts) >= 1) > 0.75


def test_lateness_is_certified_no_more_often_than_allowed() -> None:
    random = np.random.default_rng(12)
    targets = Targets(max_loss=0.5, delta=DELTA, max_late=0.05)
    counts = random.binomial(NUM, 0.05, 600)

    found = [walk(ALWAYS_RIGHT, [journeys(late=late)], targets, DELTA).last for late in counts]

    # The test is exact, so that three standard errors of a share of 600 are allowed for.
    assert np.mean(np.array(found) == 0) <= DELTA + 3 * np.sqrt(DELTA * (1 - DELTA) / 600)


def test_cost_is_certified_no_more_often_than_allowed_where_few_journeys_are_dear() -> None:
    random = np.random.default_rng(13)
    # One in 500 costs 100 times the top tier: in hindsight often none was seen.
    ends = [journeys(300, dearest=100.0) for _ in range(600)]
    for one in ends:
        one.cost[:] = np.where(random.random(300) < 0.002, 100.0, 0.1)
    targets = Targets(max_loss=0.5, delta=DELTA, max_cost=0.1 * 0.998 + 0.2)

    found = [walk(np.ones(300), [one], targets, DELTA).last for one in ends]

    assert np.mean(np.array(found) == 0) <= DELTA


@pytest.mark.parametrize("num", [100, 400])
def test_the_harm_that_is_expected_is_no_more_than_allowed(num: int) -> None:
    random = np.random.default_rng(14)
    targets = Targets(max_loss=MAX_LOSS, delta=DELTA)
    harm = [*(chances[0] for chances in CHANCES), 0.0]

    lasts = [walk_in_expectation(*drawn(random, num), targets).last for _ in range(500)]

    assert np.mean([harm[last] for last in lasts]) <= MAX_LOSS


# Fitted policies.

SERIAL = Placement((0, 1, 2))


def fitted_steps(train: Predictions, targets: Targets) -> list[Step]:
    stage = Stage(train)
    return fit_steps(stage, front(explore(stage, seed=0, chosen=[SERIAL]), targets))


@pytest.fixture(scope="module")
def steps() -> list[Step]:
    return fitted_steps(sampled(21, 1500), Targets(max_loss=MAX_LOSS, delta=DELTA))


def test_fitted_policies_break_their_promise_no_more_often_than_allowed(
    steps: list[Step],
) -> None:
    random = np.random.default_rng(15)
    targets = Targets(max_loss=MAX_LOSS, delta=DELTA)
    population = Stage(sampled(22, 60_000))
    top_correct = population.correct[-1]
    path = [step.itinerary.follow(population) for step in steps]
    losses = [float((top_correct - ends.correct).mean()) for ends in path]

    lasts = []
    for _ in range(300):
        chosen = random.integers(0, population.num, 1500)
        lasts.append(
            walk(top_correct[chosen], [ends.take(chosen) for ends in path], targets, DELTA).last
        )

    # There is something to be wrong about, and something to be had.
    assert max(losses) > MAX_LOSS > min(losses)
    assert np.mean([losses[last] > MAX_LOSS for last in lasts if last >= 0]) <= DELTA
    assert np.mean([last >= 0 for last in lasts]) > 0.5


def test_the_path_gets_cheaper_and_riskier(steps: list[Step]) -> None:
    costs = [step.estimate.cost for step in steps]
    losses = [step.estimate.loss for step in steps]

    assert len(steps) > 3
    assert costs == sorted(costs, reverse=True)
    assert losses == sorted(losses)


def test_the_same_training_split_and_seed_give_the_same_path(steps: list[Step]) -> None:
    again = fitted_steps(sampled(21, 1500), Targets(max_loss=MAX_LOSS, delta=DELTA))

    names = sampled(21, 1).tiers
    assert [step.estimate for step in again] == [step.estimate for step in steps]
    assert [step.itinerary.tables(names) for step in again] == [
        step.itinerary.tables(names) for step in steps
    ]


class Watched(Predictions):
    """Predictions that say when their answers are looked at."""

    __slots__ = ("events",)
    events: list[str]

    def __getattribute__(self, name: str) -> Any:
        if name in ("score", "predicted", "correct"):
            object.__getattribute__(self, "events").append("calibration")
        return object.__getattribute__(self, name)


def watched(predictions: Predictions, events: list[str]) -> Watched:
    found = Watched(**{one.name: getattr(predictions, one.name) for one in fields(Predictions)})
    object.__setattr__(found, "events", events)
    return found


def few_penalties(monkeypatch: pytest.MonkeyPatch) -> None:
    """A coarser path, learned sooner."""
    monkeypatch.setattr("model_zoo.policies.path.PENALTIES", (-0.1, 0.005, 0.02, 0.08, 0.3))


def test_the_path_is_fixed_before_calibration_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    few_penalties(monkeypatch)
    events: list[str] = []
    splits = Splits(sampled(23, 1000), watched(sampled(24, 1000), events))

    fit_policy(
        splits,
        Targets(max_loss=0.05, delta=DELTA),
        Conditions(),
        name="watched",
        progress=events.append,
    )

    is_read = [event == "calibration" for event in events]
    assert any(is_read)
    # All of the fit's progress comes before the first look.
    assert is_read == sorted(is_read)


def test_calibration_decides_how_far_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    few_penalties(monkeypatch)
    train, targets = sampled(23, 1000), Targets(max_loss=0.03, delta=DELTA)
    stage = Stage(train)
    path = fit_steps(stage, front(explore(stage, seed=0), targets))
    tables = [step.itinerary.tables(train.tiers) for step in path]
    # Calibration examples of a population like the training's, of a better and of a worse one.
    calibrations = [
        sampled(31, 1500),
        sampled(32, 1500, accuracy=(0.94, 0.94, 0.95)),
        sampled(33, 1500, accuracy=(0.3, 0.4, 0.95)),
    ]

    gears = [
        fit_policy(Splits(train, one), targets, Conditions(), name="p").gears[0]
        for one in calibrations
    ]

    certified = [gear for gear in gears if gear.guarantee is Guarantee.CERTIFIED]
    assert len(certified) == 2
    assert all(gear.tables in tables for gear in certified)
    assert certified[0].tables != certified[1].tables
    assert gears[2].guarantee is Guarantee.NONE
    assert gears[2].tables == ()


def test_few_calibration_examples_are_said_to_bound_the_mean_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few_penalties(monkeypatch)
    splits = Splits(sampled(23, 1000), sampled(24, 400))

    policy = fit_policy(splits, Targets(max_loss=0.05, delta=DELTA), Conditions(), name="p")

    assert policy.gears[0].guarantee is Guarantee.EXPECTATION
