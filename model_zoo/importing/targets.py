"""Finds inputs and what is right for them in an ``.npz``, for tasks that are no classification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from model_zoo.class_labels import texts_of
from model_zoo.importing.task_options import Targets
from model_zoo.labelled import LABELS, NAMES, Array, Labelled, check_finite, find_labelled
from runtime.core.candidates import Candidates
from runtime.errors import PolicyError
from runtime.task_fields import Task

BOXES, BOX_LABELS = "boxes", "box_labels"
_CORNERS = 4
_OF_BOXES = 3
_MATRIX = 2


def find_targets(arrays: Mapping[str, Array], task: Task, source: str) -> tuple[Labelled, Targets]:
    """The inputs, and what is right; the labels of the first are of no meaning.

    Raises:
        PolicyError: an array is missing, or is not what the task needs; the text says which.
    """
    match task:
        case "detection":
            return _boxes(arrays, source)
        case "regression":
            return _numbers(arrays, source)
        case _:
            found = find_labelled(arrays, source)
    labels = found.labels
    if task == "multilabel":
        holds = labels if found.is_multilabel else _one_hot(labels, source)
        return _without_labels(found), Targets(holds=holds.astype(np.int64))
    if found.is_multilabel:
        raise PolicyError(f"{source}: a model of {task} takes one label for each example")
    if task == "embedding":
        return _without_labels(found), Targets(classes=labels)
    if labels.dtype.kind in "US" or not np.isin(labels, (0, 1)).all():
        raise PolicyError(
            f"{source}: labels of anomalies are 0 (ordinary) and 1 (anomalous), nothing else"
        )
    return _without_labels(found), Targets(holds=labels.astype(np.int64)[:, None])


def part_of_targets(targets: Targets, start: int, end: int | None) -> Targets:
    """Those of examples ``start`` to ``end``, the latter not included."""
    return Targets(
        boxes=targets.boxes[start:end],
        holds=None if targets.holds is None else targets.holds[start:end],
        numbers=None if targets.numbers is None else targets.numbers[start:end],
        classes=None if targets.classes is None else targets.classes[start:end],
    )


def _without_labels(found: Labelled) -> Labelled:
    zeros = np.zeros(len(found.labels), np.int64)
    return Labelled(found.inputs, zeros, found.source, found.label_names, found.notes)


def _one_hot(labels: Array, source: str) -> Array:
    if labels.dtype.kind in "US":
        raise PolicyError(
            f"{source}: labels of several at once are rows of zeros and ones, (n, labels)"
        )
    rows: Array = np.eye(int(labels.max(initial=0)) + 1, dtype=np.int64)[labels.astype(np.int64)]
    return rows


def _boxes(arrays: Mapping[str, Array], source: str) -> tuple[Labelled, Targets]:
    listing = ", ".join(f"{name} {list(one.shape)}" for name, one in sorted(arrays.items()))
    boxes = arrays.get(BOXES)
    if boxes is None or boxes.ndim != _OF_BOXES or boxes.shape[2] != _CORNERS:
        raise PolicyError(
            f"{source} needs `boxes` (n, most, 4): corners x1, y1, x2, y2, of pictures with fewer "
            f"filled up with NaN, and `box_labels` (n, most), filled up with -1; it has "
            f"{listing or 'nothing'}"
        )
    labels = arrays.get(BOX_LABELS)
    if labels is None:
        labels = np.where(np.isnan(np.asarray(boxes, np.float64)).all(axis=2), -1, 0)
    if labels.shape != boxes.shape[:2] or labels.dtype.kind not in "iu":
        raise PolicyError(
            f"{source}: `box_labels` must be {list(boxes.shape[:2])} places among the labels, -1 "
            f"where there is no box; they are {labels.dtype} {list(labels.shape)}"
        )
    is_there = labels.astype(np.int64) >= 0
    corners = np.asarray(boxes, np.float64)
    some = corners[is_there]
    if not np.isfinite(some).all() or (some[:, 2:] < some[:, :2]).any():
        raise PolicyError(f"{source}: a box that has a label is NaN, or has its corners exchanged")
    inputs = {
        name: one
        for name, one in arrays.items()
        if name not in (BOXES, BOX_LABELS) and name.lower() not in (*NAMES, *LABELS)
    }
    found = _labelled(inputs, len(boxes), source)
    texts = [
        one for name, one in arrays.items() if name.lower() in NAMES and one.dtype.kind in "US"
    ]
    names = tuple(texts_of(texts[0])) if texts else ()
    return replace(found, label_names=names), Targets(
        boxes=tuple(
            Candidates(row[keep], np.ones(int(keep.sum())), kinds[keep].astype(np.int64))
            for row, kinds, keep in zip(corners, labels, is_there, strict=True)
        )
    )


def _numbers(arrays: Mapping[str, Array], source: str) -> tuple[Labelled, Targets]:
    key = next((name for name in LABELS if name in arrays), "")
    values = arrays[key] if key else np.zeros(0)
    if values.ndim == _MATRIX and values.shape[1] == 1:
        values = values[:, 0]
    if not key or values.ndim != 1 or values.dtype.kind not in "fiu":
        raise PolicyError(f"{source} needs an array `y` with one number for each example")
    numbers = np.asarray(values, np.float64)
    check_finite(numbers, f"{source}, {key}")
    inputs = {name: one for name, one in arrays.items() if name != key}
    return _labelled(inputs, len(numbers), source), Targets(numbers=numbers)


def _labelled(inputs: Mapping[str, Array], num: int, source: str) -> Labelled:
    lengths = {name: len(one) if one.ndim else 0 for name, one in inputs.items()}
    if not num or not inputs or set(lengths.values()) != {num}:
        raise PolicyError(
            f"{source}: there is something to find for {num} examples, but inputs of {lengths}"
        )
    return Labelled(inputs, np.zeros(num, np.int64), source)
