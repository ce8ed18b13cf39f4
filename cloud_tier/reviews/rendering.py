"""What a person sees of an item's inputs: a picture as PNG, a series as numbers.

Rules of this file:
  * inputs come from other machines: shapes, sizes and values are checked before any work is done;
  * a tensor of one example is a picture where its shape is one, else a series where it is one of
    numbers; what is neither is described by its shape.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from runtime.codec import decode_request
from runtime.errors import RequestError, UnknownPageError
from runtime.messages import Tensors

MIN_SIDE, MAX_SIDE = 4, 2048
MAX_CHANNELS, MAX_POINTS = 16, 2000
_CHANNELS = (1, 3, 4)
_GREY, _RGB = 0, 2
Pixels = npt.NDArray[np.uint8]


class Shown(NamedTuple):
    """How an input is best shown; ``kind`` is ``picture``, ``series`` or ``other``."""

    name: str
    kind: str
    array: npt.NDArray[np.generic]


def inputs_of(body: bytes, header_length: int) -> Tensors:
    """The inputs of an item.

    Raises:
        UnknownPageError: they are not here, or cannot be read.
    """
    if not body:
        raise UnknownPageError(
            "the inputs of this item are not here: it can be labelled where it is"
        )
    try:
        return decode_request(body, header_length).inputs
    except RequestError as error:
        raise UnknownPageError(f"the inputs of this item cannot be read: {error}") from error


def shown(inputs: Tensors) -> list[Shown]:
    """The inputs, pictures first."""
    found = [Shown(name, _kind(array), array) for name, array in inputs.items()]
    order = ("picture", "series", "other")
    return sorted(found, key=lambda one: (order.index(one.kind), one.name))


def _kind(array: npt.NDArray[np.generic]) -> str:
    if array.dtype.kind not in "uifb" or array.ndim < 2 or array.shape[0] != 1 or not array.size:  # noqa: PLR2004
        return "other"
    if _sides(array.shape[1:]) is not None:
        return "picture"
    return "series" if array.ndim <= 3 else "other"  # noqa: PLR2004 an example, its points, its channels


def _sides(shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Height, width and channels of a picture; negative channels stand first."""
    if len(shape) == 2:  # noqa: PLR2004
        sides = (*shape, 1)
    elif len(shape) == 3 and shape[2] in _CHANNELS:  # noqa: PLR2004
        sides = (shape[0], shape[1], shape[2])
    elif len(shape) == 3 and shape[0] in _CHANNELS:  # noqa: PLR2004
        sides = (shape[1], shape[2], -shape[0])
    else:
        return None
    is_picture = all(MIN_SIDE <= side <= MAX_SIDE for side in sides[:2])
    # A few long rows are the channels of a series.
    is_flat = max(sides[:2]) > 8 * min(sides[:2])
    return sides if is_picture and not is_flat else None


def picture_of(array: npt.NDArray[np.generic]) -> Pixels:
    """Grey ``(height, width)`` or colour ``(height, width, 3)``, from an array ``shown`` calls so.

    Floats in 0..1 are scaled; others are stretched from their least to their largest value.

    Raises:
        UnknownPageError: it is no picture.
    """
    sides = _sides(array.shape[1:]) if array.ndim > 1 and array.shape[0] == 1 else None
    if sides is None:
        raise UnknownPageError("this input is no picture")
    pixels = np.asarray(array[0])
    if sides[2] < 0:
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.ndim == 3:  # noqa: PLR2004
        pixels = pixels[..., 0] if pixels.shape[2] == 1 else pixels[..., :3]
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels, np.uint8)
    values = np.nan_to_num(pixels.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    least, most = float(values.min()), float(values.max())
    if least < 0 or most > 1:
        values = (values - least) / (most - least) if most > least else np.zeros_like(values)
    return np.ascontiguousarray((values * 255).round(), np.uint8)


def png_of(pixels: Pixels) -> bytes:
    """A PNG (ISO/IEC 15948) of eight bits a channel, without filters."""
    height, width = pixels.shape[:2]
    kind = _GREY if pixels.ndim == 2 else _RGB  # noqa: PLR2004
    rows = pixels.reshape(height, -1)
    raw = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(raw, 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in parts)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def series_of(array: npt.NDArray[np.generic]) -> list[list[float | None]]:
    """A few lines of at most ``MAX_POINTS`` numbers each; None where one is not finite.

    Raises:
        UnknownPageError: it is no series.
    """
    if _kind(array) != "series":
        raise UnknownPageError("this input is no series")
    lines = np.asarray(array[0], np.float64)
    if lines.ndim == 1:
        lines = lines[None]
    elif lines.shape[0] > lines.shape[1]:
        lines = lines.T
    lines = lines[:MAX_CHANNELS]
    step = -(-lines.shape[1] // MAX_POINTS)
    return [
        [float(value) if np.isfinite(value) else None for value in line[::step]] for line in lines
    ]


def described(inputs: Tensors) -> list[dict[str, Any]]:
    """What there is to look at, in the order in which it is shown."""
    return [
        {
            "name": one.name,
            "kind": one.kind,
            "datatype": str(one.array.dtype),
            "shape": list(one.array.shape),
        }
        for one in shown(inputs)
    ]
