"""What the fields of a manifest must be like for its task."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import msgspec

from runtime.messages import TensorSpec

Task = Literal["classification", "multilabel", "regression"]
Threshold = Annotated[float, msgspec.Meta(gt=0, lt=1)]
# Lower end, value, upper end.
INTERVAL_SCORES = 3
LEAST_LABELS: dict[Task, int] = {"classification": 2, "multilabel": 1, "regression": 0}


def check_task(
    task: Task,
    labels: tuple[str, ...],
    output: TensorSpec,
    thresholds: tuple[float, ...],
    tolerance: float,
) -> None:
    """Refuses labels, scores and settings that are not those of a task.

    Raises:
        ValueError: they are of another one.
    """
    num_scores = output.shape[-1] if output.shape else 0
    if len(labels) < LEAST_LABELS[task]:
        raise ValueError(f"`labels`: a model of {task} has at least {LEAST_LABELS[task]}")
    if task == "regression":
        if labels:
            raise ValueError("a model of regression has no `labels`")
        if num_scores != INTERVAL_SCORES:
            raise ValueError(f"{output.name!r} gives {num_scores} numbers, not an interval's three")
    elif num_scores != len(labels):
        raise ValueError(f"{len(labels)} labels, but {output.name!r} gives {num_scores} scores")
    if thresholds and (task != "multilabel" or len(thresholds) != len(labels)):
        raise ValueError("`label_thresholds` are one for each label of a multilabel model")
    if (task == "regression") != (0 < tolerance < math.inf):
        raise ValueError("a `tolerance` above 0 belongs to regression, and to nothing else")
