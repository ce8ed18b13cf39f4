from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from model_zoo.calibrate import (
    ALLOWED_LOSS,
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    WANTED_EDGE_SHARE,
    Bools,
    CascadeScores,
    Float64s,
    Labels,
    TierScores,
    accept_curve,
    accuracy_of,
    calibration_error,
    cascade,
    choose_thresholds,
    fit_temperature,
    fit_weights,
    log_loss,
    probabilities_of,
    scores_of,
)

NUM_CLASSES = 4
finite = st.floats(-30, 30, width=32)
temperatures = st.floats(0.1, 10)


@st.composite
def labelled_logits(draw: st.DrawFn) -> tuple[Float64s, Labels]:
    number = draw(st.integers(1, 30))
    logits = draw(arrays.arrays(np.float64, (number, NUM_CLASSES), elements=finite))
    labels = draw(arrays.arrays(np.int64, number, elements=st.integers(0, NUM_CLASSES - 1)))
    return logits, labels


@st.composite
def tier_scores(draw: st.DrawFn, number: int = 20) -> TierScores:
    return TierScores(
        draw(arrays.arrays(np.float64, number, elements=st.floats(0, 1))),
        draw(arrays.arrays(np.bool_, number)),
    )


cascades = st.builds(CascadeScores, tier_scores(), tier_scores(), tier_scores())


def sampled(temperature: float, number: int = 4000) -> tuple[Float64s, Labels]:
    """Logits whose labels are drawn from their softmax at a temperature."""
    random = np.random.default_rng(3)
    logits = random.normal(0, 3, (number, NUM_CLASSES))
    shares = probabilities_of([logits], temperature)
    labels = (shares.cumsum(axis=1) > random.random((number, 1))).argmax(axis=1)
    return logits, labels


@given(labelled_logits(), temperatures)
def test_temperature_never_changes_the_answer_of_a_single_model(
    example: tuple[Float64s, Labels], temperature: float
) -> None:
    logits, _ = example

    chosen = probabilities_of([logits], temperature).argmax(axis=1)

    # Of logits that agree to the last digits, rounding may pick either.
    highest = logits[np.arange(len(chosen)), chosen]
    np.testing.assert_allclose(highest, logits.max(axis=1), atol=1e-12)


@given(labelled_logits(), temperatures)
def test_probabilities_are_probabilities(
    example: tuple[Float64s, Labels], temperature: float
) -> None:
    logits, _ = example

    shares = probabilities_of([logits, -logits], temperature, weights=[1, 3])

    assert (shares >= 0).all()
    np.testing.assert_allclose(shares.sum(axis=1), 1)


@given(labelled_logits())
def test_the_fitted_temperature_is_no_worse_than_others(
    example: tuple[Float64s, Labels],
) -> None:
    logits, labels = example

    fitted = fit_temperature([logits], labels)

    assert MIN_TEMPERATURE <= fitted <= MAX_TEMPERATURE
    loss = log_loss(probabilities_of([logits], fitted), labels)
    others = [
        log_loss(probabilities_of([logits], other), labels) for other in (0.06, 0.5, 1, 2, 10, 19)
    ]
    assert loss <= min(others) + 1e-6


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_a_known_temperature_is_found(temperature: float) -> None:
    logits, labels = sampled(temperature)

    assert fit_temperature([logits], labels) == pytest.approx(temperature, rel=0.1)


def test_fitting_lowers_the_calibration_error_of_an_overconfident_model() -> None:
    logits, labels = sampled(3.0)

    before = calibration_error(probabilities_of([logits]), labels)
    after = calibration_error(probabilities_of([logits], fit_temperature([logits], labels)), labels)

    assert before > 0.1
    assert after < 0.03


def test_an_ensemble_of_equals_is_calibrated_like_one_of_them() -> None:
    logits, labels = sampled(2.0)

    fitted = fit_temperature([logits, logits], labels, weights=[2.0, 1.0])

    assert fitted == pytest.approx(fit_temperature([logits], labels), rel=1e-3)


def test_an_ensemble_pools_probabilities_by_weight() -> None:
    first, second = np.log([[0.8, 0.2]]), np.log([[0.4, 0.6]])

    shares = probabilities_of([first, second], weights=[1, 3])

    np.testing.assert_allclose(shares, [[0.5, 0.5]])


@given(labelled_logits(), temperatures)
def test_the_calibration_error_is_a_share(
    example: tuple[Float64s, Labels], temperature: float
) -> None:
    logits, labels = example

    error = calibration_error(probabilities_of([logits], temperature), labels)

    assert 0 <= error <= 1


