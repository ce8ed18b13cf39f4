"""What import finds out about detectors and scores, from shapes and numbers alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from model_zoo.importing.average_precision import matched, mean_average_precision
from model_zoo.importing.box_outputs import find_boxes
from model_zoo.importing.task_choices import area_under_roc, fit_logistic, label_thresholds
from model_zoo.importing.task_options import TaskOptions
from runtime.adapters.signatures import FileTensor
from runtime.core.candidates import Candidates
from runtime.errors import ArtifactError, PolicyError

Array = Any


def _tensor(name: str, *shape: int) -> FileTensor:
    return FileTensor(name, "tensor(float)", "FP32", shape)


def _found(tensors: list[FileTensor], values: dict[str, Array] | None = None, **told: Any) -> Any:
    return find_boxes(
        tensors,
        values or {},
        TaskOptions("detection", **told),
        num_labels=80,
        is_logits=False,
        is_batched=True,
        source="it",
    )


def test_layouts_of_one_tensor_are_seen_from_its_shape() -> None:
    columns = _found([_tensor("output0", 1, 84, 8400)])
    objectness = _found([_tensor("output0", 1, 25200, 85)])
    rows = _found([_tensor("output0", 1, 300, 84)])
    classes = _found([_tensor("output0", 1, 300, 6)])

    assert columns.binds["boxes"].is_transposed
    assert columns.binds["scores"].columns == (4, 84)
    assert columns.specs[1].shape == (-1, 8400, 80)
    assert objectness.binds["scores"].columns == (5, 85)
    assert objectness.binds["scores"].objectness == 4
    assert rows.box_format == "centres"
    assert [spec.name for spec in classes.specs] == ["boxes", "scores", "classes"]
    assert classes.box_format == "corners"


def test_what_may_be_several_things_has_to_be_told() -> None:
    with pytest.raises(ArtifactError, match="--box-layout"):
        _found([_tensor("output0", 1, 84, 84)])
    with pytest.raises(ArtifactError, match="--box-layout"):
        _found([_tensor("output0", 1, 100, 7)])
    with pytest.raises(ArtifactError, match="--box-outputs"):
        _found([_tensor("a", 1, 100, 4), _tensor("b", 1, 100, 4)])

    assert _found([_tensor("output0", 1, 84, 84)], box_layout="rows").binds["boxes"].columns == (
        0,
        4,
    )


def test_the_four_outputs_of_ssd_are_told_apart_by_their_numbers() -> None:
    """As TensorFlow Lite names them, which says nothing."""
    tensors = [
        _tensor("StatefulPartitionedCall:1", 1, 10),
        _tensor("StatefulPartitionedCall:3", 1, 10, 4),
        _tensor("StatefulPartitionedCall:0", 1),
        _tensor("StatefulPartitionedCall:2", 1, 10),
    ]
    values = {
        "StatefulPartitionedCall:1": np.linspace(0.9, 0.1, 10)[None],
        "StatefulPartitionedCall:2": np.arange(10.0)[None],
    }

    found = _found(tensors, values, box_format="corners_yx")

    assert [one.name[-1] for one in found.binds.values()] == ["3", "1", "2", "0"]
    assert found.box_format == "corners_yx"


def _boxes(*found: tuple[float, float, int]) -> Candidates:
    """Of side 10 at x, with a score and a label."""
    return Candidates(
        np.array([(x, 0, x + 10, 10) for x, _, _ in found], np.float64).reshape(-1, 4),
        np.array([score for _, score, _ in found], np.float64),
        np.array([label for _, _, label in found], np.int64),
    )


def test_each_box_is_found_once_and_precision_is_that_of_the_ranking() -> None:
    truth = _boxes((0, 1, 0), (50, 1, 0))
    twice = _boxes((0, 0.9, 0), (1, 0.8, 0), (50, 0.7, 0))

    assert matched(twice, truth).tolist() == [True, False, True]
    # 1 up to half of the recall, then 2 of 3.
    assert mean_average_precision([twice], [truth]) == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert mean_average_precision([_boxes((0, 0.9, 1))], [truth]) == 0.0
    assert mean_average_precision([_boxes()], [_boxes()]) == 0.0


def test_a_logistic_fit_finds_what_the_data_were_made_of() -> None:
    random = np.random.default_rng(6)
    scores = random.uniform(-5, 15, 4000)
    is_odd = random.random(4000) < 1 / (1 + np.exp(-(scores - 6) / 1.5))

    threshold, scale = fit_logistic(scores, is_odd)

    assert threshold == pytest.approx(6, abs=0.2)
    assert scale == pytest.approx(1.5, abs=0.2)
    with pytest.raises(PolicyError, match="not higher"):
        fit_logistic(-scores, is_odd)
    with pytest.raises(PolicyError, match="same score"):
        fit_logistic(np.ones(4), np.array([True, False, True, False]))


def test_kinds_that_scores_part_have_a_finite_scale() -> None:
    threshold, scale = fit_logistic(np.array([0.0, 1, 9, 10]), np.array([False, False, True, True]))

    assert threshold == pytest.approx(5)
    assert 0 < scale < 10


def test_the_area_under_the_curve_counts_ties_half() -> None:
    is_odd = np.array([True, False, True, False])

    assert area_under_roc(np.array([2.0, 1, 2, 1]), is_odd) == 1.0
    assert area_under_roc(np.array([1.0, 1, 1, 1]), is_odd) == 0.5
    assert area_under_roc(np.array([2.0, 2, 3, 1]), is_odd) == 0.875


def test_a_label_that_never_holds_keeps_the_default() -> None:
    shares, holds = np.array([[0.2, 0.4], [0.3, 0.1]]), np.array([[False, True], [False, False]])

    assert label_thresholds(shares, holds) == (0.5, 0.25)
