"""What somebody who imports a model that is no classifier may say about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from runtime.core.candidates import Candidates
from runtime.task_fields import BoxFormat, Task

# How a file that gives all in one tensor has it: (4 + labels, n) as YOLOv8, (n, 4 + labels),
# (n, 5 + labels) with whether there is an object as YOLOv5, or (n, 6) with score and class after
# suppression.
BoxLayout = Literal["auto", "apart", "columns", "rows", "objectness", "classes"]
Array = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """What is said; None, 0 and empty are found out, or asked for.

    ``accept``, ``max_overlap``, ``max_boxes``, ``box_format`` and ``box_size`` are those of
    ``runtime.task_fields.DetectionFields``. ``outputs`` are the file's names of boxes, scores,
    classes and count, where they are apart. ``threshold`` and ``scale`` are of anomaly scores,
    ``tolerance`` is of numbers. ``prototypes`` is a file of theirs, in the order of the labels.
    """

    task: Task = "classification"
    accept: float = 0.5
    max_overlap: float = 0.5
    max_boxes: int = 100
    box_format: BoxFormat | None = None
    box_size: tuple[float, float] | None = None
    box_layout: BoxLayout = "auto"
    outputs: tuple[str, ...] = ()
    threshold: float | None = None
    scale: float | None = None
    tolerance: float = 0.0
    prototypes: Path | None = None


@dataclass(frozen=True, slots=True)
class Targets:
    """What is right, for each example: one of these, by the task.

    ``boxes`` have places among the labels and corners as in the file; ``holds`` are zeros and ones,
    of anomalies one column; ``numbers`` are those of regression; ``classes`` are of embeddings.
    """

    boxes: tuple[Candidates, ...] = ()
    holds: npt.NDArray[np.int64] | None = None
    numbers: npt.NDArray[np.float64] | None = None
    classes: Array | None = None
