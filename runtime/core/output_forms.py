"""What a file gives, in the form that its task works with.

Logits of labels (``runtime.core.score_forms``), or numbers as they are; of a detector boxes and
scores, which many files give in one tensor, or with the axes the other way round.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runtime.binding import OutputBinding
from runtime.core.score_forms import SLACK, Array, Floats, to_logits
from runtime.task_fields import Task


def to_output(
    values: Array,
    num: int,
    bind: OutputBinding,
    *,
    task: Task,
    shape: Sequence[int],
    is_scores: bool,
    is_batched: bool = True,
) -> Floats:
    """``(num, ...)`` of what a file gave for ``num`` examples.

    Args:
        values: with the examples along the first axis.
        num: above 0.
        bind: what the file's tensor is.
        task: of the model.
        shape: of the output in the manifest.
        is_scores: whether the output holds the scores of a detector.
        is_batched: whether the file's shape has an axis for examples.

    Raises:
        ValueError: there are not as many numbers as the shapes need.
    """
    match task:
        case "classification":
            return to_logits(values.reshape(num, -1), bind.scores, bind.floor)
        case "multilabel":
            return _of_labels(values.reshape(num, -1), bind)
        case "detection":
            return _of_boxes(values, num, bind, shape, is_scores=is_scores, is_batched=is_batched)
        case _:
            return _plain(values).reshape(num, *(abs(size) for size in shape[1:]))


def _plain(values: Array) -> Floats:
    with np.errstate(over="ignore"):
        return np.asarray(values, np.float32)


def _of_labels(values: Array, bind: OutputBinding) -> Floats:
    """A logit of each label by itself; what cannot be a chance becomes NaN."""
    found = _plain(values)
    if bind.scores in ("logits", "binary_logit"):
        return found
    found = np.where((found >= -SLACK) & (found <= 1 + SLACK), found, np.float32(np.nan))
    found = np.clip(found, np.float32(bind.floor), np.float32(1 - bind.floor))
    logits: Floats = np.log(found / (1 - found))
    return logits


def _of_boxes(
    values: Array,
    num: int,
    bind: OutputBinding,
    shape: Sequence[int],
    *,
    is_scores: bool,
    is_batched: bool,
) -> Floats:
    found = _plain(values).reshape(num, *(bind.shape[1:] if is_batched else bind.shape))
    if bind.is_transposed:
        found = found.swapaxes(-1, -2)
    whole = found
    if bind.columns:
        found = found[..., slice(*bind.columns)]
    if is_scores and bind.scores == "logits":
        found = _sigmoid(found)
    if bind.objectness is not None:
        object_is_there = whole[..., bind.objectness : bind.objectness + 1]
        if bind.scores == "logits":
            object_is_there = _sigmoid(object_is_there)
        found = found * object_is_there
    wanted = [num, *shape[1:]]
    # Of a single label the axis may be there or not.
    return found.reshape(wanted)


def _sigmoid(values: Floats) -> Floats:
    found: Floats = 1 / (1 + np.exp(-np.clip(values, -80, 80)))
    return found
