from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from model_zoo.idx import (
    LABELS_MAGIC,
    PICTURES_MAGIC,
    DataInvalidError,
    DataMissingError,
    read_split,
    to_pixels,
)
from runtime.errors import StartError

PICTURES = np.arange(2 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(2, 28, 28)
LABELS = np.array([3, 9], np.uint8)


def idx(magic: int, array: np.ndarray) -> bytes:
    return struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(PICTURES_MAGIC, PICTURES))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(LABELS_MAGIC, LABELS))
    return tmp_path


def test_plain_files_are_read(folder: Path) -> None:
    split = read_split(folder, "train")

    np.testing.assert_array_equal(split.pictures, PICTURES)
    np.testing.assert_array_equal(split.labels, LABELS)
    assert split.labels.dtype == np.int64


def test_compressed_files_are_read_first(folder: Path) -> None:
    inverted = 255 - PICTURES
    compressed = gzip.compress(idx(PICTURES_MAGIC, inverted))
    (folder / "train-images-idx3-ubyte.gz").write_bytes(compressed)

    np.testing.assert_array_equal(read_split(folder, "train").pictures, inverted)


def test_a_missing_file_says_how_to_get_it(folder: Path) -> None:
    with pytest.raises(
        DataMissingError, match=r"t10k-images-idx3-ubyte\(\.gz\) is not in .*dataset-fashion-mnist"
    ):
        read_split(folder, "t10k")


@pytest.mark.parametrize(
    ("name", "contents", "complaint"),
    [
        ("images-idx3", b"\0\0\x08\x03\0\0", "ends inside its header"),
        ("images-idx3", idx(7, PICTURES), "starts with 7, not with 2051"),
        ("images-idx3", idx(PICTURES_MAGIC, PICTURES)[:-1], "1567 bytes of data where its header"),
        ("images-idx3", idx(PICTURES_MAGIC, PICTURES[:1]), "1 pictures of train but 2 labels"),
        ("images-idx3", idx(PICTURES_MAGIC, PICTURES[:, :14]), "not pictures of 28 x 28"),
        ("labels-idx1", idx(LABELS_MAGIC, LABELS + 1), "in ten classes"),
    ],
)
def test_a_damaged_file_is_refused(
    folder: Path, name: str, contents: bytes, complaint: str
) -> None:
    (folder / f"train-{name}-ubyte").write_bytes(contents)

    with pytest.raises(DataInvalidError, match=complaint):
        read_split(folder, "train")


@pytest.mark.parametrize(
    "contents",
    [
        b"<html>not found</html>",
        gzip.compress(idx(PICTURES_MAGIC, PICTURES))[:-9],
        gzip.compress(idx(PICTURES_MAGIC, PICTURES))[:20] + b"\xff" * 40,
    ],
    ids=["page", "truncated", "overwritten"],
)
def test_a_damaged_compressed_file_is_refused(folder: Path, contents: bytes) -> None:
    (folder / "train-images-idx3-ubyte.gz").write_bytes(contents)

    with pytest.raises(DataInvalidError, match="is not a whole gzip file"):
        read_split(folder, "train")


def test_both_errors_are_told_without_a_traceback() -> None:
    assert issubclass(DataMissingError, StartError)
    assert issubclass(DataInvalidError, StartError)


def test_grey_values_become_zero_to_one() -> None:
    pixels = to_pixels(np.array([[[0, 51, 255]]], np.uint8))

    np.testing.assert_allclose(pixels, [[[0.0, 0.2, 1.0]]], rtol=1e-6)
    assert pixels.dtype == np.float32
