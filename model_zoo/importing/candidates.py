"""Ways from an example as the data have it to the one that a file wants.

Layouts: axes in another order, axes of length 1 put in or left out, pictures flattened or resized,
grey made colour. Numbers: as they are, 0..1, -1..1, the usual means of photographs, standardised.
The likeliest comes first; which of them is right, the accuracy on labelled data says.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runtime.binding import Grey, Normalise, Repeat, Reshape, Resize, Step, Transpose
from runtime.core.preprocessing import shape_after

Array = npt.NDArray[np.generic]
Shape = tuple[int, ...]
COLOURS = 3
BYTE = 255.0
# Of photographs in 0..1, as the weights of torchvision and timm are trained.
PHOTO_MEAN, PHOTO_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MAX_AXES = 4
_PICTURE_AXES = (2, 3)
# Numbers up to here may be 0..1 with some rounding.
_UNIT = 1.001
_MAX_STANDARDISED = 4096


@dataclass(frozen=True, slots=True)
class Way:
    """Steps, and what they are in words."""

    words: str
    steps: tuple[Step, ...]


def layouts(example: Shape, wanted: Shape, *, layout: str = "auto") -> list[Way]:
    """Ways from a shape to the file's (-1 is any), the likeliest first; none where there is none.

    ``layout`` ``nchw`` or ``nhwc`` says where the file has its channels.
    """
    found: dict[tuple[Step, ...], Way] = {}
    kinds = [_rearranged(example, wanted), _pictures(example, wanted, layout)]
    if layout != "auto" and len(wanted) == COLOURS:
        kinds = kinds[1:]
    for ways in kinds:
        for way in ways:
            try:
                ends = shape_after(example, way.steps)
            except ValueError:
                continue
            if _matches(ends, wanted):
                found.setdefault(way.steps, way)
        if found:
            # What is rearranged is not resized or coloured as well.
            break
    return list(found.values())


def fixed(wanted: Shape, ends: Shape) -> Shape:
    """The file's shape with its free axes as an example has them."""
    return tuple(own if size < 0 else size for size, own in zip(wanted, ends, strict=True))


def _matches(found: Shape, wanted: Shape) -> bool:
    return len(found) == len(wanted) and all(
        size in (-1, own) for size, own in zip(wanted, found, strict=True)
    )


def _rearranged(example: Shape, wanted: Shape) -> Iterator[Way]:
    """The same elements."""
    yield Way("as they are", ())
    squeezed = _squeezed(example)
    is_same_size = _is_same_size(example, wanted)
    if is_same_size and (squeezed == _squeezed(wanted) or len(wanted) == 1):
        yield Way(_words_of(wanted), (Reshape(wanted),))
    if len(squeezed) <= MAX_AXES:
        for order in itertools.permutations(range(len(squeezed))):
            if order != tuple(range(len(squeezed))):
                yield from _in_order(example, squeezed, order, wanted)
    if is_same_size:
        yield Way(_words_of(wanted), (Reshape(wanted),))
        if len(example) == 1 and len(wanted) == COLOURS:
            # A row of numbers may have been a picture with its channels last.
            channels, height, width = wanted
            steps = (Reshape((height, width, channels)), Transpose((2, 0, 1)))
            yield Way(f"{_words_of(wanted)}, channels last before", steps)


def _in_order(example: Shape, squeezed: Shape, order: Shape, wanted: Shape) -> Iterator[Way]:
    steps: list[Step] = [] if squeezed == example else [Reshape(squeezed)]
    steps.append(Transpose(order))
    moved = tuple(squeezed[axis] for axis in order)
    words = f"axes in the order {', '.join(map(str, order))}"
    yield Way(words, tuple(steps))
    if _is_same_size(moved, wanted) and (_squeezed(wanted) == moved or len(wanted) == 1):
        yield Way(f"{words}, {_words_of(wanted)}", (*steps, Reshape(wanted)))


def _is_same_size(shape: Shape, wanted: Shape) -> bool:
    """Whether a reshape leads from one to the other, and does something."""
    is_open = min(wanted, default=1) < 1
    return not is_open and shape != wanted and math.prod(shape) == math.prod(wanted)


def _squeezed(shape: Shape) -> Shape:
    return tuple(size for size in shape if size != 1)


def _words_of(shape: Shape) -> str:
    return "reshaped to " + "x".join(map(str, shape))


def _pictures(example: Shape, wanted: Shape, layout: str) -> Iterator[Way]:
    """Pictures whose size, channels or both differ."""
    if len(wanted) not in _PICTURE_AXES:
        return
    for words, steps, (height, width, channels) in _as_hwc(example):
        for is_first in _places(wanted, layout):
            want_h, want_w, want_c = _sides(wanted, is_first=is_first)
            done: list[Step] = list(steps)
            said = [words] if words else []
            if (want_h > 0 and want_h != height) or (want_w > 0 and want_w != width):
                new = (want_h if want_h > 0 else height, want_w if want_w > 0 else width)
                done.append(Resize(*new))
                said.append(f"resized to {new[0]}x{new[1]}")
                height_now, width_now = new
            else:
                height_now, width_now = height, width
            if channels == 1 and want_c == COLOURS:
                done.append(Repeat(COLOURS))
                said.append("grey as three colours")
            elif channels == COLOURS and want_c == 1:
                done.append(Grey())
                said.append("colours as grey")
            now = channels if want_c < 0 else want_c
            if len(wanted) == len(_PICTURE_AXES):
                done.append(Reshape((height_now, width_now)))
            elif is_first:
                done.append(Transpose((2, 0, 1)))
                said.append("channels first")
            if now == channels or {now, channels} == {1, COLOURS}:
                yield Way(", ".join(said) or "as they are", tuple(done))


