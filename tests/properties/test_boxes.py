"""Boxes of one detector and of several: what is read, what is told twice, what is agreed on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from runtime.core.box_fusion import LEAST_SCORE, fuse
from runtime.core.candidates import Candidates, candidates_of
from runtime.core.detection import detection_confidence, suppress
from runtime.task_fields import BoxFormat

ANY = st.floats(width=32)
UNIT = np.array([[0.0, 0.0, 1.0, 1.0]])
FAR = np.array([[5.0, 5.0, 6.0, 6.0]])


def _candidates(*found: tuple[float, float, float, int]) -> Candidates:
    """Boxes of side 10 at x, y with a score and a label."""
    corners = [(x, y, x + 10, y + 10) for x, y, _, _ in found]
    return Candidates(
        np.array(corners, np.float64).reshape(-1, 4),
        np.array([score for _, _, score, _ in found], np.float64),
        np.array([label for _, _, _, label in found], np.int64),
    )


PLACE, SCORE = st.floats(0, 100), st.floats(0, 1)
MEMBER = st.lists(st.tuples(PLACE, PLACE, SCORE, st.integers(0, 1)), max_size=5)


@given(st.data())
def test_whatever_a_file_gives_is_boxes_or_none(data: st.DataObject) -> None:
    num, labels = data.draw(st.integers(0, 4)), data.draw(st.integers(1, 3))
    side = data.draw(st.integers(3, 5))
    boxes = data.draw(arrays.arrays(np.float32, (num, side), elements=ANY))
    shape = data.draw(st.sampled_from([(num,), (num, labels), (num + 1,), (num, labels + 1)]))
    scores = data.draw(arrays.arrays(np.float32, shape, elements=ANY))
    kinds = arrays.arrays(np.float32, data.draw(st.sampled_from([num, num + 1])), elements=ANY)
    classes = data.draw(st.none() | kinds)
    count = data.draw(st.none() | arrays.arrays(np.float32, (1,), elements=ANY))
    box_format: BoxFormat = data.draw(st.sampled_from(["corners", "corners_yx", "centres"]))

    with np.errstate(all="ignore"):
        found = candidates_of(
            boxes, scores, classes, count, num_labels=labels, box_format=box_format
        )
        left = None
        if found is not None:
            left = suppress(found.corners, found.scores, accept=0.5, labels=found.labels)

    confidence = detection_confidence(left, accept=0.5)
    assert 0 <= confidence.probability <= 1
    if found is not None:
        assert len(found.corners) == len(found.scores) == len(found.labels) <= num
        assert ((found.labels >= 0) & (found.labels < labels)).all()
    if confidence.is_valid and left is not None:
        assert np.isfinite(left.corners).all()
        assert (left.corners[:, 2:] >= left.corners[:, :2]).all()


@pytest.mark.parametrize(
    ("box_format", "numbers"),
    [
        ("corners", (10, 20, 30, 60)),
        ("corners_yx", (20, 10, 60, 30)),
        ("centres", (20, 40, 20, 40)),
    ],
)
def test_one_box_in_every_format(box_format: BoxFormat, numbers: tuple[int, ...]) -> None:
    found = candidates_of(
        np.array([numbers], np.float32),
        np.array([0.9], np.float32),
        num_labels=1,
        box_format=box_format,
        size=(100, 200),
    )

    assert found is not None
    assert found.corners.tolist() == [[0.1, 0.1, 0.3, 0.3]]


def test_a_box_has_its_best_label() -> None:
    found = candidates_of(UNIT, np.array([[0.1, 0.7, 0.2]]), num_labels=3)

    assert found is not None
    assert (found.labels.tolist(), found.scores.tolist()) == ([1], [0.7])
    assert candidates_of(UNIT, np.array([[np.nan, 0.7, 0.2]]), num_labels=3) is None
    assert candidates_of(UNIT, np.array([[1.5, 0.7, 0.2]]), num_labels=3) is None


@pytest.mark.parametrize(("score", "taken"), [(1.0039, 1.0), (-0.002, 0.0)])
def test_what_rounding_made_of_a_score_is_one(score: float, taken: float) -> None:
    """Integers stand for 255 steps of 1 / 255, or for 256 of 1 / 256, of float32."""
    found = candidates_of(UNIT, np.array([score], np.float32), num_labels=1)
    each = candidates_of(UNIT, np.array([[score, 0.0]], np.float32), num_labels=2)

    assert found is not None
    assert each is not None
    assert found.scores.tolist() == [taken]
    assert each.scores.tolist() == [max(taken, 0.0)]


def test_what_fills_up_is_no_box() -> None:
    """As SSD in TensorFlow Lite gives it: always as many boxes, and how many of them are some."""
    boxes, scores = np.concatenate([UNIT, FAR]), np.array([0.8, 0.0])

    counted = candidates_of(boxes, scores, np.array([1.0, -1.0]), np.array([1.0]), num_labels=2)
    unlabelled = candidates_of(boxes, scores, np.array([2.0, 0.0]), num_labels=2)
    short = candidates_of(boxes, scores, np.zeros(1), num_labels=2)
    broken = candidates_of(boxes, scores, np.array([0.5, 0.0]), num_labels=2)

    assert counted is not None
    assert counted.labels.tolist() == [1]
    assert unlabelled is None
    assert broken is None
    assert short is None
    assert candidates_of(boxes, np.zeros(3), num_labels=2) is None
    assert candidates_of(np.zeros((2, 5)), scores, num_labels=2) is None
    for count in (np.array([3.0]), np.array([np.nan]), np.array([0.5]), np.array([1.0, 1.0])):
        assert candidates_of(boxes, scores, None, count, num_labels=2) is None


def test_rows_of_score_zero_say_nothing_about_what_is_not_there() -> None:
    padded = suppress(np.concatenate([UNIT, FAR]), np.zeros(2), accept=0.4)

    assert padded is not None
    assert padded.rejected is None
    assert detection_confidence(padded, accept=0.4).probability == 0.0


def test_the_cloud_of_weak_boxes_around_an_object_is_no_doubt() -> None:
    boxes = np.array([[0, 0, 10, 10], [0.5, 0, 10.5, 10], [50, 50, 60, 60]])
    scores = np.array([0.95, 0.39, 0.05])

    found = suppress(boxes, scores, accept=0.4)

    assert found is not None
    assert (found.places, found.rejected) == ((0,), 0.05)
    assert detection_confidence(found, accept=0.4).probability > 0.9


def test_boxes_of_other_labels_are_other_objects() -> None:
    boxes = np.concatenate([UNIT, UNIT])

    apart = suppress(boxes, np.array([0.9, 0.8]), accept=0.4, labels=np.array([0, 1]))
    alike = suppress(boxes, np.array([0.9, 0.8]), accept=0.4, labels=np.array([1, 1]))

    assert apart is not None
    assert alike is not None
    assert (apart.places, alike.places) == ((0, 1), (0,))


def test_more_boxes_than_may_be_are_cut_and_it_is_said() -> None:
    boxes = np.concatenate([FAR, UNIT, UNIT + 20])
    scores = np.array([0.6, 0.9, 0.7])

    cut = suppress(boxes, scores, accept=0.4, max_boxes=2)
    whole = suppress(boxes, scores, accept=0.4, max_boxes=3)

    assert cut is not None
    assert whole is not None
    assert (cut.places, cut.is_cut) == ((1, 2), True)
    assert (whole.places, whole.is_cut) == ((1, 2, 0), False)


@given(st.lists(MEMBER, min_size=1, max_size=4), st.data())
def test_fused_boxes_lie_between_those_they_are_of(
    members: list[list[tuple[float, float, float, int]]], data: st.DataObject
) -> None:
    weights = [data.draw(st.floats(0.1, 5)) for _ in members]

    fused = fuse([_candidates(*one) for one in members], weights, max_overlap=0.5)

    found = fused.candidates
    said = [box for one in members for box in one if box[2] > LEAST_SCORE]
    assert len(found.scores) <= len(said)
    assert bool(len(found.scores)) == bool(said)
    assert list(found.scores) == sorted(found.scores, reverse=True)
    assert ((found.scores >= 0) & (found.scores <= 1)).all()
    assert ((fused.shares > 0) & (fused.shares <= 1)).all()
    for corners, label in zip(found.corners, found.labels, strict=True):
        lefts = [x for x, _, _, kind in said if kind == label]
        assert min(lefts) - 1e-6 <= corners[0] <= max(lefts) + 1e-6
        assert corners[2] - corners[0] == pytest.approx(10)


@given(MEMBER)
def test_a_detector_that_is_there_twice_says_what_it_says_once(
    member: list[tuple[float, float, float, int]],
) -> None:
    one = _candidates(*member)
    once = fuse([one], [1.0], max_overlap=0.5)
    alone = suppress(one.corners, one.scores, accept=1e-8, labels=one.labels)
    assert alone is not None
    apart = Candidates(alone.corners, alone.scores, one.labels[list(alone.places)])

    twice = fuse([apart, apart], [1.0, 3.0], max_overlap=0.5)
    single = fuse([apart], [1.0], max_overlap=0.5)

    assert twice.candidates.scores.sum() <= 2 * single.candidates.scores.sum() + 1e-9
    assert len(once.candidates.scores) <= len(one.scores)
    assert (twice.shares == 1).all() or len(twice.shares) != len(single.shares)


def test_what_one_of_two_finds_is_half_as_sure() -> None:
    """Solovyev et al. (2021), section 3: the score times the share of models that found it."""
    both = _candidates((0, 0, 0.9, 0))

    alone = fuse([both, _candidates()], [1, 1], max_overlap=0.5)
    agreed = fuse([both, _candidates((2, 0, 0.6, 0))], [1, 1], max_overlap=0.5)
    heavier = fuse([both, _candidates()], [3, 1], max_overlap=0.5)
    apart = fuse([both, _candidates((0, 0, 0.9, 1))], [1, 1], max_overlap=0.5)

    assert alone.candidates.scores.tolist() == [0.45]
    assert alone.shares.tolist() == [0.5]
    assert agreed.candidates.scores.tolist() == [0.75]
    # Nearer to the surer one: (0 * 0.9 + 2 * 0.6) / 1.5.
    assert agreed.candidates.corners[0, 0] == pytest.approx(0.8)
    assert heavier.candidates.scores.tolist() == [pytest.approx(0.675)]
    assert apart.candidates.labels.tolist() == [0, 1]


def test_members_that_find_nothing_fuse_to_nothing() -> None:
    fused = fuse([_candidates(), _candidates()], [1, 1], max_overlap=0.5)

    assert fused.candidates.corners.shape == (0, 4)
