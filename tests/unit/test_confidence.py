import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from runtime.core.confidence import INVALID, confidence_of, confidence_of_batch, softmax

logits = hnp.arrays(np.float32, st.integers(2, 12), elements=st.floats(-50, 50, width=32))
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
    assert confidence_of_batch(scores) == INVALID


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan])
def test_a_temperature_that_is_not_above_zero_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        softmax(np.zeros(2), temperature)
