"""Pictures for the bundled task: from files, from the bundled test set, and onto a terminal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from runtime.errors import InvalidTensorError, StartError

SIDE = 28
SHADES = " .:-=+*#%@"
MAX_FILE_BYTES = 32 * 1024 * 1024
Pixels = npt.NDArray[np.float32]


def read_picture(path: Path) -> Pixels:
    """A picture file as ``(28, 28)`` float32 in 0..1, grey, resized; ``.npy`` is taken as it is.

    Raises:
        InvalidTensorError: not a picture, or an array of another shape.
        StartError: the library that reads pictures is not installed.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InvalidTensorError(f"{path} is over {MAX_FILE_BYTES} bytes")
        return _from_array(path) if path.suffix == ".npy" else _from_image(path)
    except OSError as error:
        raise InvalidTensorError(
            f"{path} cannot be read as a picture: {error.strerror or error}"
        ) from error


def _from_array(path: Path) -> Pixels:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InvalidTensorError(f"{path} is no array: {error}") from error
    if not isinstance(array, np.ndarray) or array.shape != (SIDE, SIDE):
        raise InvalidTensorError(f"{path} must hold one array of shape ({SIDE}, {SIDE})")
    if array.dtype == np.uint8:
        return array.astype(np.float32) / np.float32(255)
    if array.dtype.kind != "f":
        raise InvalidTensorError(f"{path} must hold uint8 in 0..255 or floats in 0..1")
    return array.astype(np.float32)


def _from_image(path: Path) -> Pixels:
    try:
        from PIL import Image  # noqa: PLC0415 an extra, needed here only
    except ImportError as error:
        raise StartError(
            "reading picture files needs Pillow: pip install 'tierwise[demo]' "
            "(an .npy file of 28 x 28 works without)"
        ) from error
    with Image.open(path) as image:
        grey = image.convert("L").resize((SIDE, SIDE))
    return np.asarray(grey, np.float32) / np.float32(255)


def drawn(pixels: Pixels) -> str:
    """The picture in characters, two columns of text a pixel pair, half as many lines."""
    rows = pixels.reshape(SIDE // 2, 2, SIDE).mean(axis=1)
    levels = np.clip(rows * (len(SHADES) - 1), 0, len(SHADES) - 1).round().astype(int)
    return "\n".join("".join(SHADES[level] for level in row).rstrip() for row in levels)
