"""Reader of the idx files in which Fashion-MNIST is published (plain or gzip)."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

PICTURES_MAGIC = 2051
LABELS_MAGIC = 2049
DEFAULT_FOLDER = Path("/usr/share/datasets/fashion-mnist")
HOW_TO_GET = (
    "On Debian and Ubuntu: apt-get install dataset-fashion-mnist (30 MB), then pass "
    f"--data {DEFAULT_FOLDER}. Elsewhere: fetch the four idx files of Fashion-MNIST and pass their folder."
)


class DataMissingError(FileNotFoundError):
    """An idx file is not there; the text says which and how to get it."""


class DataInvalidError(ValueError):
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
            except (EOFError, gzip.BadGzipFile) as error:
                message = f"{path} is not a whole gzip file: {error}"
                raise DataInvalidError(message) from error
    message = f"{stem}(.gz) is not in {folder}. {HOW_TO_GET}"
    raise DataMissingError(message)


def _array(path: Path, contents: bytes, magic: int, num_axes: int) -> npt.NDArray[np.uint8]:
    header = 4 * (1 + num_axes)
    if len(contents) < header:
        message = f"{path} ends inside its header"
        raise DataInvalidError(message)
    found, *shape = struct.unpack(f">{1 + num_axes}I", contents[:header])
    if found != magic:
        message = f"{path} starts with {found}, not with {magic}: not the expected idx file"
        raise DataInvalidError(message)
    expected = int(np.prod(shape, dtype=np.int64))
    if len(contents) - header != expected:
        message = f"{path} has {len(contents) - header} bytes of data where its header says {expected}"
        raise DataInvalidError(message)
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
        message = f"{folder}: {len(pictures)} pictures of {name} but {len(labels)} labels"
        raise DataInvalidError(message)
    return Split(pictures, labels.astype(np.int64))