def _as_hwc(example: Shape) -> Iterator[tuple[str, tuple[Step, ...], tuple[int, int, int]]]:
    match example:
        case (height, width):
            yield "", (Reshape((height, width, 1)),), (height, width, 1)
        case (height, width, (1 | 3 | 4) as channels):
            yield "", (), (height, width, channels)
        case ((1 | 3 | 4) as channels, height, width):
            yield "channels last", (Transpose((1, 2, 0)),), (height, width, channels)
        case _:
            return


def _places(wanted: Shape, layout: str) -> Sequence[bool]:
    """Whether the file has channels first: told, seen from the sizes, or both ways."""
    if len(wanted) < COLOURS:
        return (False,)
    if layout != "auto":
        return (layout == "nchw",)
    if wanted[0] in (1, COLOURS) and wanted[-1] not in (1, COLOURS):
        return (True,)
    if wanted[-1] in (1, COLOURS) and wanted[0] not in (1, COLOURS):
        return (False,)
    return (True, False)


def _sides(wanted: Shape, *, is_first: bool) -> tuple[int, int, int]:
    if len(wanted) < COLOURS:
        return wanted[0], wanted[1], 1
    if is_first:
        return wanted[1], wanted[2], wanted[0]
    return wanted[0], wanted[1], wanted[2]


def numbers(data: Array, laid_out: Array, *, is_float: bool) -> list[Way]:
    """Ways from the numbers of the data to those of the file, the likeliest first.

    ``laid_out`` are the same data in the file's layout. ``is_float`` says that the file takes
    floats.
    """
    low, high = float(np.min(data)), float(np.max(data))
    is_unit = data.dtype.kind == "f" and low >= 0 and high <= _UNIT
    as_is = Way("numbers as they are", ())
    if not is_float:
        return [as_is, _divided("0..1 to 0..255", 1 / BYTE)] if is_unit else [as_is]
    if is_unit:
        photo = _photographs(laid_out.shape[1:], 1.0)
        found = [as_is, _centred(1.0), _divided("0..255", 1 / BYTE), *photo]
    elif data.dtype == np.uint8:
        photo = _photographs(laid_out.shape[1:], BYTE)
        found = [_divided("0..1", BYTE), _centred(BYTE), as_is, *photo]
        if high < BYTE:
            found.append(_divided(f"divided by {high:g}", high or 1.0))
    elif low >= 0 and high <= BYTE and _is_whole(data):
        photo = _photographs(laid_out.shape[1:], BYTE)
        largest = _divided(f"divided by {high:g}", high or 1.0)
        found = [as_is, _divided("0..1", BYTE), _centred(BYTE), largest, *photo]
    else:
        found = [as_is]
    is_picture = data.dtype == np.uint8 or is_unit
    ways = [*found, *_standardised(laid_out, per_feature=not is_picture)]
    return list({way.steps: way for way in reversed(ways)}.values())[::-1]


def _divided(words: str, by: float) -> Way:
    return Way(words, (Normalise((0.0,), (by,)),))


def _centred(size: float) -> Way:
    return Way("-1..1", (Normalise((size / 2,), (size / 2,)),))


def _photographs(example: Shape, size: float) -> list[Way]:
    """The usual means, where there are three colours; ``size`` is that of white."""
    if len(example) != COLOURS or COLOURS not in (example[0], example[-1]):
        return []
    mean = tuple(one * size for one in PHOTO_MEAN)
    std = tuple(one * size for one in PHOTO_STD)
    axis = -1 if example[-1] == COLOURS else 0
    return [Way("means of photographs", (Normalise(mean, std, axis=axis),))]


def _is_whole(array: Array) -> bool:
    return array.dtype.kind in "iu" or bool((array == np.rint(array)).all())


def _standardised(array: Array, *, per_feature: bool) -> Iterator[Way]:
    """By the mean and standard deviation of these data: of all numbers, or of the last axis."""
    values = np.asarray(array, np.float64)
    mean, std = float(values.mean()), float(values.std())
    if std > 0:
        yield Way(f"standardised ({mean:.4g}, {std:.4g})", (Normalise((mean,), (std,)),))
    if per_feature and values.ndim > 1 and 1 < values.shape[-1] <= _MAX_STANDARDISED:
        axes = tuple(range(values.ndim - 1))
        means, stds = values.mean(axis=axes), values.std(axis=axes)
        stds = np.where(stds > 0, stds, 1.0)
        steps = (Normalise(tuple(means.tolist()), tuple(stds.tolist())),)
        yield Way("each feature standardised", steps)
