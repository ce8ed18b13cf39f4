"""What the fields of a manifest must be like for its task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from runtime.messages import TensorSpec

Task = Literal["classification", "multilabel", "regression", "detection", "anomaly", "embedding"]
# Corners; corners with y first, as TensorFlow has them; centre, width and height, as YOLO has them.
BoxFormat = Literal["corners", "corners_yx", "centres"]
Threshold = Annotated[float, msgspec.Meta(gt=0, lt=1)]
PrototypesName = Annotated[
    str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.npy\Z", max_length=128)
]
# Lower end, value, upper end.
INTERVAL_SCORES = 3
LEAST_LABELS: dict[Task, int] = {
    "classification": 2,
    "multilabel": 1,
    "regression": 0,
    "detection": 1,
    "anomaly": 0,
    "embedding": 2,
}
# What an answer tells of, and what is sent up and down with it, stays small.
MAX_BOXES = 1000
_CORNERS = 4
_OF_FLOATS = ("detection", "anomaly", "embedding")
_BOXES, _SCORES, _CLASSES, _COUNT = range(4)


class DetectionFields(msgspec.Struct, frozen=True):
    """What makes boxes of the outputs of a detector.

    From score ``accept`` on a box is one; of boxes of one label that overlap by more than
    ``max_overlap`` (intersection over union) the best stays; at most ``max_boxes`` are told of.
    ``box_format`` is what the four numbers are, and ``box_size`` the width and height that they are
    divided by, so that tiers whose models take pictures of other sizes speak of the same places.
    """

    accept: Threshold = 0.5
    max_overlap: Threshold = 0.5
    max_boxes: Annotated[int, msgspec.Meta(ge=1, le=MAX_BOXES)] = 100
    box_format: BoxFormat = "corners"
    box_size: tuple[float, float] = (1.0, 1.0)


class AnomalyFields(msgspec.Struct, frozen=True):
    """From score ``threshold`` on an example is anomalous.

    ``scale`` is how far from it a score is sure: at one scale the chance is 0.73, at three 0.95.
    """

    threshold: float
    scale: float


class EmbeddingFields(msgspec.Struct, frozen=True):
    """``prototypes`` is a file of the folder: a row for each of ``labels``.

    ``shared_space`` says that all members' vectors lie in the space of the prototypes, as those of
    models that were trained apart do not.
    """

    prototypes: PrototypesName
    shared_space: bool = False


class TaskFields(msgspec.Struct, frozen=True):
    """All that a manifest says about its task."""

    task: Task
    labels: tuple[str, ...]
    label_thresholds: tuple[float, ...] = ()
    tolerance: float = 0.0
    temperature: float = 1.0
    detection: DetectionFields | None = None
    anomaly: AnomalyFields | None = None
    embedding: EmbeddingFields | None = None


def check_task(
    fields: TaskFields, outputs: Sequence[TensorSpec], files: Sequence[str], num_members: int
) -> None:
    """Refuses labels, scores and settings that are not those of a task.

    Raises:
        ValueError: they are of another one, or contradict one another.
    """
    task, labels = fields.task, fields.labels
    output = outputs[0]
    if len(labels) < LEAST_LABELS[task]:
        raise ValueError(f"`labels`: a model of {task} has at least {LEAST_LABELS[task]}")
    _check_fields(fields)
    if task in _OF_FLOATS and any(not one.datatype.startswith("FP") for one in outputs[:2]):
        raise ValueError(f"a model of {task} gives floats, not {output.datatype}")
    match task:
        case "detection":
            _check_boxes(outputs, len(labels))
        case "anomaly":
            if tuple(output.shape) not in ((-1,), (-1, 1)):
                raise ValueError(
                    f"{output.name!r} of shape {list(output.shape)} is not one score an example: "
                    "[-1] or [-1, 1]"
                )
        case "embedding":
            _check_vectors(fields, output, files, num_members)
        case _:
            _check_scores(fields, output)


def _check_scores(fields: TaskFields, output: TensorSpec) -> None:
    num_scores = output.shape[-1] if output.shape else 0
    if fields.task == "regression":
        if num_scores != INTERVAL_SCORES:
            raise ValueError(f"{output.name!r} gives {num_scores} numbers, not an interval's three")
    elif num_scores != len(fields.labels):
        raise ValueError(
            f"{len(fields.labels)} labels, but {output.name!r} gives {num_scores} scores"
        )


def _check_fields(fields: TaskFields) -> None:
    """Whether each setting is there just where it belongs, with numbers that can be used."""
    task, labels, thresholds = fields.task, fields.labels, fields.label_thresholds
    if task in ("regression", "anomaly") and labels:
        raise ValueError(f"a model of {task} has no `labels`")
    if thresholds and (task != "multilabel" or len(thresholds) != len(labels)):
        raise ValueError("`label_thresholds` are one for each label of a multilabel model")
    if (task == "regression") != (0 < fields.tolerance < math.inf):
        raise ValueError("a `tolerance` above 0 belongs to regression, and to nothing else")
    for name, one in (("anomaly", fields.anomaly), ("embedding", fields.embedding)):
        if (one is not None) != (task == name):
            raise ValueError(f"`{name}` belongs to models of the task {name}, which need it")
    if fields.detection is not None and task != "detection":
        raise ValueError("`detection` belongs to models of the task detection alone")
    if task in ("detection", "anomaly", "embedding") and fields.temperature != 1.0:
        raise ValueError(f"a model of {task} has no `temperature`: nothing of it is a logit")
    if fields.detection is not None and not all(
        0 < side < math.inf for side in fields.detection.box_size
    ):
        raise ValueError("`box_size` is a width and a height above 0")
    if fields.anomaly is not None and not (
        math.isfinite(fields.anomaly.threshold) and 0 < fields.anomaly.scale < math.inf
    ):
        raise ValueError("`anomaly` needs a finite `threshold`, and a `scale` above 0")


def _check_boxes(outputs: Sequence[TensorSpec], num_labels: int) -> None:
    """Boxes and scores; perhaps places among the labels, and then how many boxes there are."""
    if not _SCORES < len(outputs) <= _COUNT + 1:
        raise ValueError(
            "a model of detection has the outputs boxes, scores and perhaps classes and count, in "
            "this order"
        )
    boxes, scores = outputs[_BOXES], outputs[_SCORES]
    if len(boxes.shape) != 3 or boxes.shape[-1] != _CORNERS:  # noqa: PLR2004 batch, boxes, corners
        raise ValueError(f"{boxes.name!r} of shape {list(boxes.shape)} holds no [-1, n, 4] boxes")
    has_classes = len(outputs) > _CLASSES
    single, of_each = (tuple(boxes.shape[:2]), (*boxes.shape[:2], num_labels))
    if not (
        (tuple(scores.shape) == single and (has_classes or num_labels == 1))
        or (tuple(scores.shape) == of_each and not has_classes)
    ):
        raise ValueError(
            f"{scores.name!r} of shape {list(scores.shape)} is no score for each of {num_labels} "
            f"labels of each box of {list(boxes.shape)}; of several labels either "
            f"{[*boxes.shape[:2], num_labels]}, or a third output with the class of each box"
        )
    if has_classes and outputs[_CLASSES].shape != boxes.shape[:2]:
        raise ValueError(
            f"{outputs[_CLASSES].name!r} of shape {list(outputs[_CLASSES].shape)} is not one class "
            f"for each box of {list(boxes.shape)}"
        )
    if len(outputs) > _COUNT and tuple(outputs[_COUNT].shape) not in ((-1,), (-1, 1)):
        raise ValueError(f"{outputs[_COUNT].name!r} is not one count for each example")


def _check_vectors(
    fields: TaskFields, output: TensorSpec, files: Sequence[str], num_members: int
) -> None:
    if len(output.shape) != 2 or output.shape[1] < 1:  # noqa: PLR2004 batch and dimensions
        raise ValueError(
            f"{output.name!r} of shape {list(output.shape)} is no vector an example: [-1, d]"
        )
    embedding = fields.embedding
    if embedding is None or embedding.prototypes not in files:
        raise ValueError("the file of `prototypes` is not listed in `files`")
    if num_members > 1 and not embedding.shared_space:
        raise ValueError(
            "vectors of several members have no mean unless they lie in one space: say "
            "`shared_space` if they do, or keep one member"
        )
