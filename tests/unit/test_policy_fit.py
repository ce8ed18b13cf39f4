"""Fitting a policy: what it promises, and what it refuses to."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fakes.labelled import sampled
from model_zoo.policies.certify import p_value_of
from model_zoo.policies.evaluate import judge
from model_zoo.policies.feasibility import ImpossibleError
from model_zoo.policies.fit import Conditions, Splits, fit_policy
from model_zoo.policies.live_facts import spread, trace_facts
from model_zoo.policies.predictions import Predictions
from model_zoo.policies.reuse import check_fits, check_unused
from model_zoo.policies.stages import Stage
from model_zoo.policies.trace import read_trace
from runtime.core.drift import distance
from runtime.core.ladder import ladder
from runtime.errors import PolicyError
from runtime.messages import Guarantee
from runtime.policy import Policy, Targets, decode_policy, encode_policy

TRAIN, CALIBRATION = sampled(1, 2000), sampled(2, 2000)
SPLITS = Splits(TRAIN, CALIBRATION)
TARGETS = Targets(max_loss=0.02, delta=0.1)
# Round trips to the region of 10 to 50 ms, from there to the cloud of 20 to 60.
TRACE = np.column_stack([np.linspace(10, 50, 41), np.linspace(20, 60, 41)])


def fitted(targets: Targets = TARGETS, **changes: object) -> Policy:
    conditions = replace(Conditions(), **changes)  # type: ignore[arg-type]
    return fit_policy(SPLITS, targets, conditions, name="made-up", seed=3)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return fitted()


def test_a_certified_policy_saves_and_keeps_its_promise_on_unseen_examples(policy: Policy) -> None:
    gear = policy.gears[0]

    fresh = Stage(sampled(9, 20_000))
    ends = judge(gear, fresh)

    assert gear.guarantee is Guarantee.CERTIFIED
    assert gear.promise.cost.mean < 0.9
    assert gear.promise.p_value <= TARGETS.delta
    assert float((fresh.correct[-1] - ends.correct).mean()) <= TARGETS.max_loss
    assert float(ends.cost.mean()) == pytest.approx(gear.promise.cost.mean, abs=0.05)


def test_the_file_holds_all_that_the_policy_is(policy: Policy) -> None:
    again = decode_policy(encode_policy(policy), "policy.json")

    assert again == policy
    assert again.calibration.digest == CALIBRATION.digest
    assert again.models == TRAIN.models


def test_a_policy_from_a_file_sends_every_example_where_the_fit_did(policy: Policy) -> None:
    again = decode_policy(encode_policy(policy), "policy.json")

    ends = judge(again.gears[0], Stage(CALIBRATION))

    promise = policy.gears[0].promise
    assert float(ends.cost.mean()) == pytest.approx(promise.cost.mean, abs=1e-12)
    assert float(ends.correct.mean()) == pytest.approx(promise.accuracy.mean, abs=1e-12)


def test_the_same_splits_and_seed_give_the_same_bytes(policy: Policy) -> None:
    assert encode_policy(fitted()) == encode_policy(policy)


def test_what_cannot_be_certified_goes_straight_to_the_top_without_a_guarantee() -> None:
    # Of few labels beyond the least number, no loss as small as this can be shown.
    few = Splits(TRAIN, CALIBRATION.take(np.arange(1000)))

    policy = fit_policy(few, Targets(1e-6, 1e-6), Conditions(), name="strict")

    gear = policy.gears[0]
    assert gear.guarantee is Guarantee.NONE
    assert gear.tables == ()
    assert gear.promise.answered_by["cloud"] == 1
    assert gear.promise.cost.mean == 1


def test_few_examples_give_an_expectation_and_say_so() -> None:
    few = Splits(TRAIN, CALIBRATION.take(np.arange(400)))

    policy = fit_policy(few, Targets(0.05, 0.1), Conditions(), name="few")

    assert policy.gears[0].guarantee is Guarantee.EXPECTATION
    assert "Conformal risk control" in policy.method


def test_there_is_a_gear_for_every_budget_and_load() -> None:
    targets = Targets(max_loss=0.1, delta=0.4, max_late=0.3)

    policy = fitted(targets, budgets_ms=(120.0, 400.0), loads=(2.0, 1.0), trace=TRACE)

    assert [(gear.budget_ms, gear.load) for gear in policy.gears] == [
        (120.0, 1.0),
        (120.0, 2.0),
        (400.0, 1.0),
        (400.0, 2.0),
    ]
    assert all(gear.promise.late <= 0.3 for gear in policy.gears if gear.tables)
    # Where the cloud can hardly answer in time, it is asked less.
    assert (
        policy.gears[1].promise.answered_by["cloud"] < policy.gears[0].promise.answered_by["cloud"]
    )


class TestImpossible:
    def test_an_accuracy_above_every_placement_names_the_best_and_the_way_out(self) -> None:
        with pytest.raises(ImpossibleError, match=r"reaches min-accuracy 0\.999") as got:
            fitted(Targets(0.02, 0.1, min_accuracy=0.999))

        (relaxation,) = got.value.relaxations
        assert relaxation.target == "min-accuracy"
        assert 0.9 < relaxation.possible < 0.999
        assert 0 < relaxation.cost <= 1.1

    def test_targets_that_exclude_one_another_name_each_that_could_give_way(self) -> None:
        with pytest.raises(ImpossibleError, match="not all of them by one placement") as got:
            fitted(Targets(0.001, 0.1, max_cost=0.05))

        assert {one.target for one in got.value.relaxations} == {"max-loss", "max-cost"}

    def test_a_budget_that_no_reply_keeps_gives_way_to_accuracy(self) -> None:
        targets = Targets(0.001, 0.1, max_late=0.001)

        with pytest.raises(ImpossibleError, match="for gear 5ms-x1") as got:
            fitted(targets, budgets_ms=(5.0,), trace=TRACE)

        (relaxation,) = got.value.relaxations
        assert (relaxation.target, relaxation.late) == ("max-loss", 0)


class TestRefusals:
    @pytest.mark.parametrize(
        "targets",
        [
            Targets(-0.1, 0.1),
            Targets(math.nan, 0.1),
            Targets(0.01, 0.0),
            Targets(0.01, 0.9),
            Targets(0.01, 0.1, max_late=2.0),
            Targets(0.01, 0.1, min_accuracy=1.5),
        ],
    )
    def test_targets_out_of_range(self, targets: Targets) -> None:
        with pytest.raises(PolicyError, match="outside"):
            fitted(targets)

    def test_too_few_examples(self) -> None:
        few = Splits(TRAIN.take(np.arange(50)), CALIBRATION)

        with pytest.raises(PolicyError, match="collect more labelled examples"):
            fit_policy(few, TARGETS, Conditions(), name="few")

    def test_splits_that_overlap(self) -> None:
        overlapping = Splits(TRAIN, TRAIN.take(np.arange(1000)))

        with pytest.raises(PolicyError, match="1000 examples are both in"):
            fit_policy(overlapping, TARGETS, Conditions(), name="twice")

    def test_budgets_without_a_trace(self) -> None:
        with pytest.raises(PolicyError, match="add --trace"):
            fitted(budgets_ms=(50.0,))

    def test_more_gears_than_delta_can_be_parted_into(self) -> None:
        with pytest.raises(PolicyError, match="1 to 24"):
            fitted(budgets_ms=tuple(range(1, 26)), trace=TRACE)


class TestReuse:
    def test_a_calibration_set_certifies_once(self, policy: Policy, tmp_path: Path) -> None:
        path = tmp_path / "policy.json"
        path.write_bytes(encode_policy(policy))

        with pytest.raises(PolicyError, match="voids the guarantee"):
            check_unused(CALIBRATION, TRAIN, Targets(0.03, 0.1), [path])

    def test_the_same_fit_may_be_repeated(self, policy: Policy, tmp_path: Path) -> None:
        path = tmp_path / "policy.json"
        path.write_bytes(encode_policy(policy))

        check_unused(CALIBRATION, TRAIN, TARGETS, [path, tmp_path / "not-there.json"])

    def test_predictions_of_another_model_are_refused(self, policy: Policy) -> None:
        other = replace(sampled(5, 200), models={**TRAIN.models, "edge": "f" * 64})

        with pytest.raises(PolicyError, match=r"other models .*\(edge\)"):
            check_fits(policy, other)


class TestTrace:
    def read(self, tmp_path: Path, text: str) -> object:
        path = tmp_path / "trace.csv"
        path.write_text(text)
        return read_trace(path, ("edge", "regional", "cloud")).tolist()

    def test_columns_are_found_by_name_and_lost_replies_are_infinite(self, tmp_path: Path) -> None:
        text = "at,cloud,regional\n0,40,20.5\n1,lost,30\n2,,10\n"

        assert self.read(tmp_path, text) == [[20.5, 40], [30, math.inf], [10, math.inf]]

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("", "no column 'regional'"),
            ("regional\n5\n", "no column 'cloud'"),
            ("regional,cloud\n", "0 measurements"),
            ("regional,cloud\n5,-1\n", "no time in ms"),
            ("regional,cloud\n5,soon\n", "trace.csv:2: 'soon'"),
            ("regional,cloud\n5,nan\n", "no time in ms"),
        ],
    )
    def test_what_is_no_trace_is_refused(self, tmp_path: Path, text: str, says: str) -> None:
        with pytest.raises(PolicyError, match=says):
            self.read(tmp_path, text)

    def test_a_missing_file_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(PolicyError, match="cannot be read"):
            read_trace(tmp_path / "none.csv", ("edge", "cloud"))


class TestScores:
    def test_a_kind_that_ranks_better_is_used_and_written_into_the_tables(self) -> None:
        def with_kinds(predictions: Predictions) -> Predictions:
            # A margin that knows; a probability that is the same with noise, and an empty kind.
            noise = np.random.default_rng(1).normal(0, 0.4, predictions.score.shape)
            scores = {
                "margin": predictions.score,
                "probability": predictions.score + noise,
                "agreement": np.ones_like(predictions.score),
            }
            return replace(predictions, score=scores["probability"], scores=scores)  # type: ignore[arg-type]

        splits = Splits(with_kinds(TRAIN), with_kinds(CALIBRATION))

        policy = fit_policy(splits, TARGETS, Conditions(), name="margins")

        assert {table.score for table in policy.gears[0].tables} == {"margin"}
        promise = policy.gears[0].promise
        ends = judge(policy.gears[0], Stage(splits.calibration))
        assert float(ends.cost.mean()) == pytest.approx(promise.cost.mean, abs=1e-12)

    def test_a_kind_that_was_not_collected_is_refused(self) -> None:
        with pytest.raises(PolicyError, match="no energy scores"):
            TRAIN.using({"edge": "energy"})


class TestFactsForLiveControl:
    def test_safer_steps_are_dearer_and_were_certified(self, policy: Policy) -> None:
        gear = policy.gears[0]

        steps = ladder(gear, policy.targets)[1:-1]

        costs = [gear.promise.cost.mean, *(step.cost for step in gear.safer)]
        assert 1 <= len(steps) <= 3
        assert costs == sorted(set(costs))
        for step, found in zip(steps, gear.safer, strict=True):
            ends = judge(step, Stage(CALIBRATION))
            lost = SPLITS.calibration.correct[-1] - ends.correct
            assert float(ends.cost.mean()) == pytest.approx(found.cost, abs=1e-12)
            assert float(lost.mean()) == pytest.approx(found.loss, abs=1e-12)
            p_value = p_value_of(
                CALIBRATION.correct[-1].astype(float), ends, TARGETS, TARGETS.delta
            )
            assert p_value <= TARGETS.delta

    def test_disagreement_is_that_of_the_final_answers(self, policy: Policy) -> None:
        promise = policy.gears[0].promise
        ends = judge(policy.gears[0], Stage(CALIBRATION))
        final = CALIBRATION.predicted[ends.answered_by, np.arange(CALIBRATION.num_examples)]

        assert promise.disagreement is not None
        assert promise.disagreement.mean == pytest.approx(
            float((final != CALIBRATION.predicted[-1]).mean())
        )
        # What is lost, is lost where answers differ.
        assert promise.disagreement.mean >= promise.loss.mean

    def test_calibration_scores_are_no_shift(self, policy: Policy) -> None:
        reference = policy.scores
        assert reference is not None
        scores = CALIBRATION.using({"edge": reference.kind}).score[0]

        assert (reference.tier, reference.num_examples) == ("edge", len(scores))
        assert distance(scores, reference.quantiles) == 0
        assert distance(scores / 2, reference.quantiles) > 0.3

    def test_medians_of_the_trace_are_kept_but_of_hops_that_are_mostly_lost(self) -> None:
        trace = np.column_stack([TRACE[:, 0], np.where(np.arange(41) < 25, np.inf, 30.0)])

        facts = trace_facts(trace, ("edge", "regional", "cloud"))

        assert (facts.num_rows, facts.median_ms) == (41, {"regional": 30.0})
        assert facts.digest != trace_facts(TRACE, ("edge", "regional", "cloud")).digest

    def test_what_only_holds_in_expectation_has_steps_unless_cost_is_bounded(self) -> None:
        few = Splits(TRAIN, CALIBRATION.take(np.arange(400)))

        free = fit_policy(few, Targets(0.05, 0.1), Conditions(), name="few")
        bounded = fit_policy(few, Targets(0.05, 0.1, max_cost=0.9), Conditions(), name="few")

        assert free.gears[0].safer
        assert bounded.gears[0].safer == ()


@pytest.mark.parametrize(
    ("costs", "kept"),
    [
        ([], []),
        ([0.3], []),
        ([0.9, 0.3], [0]),
        ([0.1, 0.3], []),
        ([1.0, 0.96, 0.3], []),
        ([1.0, 0.9, 0.8, 0.5, 0.4, 0.35, 0.3], [4, 3, 1]),
        ([0.5, 0.4, 0.0], [1, 0]),
    ],
)
def test_steps_are_spread_over_the_costs(costs: list[float], kept: list[int]) -> None:
    assert spread(costs) == kept