def test_the_calibration_error_of_known_cases() -> None:
    labels = np.array([0, 0, 1, 1])
    sure = np.array([[1.0, 0.0]] * 4)
    fair = np.array([[0.5, 0.5]] * 4)

    assert calibration_error(sure, labels) == pytest.approx(0.5)
    assert calibration_error(fair, labels) == pytest.approx(0.0)
    assert calibration_error(sure, np.ones(4, np.int64)) == pytest.approx(1.0)


def test_the_log_loss_of_known_cases() -> None:
    labels = np.array([0])

    assert log_loss(np.array([[0.25, 0.75]]), labels) == pytest.approx(math.log(4))
    assert math.isfinite(log_loss(np.array([[0.0, 1.0]]), labels))


def test_accuracy_counts_right_answers() -> None:
    scores = np.array([[2.0, 1.0], [0.0, 5.0], [3.0, 1.0], [1.0, 0.0]])

    assert accuracy_of(scores, np.array([0, 1, 1, 0])) == 0.75


@given(tier_scores())
def test_the_accept_curve_agrees_with_counting(scores: TierScores) -> None:
    confidence, correct = scores

    curve = accept_curve(confidence, correct)

    assert (np.diff(curve.thresholds) < 0).all()
    assert (np.diff(curve.share) > 0).all()
    assert curve.share[-1] == 1
    for threshold, share, accuracy in zip(
        curve.thresholds, curve.share, curve.accuracy, strict=True
    ):
        stands = confidence >= threshold
        assert share == pytest.approx(stands.mean())
        assert accuracy == pytest.approx(correct[stands].mean())


def test_scores_are_confidence_and_correctness() -> None:
    confidence, correct = scores_of(np.array([[0.9, 0.1], [0.3, 0.7]]), np.array([0, 0]))

    np.testing.assert_array_equal(confidence, [0.9, 0.7])
    np.testing.assert_array_equal(correct, [True, False])


@given(cascades, st.floats(0, 1), st.floats(0, 1))
def test_every_example_of_a_cascade_is_answered_once(
    scores: CascadeScores, low: float, high: float
) -> None:
    result = cascade(scores, low, high)

    assert result.edge_share + result.regional_share + result.cloud_share == pytest.approx(1)
    assert 0 <= result.mean_climbs <= 2


@given(cascades)
def test_the_ends_of_a_cascade_are_its_tiers(scores: CascadeScores) -> None:
    assert cascade(scores, 0, 0).accuracy == scores.edge.correct.mean()
    assert cascade(scores, 1.1, 0).accuracy == scores.regional.correct.mean()
    assert cascade(scores, 1.1, 1.1).accuracy == scores.cloud.correct.mean()


@settings(max_examples=25)
@given(cascades)
def test_chosen_thresholds_keep_the_rule(scores: CascadeScores) -> None:
    grid = [0.5, 0.6, 0.75, 0.9, 0.99]
    others = [cascade(scores, low, high) for low in grid for high in grid]

    chosen = choose_thresholds(scores)

    needed = scores.cloud.correct.mean() - ALLOWED_LOSS
    cheaper = [
        other
        for other in others
        if other.accuracy >= needed
        and other.edge_share >= min(WANTED_EDGE_SHARE, chosen.edge_share)
        and other.mean_climbs < chosen.mean_climbs - 1e-12
    ]
    more_accurate = [other for other in others if other.accuracy > chosen.accuracy]
    assert (chosen.accuracy >= needed and not cheaper) or not more_accurate


def test_a_good_edge_answers_by_itself() -> None:
    right: Bools = np.ones(100, np.bool_)
    sure = TierScores(np.full(100, 0.995), right)

    chosen = choose_thresholds(CascadeScores(sure, sure, sure))

    assert chosen.edge_share == 1.0
    assert chosen.accuracy == 1.0


def test_a_useless_edge_hands_everything_up() -> None:
    wrong = TierScores(np.full(100, 0.6), np.zeros(100, np.bool_))
    right = TierScores(np.full(100, 0.995), np.ones(100, np.bool_))

    chosen = choose_thresholds(CascadeScores(wrong, wrong, right))

    assert (chosen.edge_share, chosen.cloud_share) == (0.0, 1.0)
    assert chosen.edge_accept_at > 0.6
    assert chosen.regional_accept_at > 0.6


class TestWeights:
    LABELS = np.random.default_rng(5).integers(0, 3, 400)
    GOOD = np.eye(3)[LABELS] * 2 + np.random.default_rng(6).normal(0, 1, (400, 3))
    NOISE = np.random.default_rng(7).normal(0, 1, (400, 3))

    def test_who_knows_more_weighs_more_and_nobody_nothing(self) -> None:
        weights = fit_weights([self.GOOD, self.NOISE], self.LABELS)

        assert sum(weights) == pytest.approx(1)
        assert weights[0] > 0.8
        assert weights[1] >= 0.05

    def test_a_single_model_has_all_the_weight(self) -> None:
        assert fit_weights([self.GOOD], self.LABELS) == (1.0,)
