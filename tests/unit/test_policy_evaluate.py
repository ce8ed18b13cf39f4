"""Judging policies: the oracle, the waterfall, and how often a promise is broken."""

from __future__ import annotations

import numpy as np
import pytest

from fakes.labelled import by_hand, sampled
from model_zoo.policies.evaluate import Evaluation, evaluate
from model_zoo.policies.measures import (
    calibration_error,
    excess_aurc,
    generalized_aurc,
    oracle_cost,
)
from model_zoo.policies.stages import Stage
from runtime.errors import PolicyError
from runtime.policy import Targets

# Ten partitions are fitted; with coverage measured that takes a while.
pytestmark = pytest.mark.timeout(90)
POPULATION = sampled(11, 3000)


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return evaluate(POPULATION, Targets(0.01, 0.1), num_labels=1000, num_calibrations=200, seed=1)


def test_the_promise_is_broken_no_more_often_than_delta(evaluation: Evaluation) -> None:
    assert evaluation.n_calibrations == 200
    assert evaluation.violation_rate <= 0.1
    assert evaluation.violation_rate < evaluation.violation_upper95


def test_the_waterfall_falls(evaluation: Evaluation) -> None:
    assert 0 < evaluation.cost_oracle < evaluation.cost_hindsight < evaluation.cost_mean < 1
    assert 0 < evaluation.savings_captured < evaluation.savings_captured_hindsight < 1


def test_everything_is_answered_by_somebody(evaluation: Evaluation) -> None:
    assert set(evaluation.answered_by) == {"edge", "regional", "cloud"}
    assert sum(evaluation.answered_by.values()) == pytest.approx(1)


def test_the_same_seed_gives_the_same_evaluation() -> None:
    small = sampled(12, 800)

    def once() -> Evaluation:
        return evaluate(small, Targets(0.05, 0.1), num_labels=200, num_calibrations=3)

    assert once() == once()


@pytest.mark.parametrize(("labels", "calibrations"), [(3, 10), (100, 0)])
def test_too_few_labels_or_calibrations_are_refused(labels: int, calibrations: int) -> None:
    with pytest.raises(PolicyError, match="at least"):
        evaluate(POPULATION, Targets(0.01, 0.1), num_labels=labels, num_calibrations=calibrations)


def test_too_few_examples_are_refused() -> None:
    with pytest.raises(PolicyError, match="too few to learn"):
        evaluate(sampled(1, 90), Targets(0.01, 0.1), num_labels=50, num_calibrations=2)


class TestOracle:
    # The lowest is right on the first; regional mends the second, the cloud the next two.
    STAGE = Stage(
        by_hand(
            label=[0, 0, 0, 0, 0],
            predicted=[[0, 1, 1, 1, 1], [0, 0, 1, 1, 1], [0, 0, 0, 0, 1]],
            score=[[0.9, 0.2, 0.3, 0.4, 0.5]] * 3,
            price=[0.1, 0.5, 1.0],
        )
    )

    @pytest.mark.parametrize(
        ("max_loss", "cost"),
        [
            (0.0, 0.1 + (0.5 + 1 + 1) / 5),
            (0.2, 0.1 + (0.5 + 1) / 5),
            (0.4, 0.1 + 0.5 / 5),
            (0.6, 0.1),
            (1.0, 0.1),
        ],
    )
    def test_it_corrects_the_cheapest_first_until_the_target_is_met(
        self, max_loss: float, cost: float
    ) -> None:
        assert oracle_cost(self.STAGE, max_loss) == pytest.approx(cost)


class TestScores:
    def test_a_perfect_ranking_has_no_excess(self) -> None:
        correct = np.array([1.0, 1, 1, 0, 0])

        assert excess_aurc(np.array([0.9, 0.8, 0.7, 0.2, 0.1]), correct) == pytest.approx(0)
        assert excess_aurc(np.array([0.1, 0.2, 0.7, 0.8, 0.9]), correct) > 0.3

    def test_augrc_of_a_ranking_by_hand(self) -> None:
        # Accepted one by one: failures among all 4 are 0, 0, 1 and 1 of 4.
        got = generalized_aurc(np.array([0.9, 0.8, 0.7, 0.6]), np.array([1.0, 1, 0, 1]))

        assert got == pytest.approx((0 + 0 + 1 + 1) / 16)

    def test_equal_scores_are_accepted_together(self) -> None:
        same = np.full(4, 0.5)

        first = excess_aurc(same, np.array([1.0, 1, 0, 0]))
        second = excess_aurc(same, np.array([0.0, 1, 0, 1]))

        assert first == pytest.approx(second)

    def test_a_chance_that_is_right_as_often_as_it_says_has_no_calibration_error(self) -> None:
        correct = np.array([1.0, 1, 1, 0])

        assert calibration_error(np.full(4, 0.75), correct) == pytest.approx(0)
        assert calibration_error(np.full(4, 5.0), correct) == pytest.approx(0.25)
