"""Anomaly scores and embeddings of several members, and of batches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from runtime.core.confidence import INVALID
from runtime.core.distances import (
    anomaly_confidence,
    combine_anomalies,
    combine_embeddings,
    embedding_confidence,
    nearest_of,
    weakest_of,
)

ANY = st.floats(width=32)
AXES = np.eye(3)
SMALL = st.floats(-10, 10)


def _scores(*values: float) -> np.ndarray:
    return np.array([[value] for value in values], np.float32)


@given(st.lists(SMALL, min_size=1, max_size=4), st.data())
def test_a_mean_score_lies_between_those_of_the_members(
    values: list[float], data: st.DataObject
) -> None:
    weights = [data.draw(st.floats(0.1, 5)) for _ in values]

    found = combine_anomalies([_scores(value) for value in values], weights, 1.0)

    assert found is not None
    assert min(values) - 1e-5 <= found.scores[0, 0] <= max(values) + 1e-5
    assert 0 < found.agreement <= 1


def test_members_on_both_sides_are_less_sure() -> None:
    split = combine_anomalies([_scores(9.0), _scores(0.0)], [1, 1], 1.0)
    united = combine_anomalies([_scores(4.5), _scores(4.5)], [1, 1], 1.0)

    assert split is not None
    assert united is not None
    assert (split.scores.tolist(), split.agreement) == (united.scores.tolist(), 0.5)
    sure = anomaly_confidence(4.5, 1.0, 1.0)
    one, other = (weakest_of([sure], found.agreement) for found in (split, united))
    assert 0.5 < one.probability < other.probability
    assert other.probability == sure.probability
    assert one.margin == pytest.approx(sure.margin / 2)


def test_scores_that_are_none_are_left_out() -> None:
    found = combine_anomalies(
        [_scores(np.nan), _scores(2.0), np.zeros((1, 2)), _scores(1.0, 2.0), np.zeros(1)],
        [1.0] * 5,
        1.0,
    )

    assert found is not None
    assert found.used == (1,)
    assert combine_anomalies([_scores(np.inf)], [1.0], 1.0) is None
    assert combine_anomalies([np.array([[1e300]])], [1.0], 1.0) is None


@given(arrays.arrays(np.float32, (2, 1, 3), elements=ANY))
def test_vectors_never_raise(pair: np.ndarray) -> None:
    found = combine_embeddings(list(pair), [1.0, 2.0], AXES)

    if found is not None:
        assert np.isfinite(found.scores).all()
        assert 0 <= found.agreement <= 1


def test_vectors_count_by_their_direction() -> None:
    long, short = np.array([[100.0, 0, 0]]), np.array([[0, 0.1, 0]])

    even = combine_embeddings([long, short], [1, 1], AXES)
    uneven = combine_embeddings([long, short], [1, 3], AXES)

    assert even is not None
    assert uneven is not None
    assert even.scores[0].tolist() == pytest.approx([0.5, 0.5, 0])
    assert nearest_of(uneven.scores[0], AXES)[0] == 1
    assert uneven.agreement == 0.75


def test_vectors_that_point_nowhere_are_left_out() -> None:
    found = combine_embeddings(
        [np.zeros((1, 3)), np.array([[0.0, 1, 0]]), np.ones((1, 2))], [1, 1, 1], AXES
    )

    assert found is not None
    assert found.used == (1,)
    assert combine_embeddings([np.zeros((1, 3))], [1], AXES) is None


def test_the_nearest_prototype_and_how_near() -> None:
    assert nearest_of(np.array([0.0, 5.0, 0.0]), AXES) == (1, 1.0)
    place, similarity = nearest_of(np.array([1.0, 1.0, 0.0]), AXES)
    assert place == 0
    assert similarity == pytest.approx(2**-0.5)


def test_the_weakest_of_a_batch_decides_and_has_no_label() -> None:
    sure, unsure = (embedding_confidence(np.array(one), AXES) for one in ((1.0, 0, 0), (1, 0.9, 0)))

    both = weakest_of([sure, unsure])

    assert both.probability == unsure.probability
    assert both.label is None
    assert weakest_of([unsure]).label == 0
    assert weakest_of([sure, INVALID]) == INVALID
    assert weakest_of([]) == INVALID
