"""From an input as callers send it to the one that a file wants, by the steps of its manifest.

Pure numpy: the same bits on every tier. Arrays are ``(n, ...)``; the first axis, the examples, is
never touched. Floats in between are float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.binding import Normalise, PictureStep, Repeat, Reshape, Resize, Step, Transpose
from runtime.binding_signals import SignalStep
from runtime.core import signals
from runtime.errors import InvalidTensorError
from runtime.tensors import dtype_of

Array = npt.NDArray[np.generic]
# Of whatever type a file takes.
Floats = npt.NDArray[Any]
Shape = tuple[int, ...]
# ITU-R BT.601, as picture libraries make grey of colours.
_BRIGHTNESS = (0.299, 0.587, 0.114)
_COLOURS = 3
_SIDES = 2
# Integers of so many bits are all floats.
_EXACT = 32


def shape_after(shape: Shape, steps: Sequence[Step]) -> Shape:
    """What the steps make of one example of this shape.

    Raises:
        ValueError: a step cannot be done; the text says which and why.
    """
    for step in steps:
        shape = _shape_after(shape, step)
    return shape


def prepare(array: Array, steps: Sequence[Step], datatype: str) -> Floats:
    """``(n, ...)`` after all steps, in the file's datatype; the array itself is not changed.

    Integers are rounded, a half to the even neighbour; what lies beyond them becomes the last one.

    Raises:
        InvalidTensorError: NaN where the file wants integers.
        ValueError: a step cannot be done, see ``shape_after``.
    """
    for step in steps:
        array = _done(array, step)
    wanted = dtype_of(datatype)
    if array.dtype == wanted:
        return np.ascontiguousarray(array)
    if wanted.kind in "iu" and array.dtype.kind == "f":
        return _as_integers(array, wanted)
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, wanted)


def _as_integers(array: Array, wanted: np.dtype[Any]) -> Floats:
    floats = np.asarray(array, np.float64)
    if np.isnan(floats).any():
        raise InvalidTensorError("a value is NaN, and the model takes integers")
    limits = np.iinfo(wanted)
    # The largest 64-bit integers are no floats: converted, they would wrap around.
    high = float(limits.max)
    if limits.bits > _EXACT:
        high = float(np.nextafter(high, 0))
    return np.ascontiguousarray(np.clip(np.rint(floats), limits.min, high), wanted)


def _shape_after(shape: Shape, step: Step) -> Shape:
    if isinstance(step, SignalStep):
        found = signals.shape_after(shape, step)
    else:
        found = _shape_after_picture(shape, step)
    return signals.check_size(found, shape)


def _shape_after_picture(shape: Shape, step: PictureStep) -> Shape:
    match step:
        case Reshape():
            if math.prod(step.shape) != math.prod(shape):
                raise ValueError(f"{list(shape)} cannot be reshaped to {list(step.shape)}")
            return step.shape
        case Transpose():
            if len(step.order) != len(shape):
                raise ValueError(f"{list(shape)} has not the axes {list(step.order)}")
            return tuple(shape[axis] for axis in step.order)
        case Normalise():
            return _check_normalise(shape, step)
        case Resize():
            if len(shape) < _SIDES:
                raise ValueError(f"{list(shape)} is no picture that can be resized")
            return (step.height, step.width, *shape[2:])
        case Repeat():
            return _exchanged(shape, step.axis, 1, step.times)
        case _:
            return _exchanged(shape, step.axis, _COLOURS, 1)


def _exchanged(shape: Shape, axis: int, length: int, becomes: int) -> Shape:
    if _length(shape, axis) != length:
        raise ValueError(f"the axis {axis} of {list(shape)} has not length {length}")
    sizes = list(shape)
    sizes[axis] = becomes
    return tuple(sizes)


def _check_normalise(shape: Shape, step: Normalise) -> Shape:
    if len(step.mean) > 1 and _length(shape, step.axis) != len(step.mean):
        raise ValueError(f"{len(step.mean)} means do not fit the axis {step.axis} of {list(shape)}")
    return shape


def _length(shape: Shape, axis: int) -> int:
    return shape[axis] if -len(shape) <= axis < len(shape) else 0


def _done(array: Array, step: Step) -> Array:
    shape = _shape_after(array.shape[1:], step)
    if isinstance(step, SignalStep):
        return signals.done(array, step)
    return _picture_done(array, step, shape)


def _picture_done(array: Array, step: PictureStep, shape: Shape) -> Array:
    match step:
        case Reshape():
            return array.reshape(len(array), *shape)
        case Transpose():
            return array.transpose(0, *(axis + 1 for axis in step.order))
        case Normalise():
            return _normalised(array, step)
        case Resize():
            return _resized(np.asarray(array, np.float32), step)
        case Repeat():
            return np.repeat(array, step.times, axis=_axis(array, step.axis))
        case _:
            place = _axis(array, step.axis)
            weights = _along(_BRIGHTNESS, array.ndim, place)
            grey: Array = (array * weights).sum(axis=place, keepdims=True, dtype=np.float32)
            return grey


def _axis(array: Array, axis: int) -> int:
    """Of the batch, for one of an example."""
    return axis + 1 if axis >= 0 else array.ndim + axis


def _along(values: Sequence[float], num_axes: int, axis: int) -> Floats:
    sizes = [1] * num_axes
    sizes[axis] = len(values)
    return np.asarray(values, np.float32).reshape(sizes)


def _normalised(array: Array, step: Normalise) -> Floats:
    place = _axis(array, step.axis) if len(step.mean) > 1 else 0
    work = np.array(array, np.float32)
    work -= _along(step.mean, array.ndim, place)
    # What overflows is infinite, and no engine's answer to it counts as confident.
    with np.errstate(over="ignore"):
        work /= _along(step.std, array.ndim, place)
    return work


def _resized(pictures: Floats, step: Resize) -> Floats:
    """Bilinear along both axes, one after the other."""
    for axis, size in ((1, step.height), (2, step.width)):
        length = pictures.shape[axis]
        if length == size:
            continue
        centres = (np.arange(size) + 0.5) * (length / size) - 0.5
        centres = np.clip(centres, 0, length - 1)
        low = np.floor(centres).astype(np.intp)
        high = np.minimum(low + 1, length - 1)
        share = _along((centres - low).tolist(), pictures.ndim, axis)
        lower, upper = pictures.take(low, axis), pictures.take(high, axis)
        pictures = lower + (upper - lower) * share
    return pictures
