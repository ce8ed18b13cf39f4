"""Candidates for boxes, as detectors give them, in the one form that is worked with here.

Corners x1, y1, x2, y2 with a score and a label each. What cannot be boxes is None, never an
exception: whoever asks has a confidence for that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from runtime.core.confidence import Floats
from runtime.core.detection import Float64s, Ints
from runtime.core.score_forms import SLACK
from runtime.task_fields import BoxFormat

_MATRIX = 2
_CORNERS = 4


@dataclass(frozen=True, slots=True)
class Candidates:
    """``(n, 4)`` corners, ``(n,)`` scores, and ``(n,)`` places among the labels."""

    corners: Float64s
    scores: Float64s
    labels: Ints


def candidates_of(
    boxes: Floats,
    scores: Floats,
    classes: Floats | None = None,
    count: Floats | None = None,
    *,
    num_labels: int,
    box_format: BoxFormat = "corners",
    size: tuple[float, float] = (1.0, 1.0),
) -> Candidates | None:
    """Those of one picture; None where the arrays are none.

    Args:
        boxes: ``(n, 4)``.
        scores: ``(n,)``, or ``(n, labels)``, of which a box has the best.
        classes: ``(n,)`` places among the labels, whole numbers; None: the scores say it, or there
            is one label.
        count: how many of the boxes are some, a single number; None: all.
        num_labels: how many labels there are.
        box_format: what the four numbers are.
        size: width and height that boxes are divided by.
    """
    places, values = np.asarray(boxes, np.float64), _unrounded(np.asarray(scores))
    if (
        places.ndim != _MATRIX
        or places.shape[1] != _CORNERS
        or values.shape[:1] != places.shape[:1]
    ):
        return None
    if values.shape not in ((len(places),), (len(places), num_labels)):
        return None
    if values.ndim == _MATRIX:
        # NaN is neither, and is found out before the best of a row hides it.
        if not (np.greater_equal(values, 0) & np.less_equal(values, 1)).all():
            return None
        labels = values.argmax(axis=1).astype(np.int64)
        values = values[np.arange(len(values)), labels]
    else:
        labels = np.zeros(len(places), np.int64)
    if classes is not None:
        named = _labels(np.asarray(classes, np.float64), values, num_labels)
        if named is None:
            return None
        labels = named
    num = len(places) if count is None else _whole(count, len(places))
    if num is None:
        return None
    corners = _corners(places[:num], box_format) / np.array([*size, *size])
    return Candidates(corners, np.asarray(values[:num], np.float64), labels[:num])


def _unrounded(scores: Floats) -> Floats:
    """Scores that only rounding made leave 0..1, back in it; others as they are."""
    with np.errstate(invalid="ignore"):
        is_near = np.greater_equal(scores, -SLACK) & np.less_equal(scores, 1 + SLACK)
    return np.where(is_near, np.clip(scores, 0, 1), scores)


def _labels(classes: Float64s, values: Floats, num_labels: int) -> Ints | None:
    """Places among the labels; of boxes with no score any number stands there."""
    if classes.shape != values.shape:
        return None
    wanted = np.where(np.asarray(values, np.float64) > 0, classes, 0.0)
    if not ((wanted >= 0) & (wanted < num_labels) & (wanted == np.floor(wanted))).all():
        return None
    found: Ints = wanted.astype(np.int64)
    return found


def _whole(count: Floats, most: int) -> int | None:
    if count.size != 1:
        return None
    number = float(np.asarray(count, np.float64).reshape(()))
    if not math.isfinite(number) or number != math.floor(number) or not 0 <= number <= most:
        return None
    return int(number)


def _corners(boxes: Float64s, box_format: BoxFormat) -> Float64s:
    if box_format == "corners":
        return boxes
    if box_format == "corners_yx":
        return boxes[:, [1, 0, 3, 2]]
    middle, half = boxes[:, :2], boxes[:, 2:] / 2
    found: Float64s = np.concatenate([middle - half, middle + half], axis=1)
    return found
