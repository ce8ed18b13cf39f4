"""What files give, as tasks take it."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.binding import OutputBinding, ScoreForm
from runtime.core.multilabel import chances
from runtime.core.output_forms import to_output
from runtime.task_fields import Task


def _bind(shape: tuple[int, ...], **changes: object) -> OutputBinding:
    return OutputBinding("y", "FP32", shape, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["logits", "probabilities"])
def test_labels_by_themselves_keep_their_chances(form: ScoreForm) -> None:
    wanted = np.array([[0.9, 0.2]], np.float32)
    values = wanted if form == "probabilities" else np.log(wanted / (1 - wanted))

    found = to_output(
        values, 1, _bind((-1, 2), scores=form), task="multilabel", shape=(-1, 2), is_scores=False
    )

    assert chances(found)[0] == pytest.approx([0.9, 0.2], abs=1e-6)


def test_a_chance_that_is_none_is_nan_and_a_certain_one_finite() -> None:
    found = to_output(
        np.array([[1.5, 1.0]]),
        1,
        _bind((-1, 2), scores="probabilities"),
        task="multilabel",
        shape=(-1, 2),
        is_scores=False,
    )

    assert np.isnan(found[0, 0])
    assert np.isfinite(found[0, 1])


def test_classes_become_logits() -> None:
    found = to_output(
        np.array([0.25, 0.75]),
        1,
        _bind((-1, 2), scores="probabilities"),
        task="classification",
        shape=(-1, 2),
        is_scores=False,
    )

    assert np.exp(found)[0] == pytest.approx([0.25, 0.75])


@pytest.mark.parametrize(
    ("task", "shape"), [("anomaly", (-1,)), ("anomaly", (-1, 1)), ("embedding", (-1, 3))]
)
def test_numbers_stay_as_they_are(task: Task, shape: tuple[int, ...]) -> None:
    num = 2 * (3 if shape[-1] == 3 else 1)
    values = np.arange(num, dtype=np.float64).reshape(2, -1)

    found = to_output(values, 2, _bind(shape), task=task, shape=shape, is_scores=False)

    assert found.shape == (2, *shape[1:])
    assert found.ravel().tolist() == list(range(num))


def test_boxes_and_scores_in_one_tensor_with_its_axes_exchanged() -> None:
    """As YOLOv8 is exported: (1, 4 + labels, n)."""
    tensor = np.arange(2 * 6 * 3, dtype=np.float32).reshape(2, 6, 3)
    whole = (-1, 6, 3)
    boxes = to_output(
        tensor,
        2,
        _bind(whole, is_transposed=True, columns=(0, 4)),
        task="detection",
        shape=(-1, -1, 4),
        is_scores=False,
    )
    scores = to_output(
        tensor,
        2,
        _bind(whole, is_transposed=True, columns=(4, 6), scores="probabilities"),
        task="detection",
        shape=(-1, -1, 2),
        is_scores=True,
    )

    assert boxes.shape == (2, 3, 4)
    assert boxes[1, 2].tolist() == tensor[1, :4, 2].tolist()
    assert scores[1, 2].tolist() == tensor[1, 4:, 2].tolist()


@pytest.mark.parametrize("form", ["logits", "probabilities"])
def test_whether_there_is_an_object_counts(form: ScoreForm) -> None:
    """As YOLOv5 is exported: four numbers, an object or not, and a score for each label."""
    row = np.array([[[1, 2, 3, 4, 0.5, 0.8]]], np.float32)
    if form == "logits":
        row[..., 4:] = np.log(row[..., 4:] / (1 - row[..., 4:]))

    found = to_output(
        row,
        1,
        _bind((-1, 1, 6), columns=(5, 6), objectness=4, scores=form),
        task="detection",
        shape=(-1, -1),
        is_scores=True,
    )

    assert found.shape == (1, 1)
    assert found[0, 0] == pytest.approx(0.4)


def test_a_file_without_an_axis_for_pictures() -> None:
    found = to_output(
        np.zeros((1, 8)),
        1,
        _bind((-1, 4)),
        task="detection",
        shape=(-1, -1, 4),
        is_scores=False,
        is_batched=False,
    )

    assert found.shape == (1, 2, 4)


def test_no_boxes_are_no_boxes() -> None:
    found = to_output(
        np.zeros((1, 0)),
        1,
        _bind((1, -1, 4)),
        task="detection",
        shape=(-1, -1, 4),
        is_scores=False,
    )

    assert found.shape == (1, 0, 4)


def test_other_numbers_than_announced_are_an_error() -> None:
    with pytest.raises(ValueError, match="reshape"):
        to_output(
            np.zeros((1, 7)),
            1,
            _bind((1, -1, 4)),
            task="detection",
            shape=(-1, -1, 4),
            is_scores=False,
        )
