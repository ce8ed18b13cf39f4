import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from runtime.core.confidence import (
    FEW_CLASSES,
    INVALID,
    _confidence_of_rows,
    confidence_of,
    confidence_of_batch,
    softmax,
)
from runtime.policy import Score

logits = hnp.arrays(np.float32, st.integers(2, 12), elements=st.floats(-50, 50, width=32))
wide = hnp.arrays(
    st.sampled_from((np.float16, np.float32, np.float64)),
    st.tuples(st.just(1), st.integers(2, FEW_CLASSES)),
    elements={"allow_nan": True, "allow_infinity": True},
)
anything = hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, min_side=0))


@given(logits, st.floats(0.05, 20))
def test_probabilities_sum_to_one_and_keep_the_order(
    scores: npt.NDArray[np.float32], temperature: float
) -> None:
    shares = softmax(scores, temperature)

    assert shares.sum() == pytest.approx(1.0)
    assert shares[scores.argmax()] == shares.max()


@given(logits)
def test_the_label_is_the_largest_score_whatever_the_temperature(
    scores: npt.NDArray[np.float32],
) -> None:
    confidence = confidence_of(softmax(scores, 3.0))

    assert confidence.is_valid
    assert confidence.label is not None
    assert scores[confidence.label] == pytest.approx(scores.max(), abs=1e-6)
    assert 1 / len(scores) - 1e-9 <= confidence.probability <= 1
    assert 0 <= confidence.margin <= confidence.probability
    assert 0 <= confidence.entropy <= 1


@given(anything)
def test_no_array_makes_a_confidence_measure_raise(scores: npt.NDArray[np.float32]) -> None:
    for confidence in (confidence_of(scores), confidence_of_batch(scores)):
        assert confidence.is_valid or confidence == INVALID


@pytest.mark.parametrize(
    "probabilities",
    [[], [1.0], [np.nan, 0.5], [np.inf, 0.0], [0.0, 0.0], [-0.1, 1.1], [[0.5, 0.5]]],
)
def test_what_says_nothing_is_never_confident(probabilities: list[float]) -> None:
    assert confidence_of(np.array(probabilities)) == INVALID


def test_a_probability_of_exactly_zero_is_fine() -> None:
    # Peer that fails: Sedna, whose entropy raises.
    confidence = confidence_of(np.array([1.0, 0.0]))

    assert confidence.label == 0
    assert confidence.probability == 1.0
    assert confidence.entropy == 0.0


def test_a_row_with_nan_makes_the_whole_batch_invalid() -> None:
    scores = np.array([[5.0, 1.0], [np.nan, 1.0]])

    assert confidence_of_batch(scores) == INVALID


def test_a_batch_is_as_sure_as_its_least_sure_row_and_has_no_label() -> None:
    scores = np.array([[9.0, 0.0], [1.0, 0.5]])

    confidence = confidence_of_batch(scores)

    assert confidence.probability == pytest.approx(softmax(scores[1])[0])
    assert confidence.label is None
    assert confidence_of_batch(scores[1:]).label == 0


@pytest.mark.parametrize("scores", [np.zeros((0, 3)), np.zeros(3), np.zeros((2, 1))])
def test_an_empty_or_misshapen_batch_is_not_confident(scores: npt.NDArray[np.float64]) -> None:
    # Peer that fails: Sedna, where nothing found counts as sure.
    assert confidence_of_batch(scores) == INVALID


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan])
def test_a_temperature_that_is_not_above_zero_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        softmax(np.zeros(2), temperature)


@given(wide, st.floats(0.05, 20), st.floats(0, 1))
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_one_row_of_few_classes_gives_what_numpy_gives(
    scores: npt.NDArray[np.generic], temperature: float, agreement: float
) -> None:
    quick = confidence_of_batch(scores, temperature, agreement=agreement)
    numpy = _confidence_of_rows(scores, temperature, agreement)

    assert quick.is_valid == numpy.is_valid
    # Two scores that are equal after the exponential may be told apart by a rounding.
    assert quick.label == numpy.label or quick.margin < 1e-12
    for name in ("probability", "margin", "entropy", "energy", "agreement"):
        assert getattr(quick, name) == pytest.approx(getattr(numpy, name), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("num_classes", [2, FEW_CLASSES, FEW_CLASSES + 1])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_score_that_is_no_number_makes_the_answer_invalid(
    num_classes: int, value: float
) -> None:
    scores = np.zeros((1, num_classes))
    scores[0, 1] = value

    assert confidence_of_batch(scores) == INVALID


@given(logits, st.floats(0.05, 20))
def test_the_energy_is_never_below_the_largest_score_and_moves_with_all_of_them(
    scores: npt.NDArray[np.float32], temperature: float
) -> None:
    energy = confidence_of_batch(scores[np.newaxis], temperature).energy
    raised = confidence_of_batch(scores[np.newaxis].astype(np.float64) + 3, temperature).energy

    assert energy >= float(scores.max()) - 1e-9
    assert raised == pytest.approx(energy + 3)


@pytest.mark.parametrize("kind", ["probability", "margin", "entropy", "energy", "agreement"])
def test_every_score_is_larger_for_the_surer_answer_and_least_for_none(kind: Score) -> None:
    sure = confidence_of_batch(np.array([[9.0, 0.0, 0.0]]), agreement=1.0)
    unsure = confidence_of_batch(np.array([[0.2, 0.1, 0.0]]), agreement=0.5)

    assert sure.score(kind) > unsure.score(kind) > INVALID.score(kind)


def test_a_single_model_agrees_with_itself() -> None:
    assert confidence_of_batch(np.array([[2.0, 0.0]])).agreement == 1.0


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan])
@pytest.mark.parametrize("num_classes", [2, FEW_CLASSES + 1])
def test_no_way_of_working_it_out_takes_a_temperature_that_is_not_above_zero(
    temperature: float, num_classes: int
) -> None:
    with pytest.raises(ValueError, match="temperature"):
        confidence_of_batch(np.zeros((1, num_classes)), temperature)
