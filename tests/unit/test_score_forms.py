"""Whatever a file gives as scores becomes logits, and what is none is never confident."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from runtime.binding import ScoreForm
from runtime.core.confidence import confidence_of_batch, softmax
from runtime.core.score_forms import to_logits

FORMS: tuple[ScoreForm, ...] = ("logits", "probabilities", "binary_logit", "binary_probability")


@given(st.lists(st.floats(0.001, 1.0), min_size=2, max_size=9))
def test_probabilities_come_back(shares: list[float]) -> None:
    row = np.asarray([shares], np.float32) / np.float32(sum(shares))

    found = softmax(to_logits(row, "probabilities"))

    np.testing.assert_allclose(found, row, atol=1e-4)


def test_scores_that_do_not_sum_to_one_are_divided_by_their_sum() -> None:
    found = softmax(to_logits(np.array([[0.5, 0.25, 0.25, 1.0]]), "probabilities"))

    np.testing.assert_allclose(found, [[0.25, 0.125, 0.125, 0.5]], atol=1e-6)


def test_a_probability_of_exactly_zero_is_no_exception() -> None:
    found = to_logits(np.array([[1.0, 0.0]], np.float32), "probabilities")

    assert np.isfinite(found).all()
    assert confidence_of_batch(found).label == 0


@given(st.floats(-30, 30))
def test_one_logit_is_that_of_the_second_class(score: float) -> None:
    found = softmax(to_logits(np.array([[score]], np.float32), "binary_logit"))

    assert found[0, 1] == pytest.approx(1 / (1 + np.exp(-score)), abs=1e-5)


@given(st.floats(0, 1))
def test_one_probability_is_that_of_the_second_class(chance: float) -> None:
    found = softmax(to_logits(np.array([[chance]], np.float32), "binary_probability"))

    assert found[0, 1] == pytest.approx(chance, abs=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1.5, -0.5])
def test_what_is_no_probability_is_never_confident(bad: float) -> None:
    values = np.array([[bad, 0.5]], np.float32)

    assert not confidence_of_batch(to_logits(values, "probabilities")).is_valid
    assert not confidence_of_batch(to_logits(values[:, :1], "binary_probability")).is_valid


@given(arrays.arrays(np.float32, (2, 3), elements=st.floats(width=32)), st.sampled_from(FORMS))
def test_nothing_raises(values: np.ndarray, form: ScoreForm) -> None:
    scores = values[:, :1] if form.startswith("binary") else values

    found = to_logits(scores, form)

    assert found.dtype == np.float32
    assert found.shape == (2, 2 if form.startswith("binary") else 3)


def test_wider_floats_do_not_warn() -> None:
    assert np.isinf(to_logits(np.array([[1e300, 0.0]]), "logits")).any()
