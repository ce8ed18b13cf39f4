"""Confidence of every task: in 0..1, never an exception, and less of it where less is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from runtime.core.confidence import Confidence
from runtime.core.detection import detection_confidence, overlap, suppress
from runtime.core.distances import anomaly_confidence, embedding_confidence
from runtime.core.multilabel import chances, combine_labels, labels_of, multilabel_confidence
from runtime.core.regression import combine_intervals, regression_confidence

ANY = st.floats(width=32)
SMALL = st.floats(-50, 50)
SHARE = st.floats(0.01, 0.99)


def _is_sane(found: Confidence) -> bool:
    return 0 <= found.probability <= 1 and 0 <= found.margin <= 1 and 0 <= found.entropy <= 1


def _rows(columns: int, elements: st.SearchStrategy[float] = ANY) -> st.SearchStrategy[np.ndarray]:
    shapes = st.tuples(st.integers(0, 3), st.integers(max(0, columns - 1), columns + 1))
    return shapes.flatmap(lambda shape: arrays.arrays(np.float32, shape, elements=elements))


@given(_rows(3), st.lists(SHARE, min_size=3, max_size=3))
def test_labels_never_raise(logits: np.ndarray, limits: list[float]) -> None:
    found = multilabel_confidence(logits, limits)

    fits = logits.shape[1] == 3 and len(logits) > 0
    assert _is_sane(found)
    assert found.is_valid == bool(fits and np.isfinite(logits).all())


@given(st.lists(SMALL, min_size=2, max_size=5), st.floats(0.1, 10))
def test_the_weakest_label_decides(logits: list[float], temperature: float) -> None:
    row = np.asarray([logits])
    limits = [0.5] * len(logits)

    found = multilabel_confidence(row, limits, temperature)

    sure = chances(row, temperature)[0]
    assert found.probability == pytest.approx(float(np.maximum(sure, 1 - sure).min()))
    assert labels_of(row[0], limits, temperature) == [
        place for place, chance in enumerate(sure) if chance >= 0.5
    ]


@given(st.floats(0.05, 0.95))
def test_a_label_at_its_threshold_is_as_unsure_as_can_be(limit: float) -> None:
    logit = np.log(limit / (1 - limit))

    assert multilabel_confidence(np.array([[logit]]), [limit]).margin == pytest.approx(0, abs=1e-9)


def test_a_chance_of_exactly_one_is_no_exception() -> None:
    found = multilabel_confidence(np.array([[1e38, -1e38]]), [0.5, 0.5])

    assert found.probability == 1.0
    assert found.is_valid


@given(st.lists(st.lists(SMALL, min_size=2, max_size=2), min_size=1, max_size=4))
def test_labels_of_several_members_lie_between_theirs(members: list[list[float]]) -> None:
    scores = [np.asarray([one]) for one in members]

    found = combine_labels(scores, [1.0] * len(scores), [0.5, 0.5])

    assert found is not None
    together = chances(found.scores)[0]
    each = np.stack([chances(one)[0] for one in scores])
    assert (together >= each.min(axis=0) - 1e-5).all()
    assert (together <= each.max(axis=0) + 1e-5).all()
    assert 0 <= found.agreement <= 1


def test_members_that_say_nothing_usable_are_left_out() -> None:
    good, bad = np.zeros((1, 2)), np.full((1, 2), np.nan)

    found = combine_labels([bad, good, np.zeros((1, 3)), np.zeros((2, 2))], [1.0] * 4, [0.5, 0.5])

    assert found is not None
    assert found.used == (1,)
    assert combine_labels([bad], [1.0], [0.5, 0.5]) is None


@given(_rows(3), st.floats(1e-3, 1e3))
def test_intervals_never_raise(scores: np.ndarray, tolerance: float) -> None:
    found = regression_confidence(scores, tolerance)

    assert _is_sane(found)
    if found.is_valid:
        assert (np.diff(scores.astype(np.float64), axis=1) >= 0).all()


@given(SMALL, st.floats(0, 100), st.floats(0, 100), st.floats(0.1, 10))
def test_a_wider_interval_is_less_sure(
    value: float, reach: float, more: float, tolerance: float
) -> None:
    narrow = np.array([[value - reach, value, value + reach]])
    wide = np.array([[value - reach - more, value, value + reach]])

    one, other = (regression_confidence(rows, tolerance) for rows in (narrow, wide))

    assert other.probability <= one.probability + 1e-9


def test_an_interval_of_what_is_tolerated_is_a_half() -> None:
    assert regression_confidence(np.array([[8.0, 10.0, 12.0]]), 2.0).probability == 0.5
    assert regression_confidence(np.array([[3.0, 3.0, 3.0]]), 2.0).probability == 1.0
    assert not regression_confidence(np.array([[4.0, 3.0, 5.0]]), 2.0).is_valid


@given(st.lists(st.tuples(SMALL, st.floats(0, 5), st.floats(0, 5)), min_size=1, max_size=4))
def test_members_that_disagree_widen_the_interval(members: list[tuple[float, ...]]) -> None:
    scores = [np.array([[value - low, value, value + high]]) for value, low, high in members]

    found = combine_intervals(scores, [1.0] * len(scores))

    assert found is not None
    (low, value, high) = found.scores[0]
    assert low <= value <= high
    values = np.array([one[0] for one in members])
    assert high - low >= 2 * values.std() - 1e-3
    assert 0 <= found.agreement <= 1


def test_intervals_that_are_none_are_left_out() -> None:
    bad, good = np.array([[1.0, 0.0, 2.0]]), np.array([[0.0, 1.0, 2.0]])

    found = combine_intervals([bad, good, np.zeros((2, 3))], [1.0, 2.0, 1.0])

    assert found is not None
    assert found.used == (1,)
    assert combine_intervals([bad], [1.0]) is None


def _boxes() -> st.SearchStrategy[np.ndarray]:
    side = st.floats(0, 20)
    box = st.tuples(side, side, side, side).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
    return st.lists(box, max_size=6).map(lambda found: np.asarray(found).reshape(-1, 4))


@given(_boxes(), st.data())
def test_boxes_that_stay_do_not_overlap(corners: np.ndarray, data: st.DataObject) -> None:
    scores = np.asarray([data.draw(st.floats(0, 1)) for _ in corners])

    found = suppress(corners, scores, accept=0.4)

    assert found is not None
    assert list(found.scores) == sorted(found.scores, reverse=True)
    assert all(score >= 0.4 for score in found.scores)
    for place, box in enumerate(found.corners):
        assert (overlap(box, found.corners[place + 1 :]) <= 0.5).all()
    assert _is_sane(detection_confidence(found, accept=0.4))


def test_an_empty_list_is_not_confident() -> None:
    """A detector that sees nothing may be blind: what is above has to be asked."""
    nothing = suppress(np.zeros((0, 4)), np.zeros(0), accept=0.4)

    found = detection_confidence(nothing, accept=0.4)

    assert nothing is not None
    assert found.is_valid
    assert found.probability == 0.0


def test_nothing_found_is_as_sure_as_the_best_candidate_was_weak() -> None:
    box = np.array([[0.0, 0.0, 1.0, 1.0]])
    weak, strong = (suppress(box, np.array([one]), accept=0.4) for one in (0.02, 0.39))

    one, other = (detection_confidence(found, accept=0.4) for found in (weak, strong))

    assert one.probability > 0.95
    assert other.probability < 0.55


def test_the_least_sure_box_decides() -> None:
    corners = np.array([[0.0, 0.0, 1.0, 1.0], [5.0, 5.0, 6.0, 6.0]])

    found = detection_confidence(suppress(corners, np.array([0.99, 0.41]), accept=0.4), accept=0.4)

    assert found.probability == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("corners", "scores"),
    [
        (np.zeros((1, 3)), np.zeros(1)),
        (np.zeros((2, 4)), np.zeros(1)),
        (np.array([[0, 0, np.nan, 1]]), np.array([0.5])),
        (np.zeros((1, 4)), np.array([1.5])),
        (np.zeros((1, 4)), np.array([np.nan])),
        (np.array([[1.0, 1.0, 0.0, 0.0]]), np.array([0.5])),
    ],
)
def test_boxes_that_are_none_are_invalid(corners: np.ndarray, scores: np.ndarray) -> None:
    found = suppress(corners, scores, accept=0.4)

    assert found is None
    assert not detection_confidence(found, accept=0.4).is_valid


@given(ANY, st.floats(-100, 100), st.floats(0.01, 100))
def test_anomalies_never_raise(score: float, threshold: float, scale: float) -> None:
    found = anomaly_confidence(score, threshold, scale)

    assert _is_sane(found)
    assert found.is_valid == np.isfinite((score - threshold) / scale)
    if found.is_valid:
        assert found.label == int(score >= threshold)


def test_at_its_threshold_an_anomaly_is_a_half() -> None:
    assert anomaly_confidence(3.0, 3.0, 1.0).probability == 0.5
    assert not anomaly_confidence(float("nan"), 3.0, 1.0).is_valid
    assert not anomaly_confidence(float("inf"), 3.0, 1.0).is_valid


@given(_rows(3), arrays.arrays(np.float32, 3, elements=ANY))
def test_embeddings_never_raise(prototypes: np.ndarray, vector: np.ndarray) -> None:
    assert _is_sane(embedding_confidence(vector, prototypes))


@given(st.integers(0, 3), st.floats(0.1, 100))
def test_a_prototype_itself_is_met_whatever_its_length(place: int, length: float) -> None:
    prototypes = np.eye(4)

    found = embedding_confidence(prototypes[place] * length, prototypes)

    assert found.label == place
    assert found.probability == pytest.approx(1.0)


def test_between_two_prototypes_nothing_is_sure() -> None:
    found = embedding_confidence(np.array([1.0, 1.0]), np.eye(2))

    assert found.probability == pytest.approx(0.5)
    assert embedding_confidence(np.ones(2), np.ones((2, 2))).margin == 0.0
    assert not embedding_confidence(np.zeros(2), np.eye(2)).is_valid
    assert not embedding_confidence(np.ones(2), np.ones((1, 2))).is_valid
    assert not embedding_confidence(np.array([np.nan, 1.0]), np.eye(2)).is_valid


@given(_boxes())
def test_overlap_is_that_of_sets(corners: np.ndarray) -> None:
    assume(len(corners) > 0)
    found = overlap(corners[0], corners)

    assert ((found >= 0) & (found <= 1 + 1e-9)).all()
    if np.prod(corners[0][2:] - corners[0][:2]) > 1e-3:
        assert found[0] == pytest.approx(1.0)
