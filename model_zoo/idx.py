"""Reader of the idx files in which Fashion-MNIST is published (plain or gzip)."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from model_zoo.options import DEFAULT_DATA
from runtime.errors import StartError

PICTURES_MAGIC = 2051
LABELS_MAGIC = 2049
PICTURE_SIDE = 28
NUM_CLASSES = 10
HOW_TO_GET = (
    "On Debian and Ubuntu: apt-get install dataset-fashion-mnist (30 MB), then pass "
    f"--data {DEFAULT_DATA}. Elsewhere: fetch the four idx files of Fashion-MNIST and pass their "
    "folder."
)


class DataMissingError(StartError):
    """An idx file is not there; the text says which and how to get it."""


class DataInvalidError(StartError):
    """An idx file is there and is not what it should be."""


class Split(NamedTuple):
    """Pictures ``(n, 28, 28)`` uint8 with their labels ``(n,)`` int64."""

    pictures: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]


def _contents(folder: Path, stem: str) -> tuple[Path, bytes]:
    for path, reader in ((folder / f"{stem}.gz", gzip.open), (folder / stem, open)):
        if path.is_file():
            try:
                with reader(path, "rb") as file:
                    return path, file.read()
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise DataInvalidError(f"{path} is not a whole gzip file: {error}") from error
    raise DataMissingError(f"{stem}(.gz) is not in {folder}. {HOW_TO_GET}")


def _array(path: Path, contents: bytes, magic: int, num_axes: int) -> npt.NDArray[np.uint8]:
    header = 4 * (1 + num_axes)
    if len(contents) < header:
        raise DataInvalidError(f"{path} ends inside its header")
    found, *shape = struct.unpack(f">{1 + num_axes}I", contents[:header])
    if found != magic:
        raise DataInvalidError(
            f"{path} starts with {found}, not with {magic}: not the expected idx file"
        )
    expected = int(np.prod(shape, dtype=np.int64))
    if len(contents) - header != expected:
        raise DataInvalidError(
            f"{path} has {len(contents) - header} bytes of data where its header says {expected}"
        )
    return np.frombuffer(contents, np.uint8, offset=header).reshape(shape)


def read_split(folder: Path, name: str) -> Split:
    """Reads ``train`` or ``t10k``.

    Raises:
        DataMissingError: a file is not in ``folder``.
        DataInvalidError: a file is damaged, or pictures and labels do not match.
    """
    pictures = _array(*_contents(folder, f"{name}-images-idx3-ubyte"), PICTURES_MAGIC, 3)
    labels = _array(*_contents(folder, f"{name}-labels-idx1-ubyte"), LABELS_MAGIC, 1)
    if len(pictures) != len(labels):
        raise DataInvalidError(
            f"{folder}: {len(pictures)} pictures of {name} but {len(labels)} labels"
        )
    if pictures.shape[1:] != (PICTURE_SIDE, PICTURE_SIDE) or labels.max(initial=0) >= NUM_CLASSES:
        raise DataInvalidError(f"{folder}: {name} is not pictures of 28 x 28 in ten classes")
    return Split(pictures, labels.astype(np.int64))


def to_pixels(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Grey values 0..255 to float32 in 0..1, as all networks take them."""
    return pictures.astype(np.float32) * np.float32(1 / 255)
