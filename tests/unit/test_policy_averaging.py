"""Policies whose tiers average: what is learned, what is won, and that devices do the same."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fakes.labelled import believing, sampled
from model_zoo.policies.averaging import averaged_answers, learned_weights
from model_zoo.policies.evaluate import evaluate, judge
from model_zoo.policies.fit import Conditions, Splits, fit_policy, promise_of
from model_zoo.policies.journeys import Itinerary, Learner
from model_zoo.policies.placements import Placement, placements
from model_zoo.policies.prediction_files import read_predictions, write_predictions
from model_zoo.policies.predictions import Predictions
from model_zoo.policies.replay import replay
from model_zoo.policies.reuse import check_unused
from model_zoo.policies.stages import Stage
from runtime.core.beliefs import believed, take_average
from runtime.core.confidence import Confidence, confidence_of
from runtime.core.gears import weigh
from runtime.errors import PolicyError
from runtime.messages import Guarantee
from runtime.policy import Gear, Policy, Score, Targets, decode_policy, encode_policy

TRAIN, CALIBRATION = believing(1, 3000), believing(2, 3000)
TARGETS = Targets(max_loss=0.02, delta=0.1)
AVERAGING = Placement((0, 1, 2), skips=True, averages=True)


def fitted(train: Predictions, calibration: Predictions, **options: Any) -> Policy:
    return fit_policy(
        Splits(train, calibration), TARGETS, Conditions(**options), name="made-up", seed=3
    )


@cache
def averaging() -> Policy:
    return fitted(TRAIN, CALIBRATION)


@cache
def plain() -> Policy:
    return fitted(TRAIN.without_beliefs(), CALIBRATION.without_beliefs())


def test_tiers_of_equal_worth_count_alike_and_one_that_guesses_hardly() -> None:
    equal = learned_weights(TRAIN, (0, 1))
    guessing = learned_weights(believing(3, 3000, strength=(0.1, 2.0, 2.0)), (0, 1))

    assert equal == pytest.approx((0.5, 0.5), abs=0.05)
    assert guessing[0] < 0.1
    assert sum(equal) == sum(guessing) == 1


def test_two_weak_tiers_are_right_more_often_than_each() -> None:
    fresh = believing(4, 20_000)

    together = averaged_answers(fresh, (0, 1), learned_weights(TRAIN, (0, 1)))

    assert together.correct.mean() > fresh.correct[:2].mean(axis=1).max() + 0.02


def test_averaging_makes_a_certified_policy_cheaper() -> None:
    """Two weak tiers that err apart: what both say together need not be asked of the top."""
    fresh = Stage(believing(9, 20_000))
    gear, other = averaging().gears[0], plain().gears[0]

    found = promise_of(fresh, judge(gear, fresh), TARGETS)
    without = promise_of(fresh, judge(other, fresh), TARGETS)

    assert gear.guarantee is other.guarantee is Guarantee.CERTIFIED
    assert gear.averages
    assert not other.averages
    assert found.cost.mean < 0.8 * without.cost.mean
    assert found.loss.mean <= TARGETS.max_loss
    # The top is measured by what it says alone.
    assert found.accuracy.mean + found.loss.mean == pytest.approx(fresh.correct[-1].mean())


def test_an_average_at_the_top_may_beat_the_top() -> None:
    train, fresh = believing(5, 3000), Stage(believing(6, 5000))

    ends = Learner(Stage(train), AVERAGING).fit(-1.0).follow(fresh)

    assert set(ends.answered_by.tolist()) == {2}
    assert ends.correct.mean() > fresh.correct[-1].mean() + 0.02


def test_the_file_holds_what_is_averaged() -> None:
    policy = averaging()

    again = decode_policy(encode_policy(policy), "policy.json")

    assert again == policy
    assert again.gears[0].placement.endswith("+average")
    fresh = Stage(believing(7, 500))
    first, second = judge(policy.gears[0], fresh), judge(again.gears[0], fresh)
    np.testing.assert_array_equal(first.correct, second.correct)


def test_without_beliefs_the_fit_is_as_it_was_before_there_were_any() -> None:
    assert b"averag" not in encode_policy(plain())
    assert not any(one.averages for one in placements(3, with_races=True))


def test_averages_need_probabilities_of_both_splits() -> None:
    assert fitted(TRAIN, CALIBRATION.without_beliefs()) == plain()
    assert averaging().with_averages


def test_leaving_averages_out_is_another_choice_on_the_same_examples(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_bytes(encode_policy(averaging()))

    check_unused(CALIBRATION, TRAIN, TARGETS, [path])
    with pytest.raises(PolicyError, match="or averages"):
        check_unused(CALIBRATION.without_beliefs(), TRAIN.without_beliefs(), TARGETS, [path])


def test_whoever_races_does_not_average() -> None:
    found = placements(4, with_races=True, with_averages=True)

    assert any(one.averages for one in found)
    assert not any(one.averages and one.races for one in found)
    assert Placement((0, 1, 2)).averaging_stops() == []
    assert AVERAGING.averaging_stops() == [(0, 1), (0, 1, 2), (0, 2)]


def test_gears_for_a_budget_average_too() -> None:
    trace = np.column_stack([np.linspace(10, 50, 41), np.linspace(20, 60, 41)])

    train, calibration = (
        replace(one, service_ms=np.ones((3, 3000))) for one in (TRAIN, CALIBRATION)
    )
    policy = fitted(train, calibration, trace=trace, budgets_ms=(150.0,))

    assert policy.gears[0].averages


def of_score(kind: Score, believed_by: Predictions) -> Predictions:
    """The same, looked up with a kind of score for which collecting kept the numbers."""
    assert believed_by.beliefs is not None
    scores = [
        [confidence_of(shares.astype(np.float64)).score(kind) for shares in of_tier]
        for of_tier in believed_by.beliefs
    ]
    known: dict[Score, Any] = {kind: np.asarray(scores)}
    return replace(believed_by, scores=known).using(dict.fromkeys(believed_by.tiers, kind))


def climbed(gear: Gear, tiers: tuple[str, ...], beliefs: Any) -> tuple[str, int, list[str]]:
    """Who answers what for one example on the device, and who was asked, as tiers do it."""
    stop, labels, told, asked = tiers[:1], list[int](), list[tuple[str, bytes]](), [tiers[0]]
    while True:
        own = beliefs[tiers.index(stop[-1])]
        agreed = gear.average_at(stop)
        confidence: Confidence | None = confidence_of(own.astype(np.float64))
        if agreed is not None:
            averaged = take_average(agreed, told, own)
            confidence = averaged.confidence if averaged else None
        assert confidence is not None
        assert confidence.label is not None
        labels.append(confidence.label)
        told.append((stop[-1], own.tobytes()))
        table = gear.table_at(stop)
        advised = table and weigh(
            gear,
            table,
            label=confidence.label,
            score=confidence.score(table.score),
            earlier=labels[:-1],
        )
        choice = advised.choice if advised else None
        if choice is None:
            return stop[-1], labels[-1], asked
        if choice.answer:
            return choice.answer, labels[stop.index(choice.answer)], asked
        stop = (*stop, *choice.to)
        asked.extend(choice.to)


@pytest.mark.parametrize("kind", ["probability", "margin", "entropy"])
def test_the_device_takes_the_journeys_that_were_judged(kind: Score) -> None:
    train, held = of_score(kind, TRAIN), of_score(kind, believing(8, 400))
    itinerary = Learner(Stage(train), AVERAGING).fit(0.05)
    gear = Gear(
        name="g",
        guarantee=Guarantee.NONE,
        penalty=0.05,
        tables=tuple(
            msgspec.structs.replace(table, score=kind) for table in itinerary.tables(train.tiers)
        ),
        promise=averaging().gears[0].promise,
        averages=itinerary.averages(train.tiers),
    )

    ends = Itinerary.of(gear, train.tiers, train.label_names).follow(Stage(held))

    prices = dict(zip(held.tiers, held.relative_price, strict=True))
    assert held.beliefs is not None
    for example in range(held.num_examples):
        tier, label, asked = climbed(gear, held.tiers, held.beliefs[:, example])
        assert held.tiers[ends.answered_by[example]] == tier
        assert ends.correct[example] == (label == held.label[example])
        assert ends.cost[example] == pytest.approx(sum(prices[one] for one in asked))
    assert len(set(ends.answered_by.tolist())) > 1


def test_a_kind_of_score_that_no_average_has_gives_way_to_the_probability() -> None:
    energetic = replace(TRAIN, scores={"energy": TRAIN.score * 2}).using({"regional": "energy"})

    own = Stage(energetic).averaging({(0, 1): (0.0, 1.0)}).answers((0, 1))

    assert own.score == pytest.approx(TRAIN.score[1], abs=1e-3)


def test_files_keep_what_tiers_hold_likely(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.npz", TRAIN)

    again = read_predictions(tmp_path / "p.npz")

    np.testing.assert_array_equal(again.beliefs, TRAIN.beliefs)
    assert again.take(np.arange(5)).beliefs is not None
    assert read_predictions(tmp_path / "p.npz", services=[0, 2]).beliefs.shape[0] == 2  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "beliefs",
    [
        np.zeros((3, 50, 5), np.uint16),
        np.full((3, 50, 5), 0.2),
        np.full((3, 50, 5), 2**31, np.uint32),
        np.full((3, 50, 4), 16384, np.uint16),
        np.array(["x"]),
        np.uint16(7),
    ],
)
def test_files_with_anything_else_are_refused(tmp_path: Path, beliefs: Any) -> None:
    write_predictions(tmp_path / "p.npz", replace(believing(1, 50), beliefs=beliefs))

    with pytest.raises(PolicyError, match="parted over the classes"):
        read_predictions(tmp_path / "p.npz")


def test_examples_without_beliefs_cannot_judge_a_policy_that_averages() -> None:
    with pytest.raises(PolicyError, match="has no beliefs"):
        judge(averaging().gears[0], Stage(CALIBRATION.without_beliefs()))


def test_logs_cannot_replay_a_policy_that_averages() -> None:
    with pytest.raises(PolicyError, match="no probabilities"):
        replay(averaging(), [])


def test_evaluating_takes_averages_into_account() -> None:
    known = believing(10, 1500)

    found, without = (
        evaluate(one, TARGETS, num_labels=1000, num_calibrations=1)
        for one in (known, known.without_beliefs())
    )

    assert found.cost_mean < without.cost_mean


def test_predictions_without_beliefs_stay_so(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.npz", sampled(1, 200))

    assert read_predictions(tmp_path / "p.npz").beliefs is None
    assert believed(np.array([0.5, 0.5])) is not None
