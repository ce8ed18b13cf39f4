"""The prototypes of a model of embeddings: an ``.npy`` file of its folder.

Nothing in it is run, and nothing is allocated on the word of its header.
"""

from __future__ import annotations

import io
import math
import re
import struct
from typing import Literal

import numpy as np

from runtime.adapters.artifacts import ModelFolder
from runtime.core.confidence import Floats
from runtime.distance_rules import checked_prototypes
from runtime.errors import ArtifactError

MAX_PROTOTYPES_BYTES = 64 << 20
_MAGIC = b"\x93NUMPY\x01\x00"
_LENGTH = struct.Struct("<H")
# As numpy writes it, and nothing else: numpy reads it with a parser of Python.
_HEADER = re.compile(
    rb"\{'descr': '(?P<dtype><f[248])', 'fortran_order': (?P<order>True|False), "
    rb"'shape': \((?P<rows>\d{1,9}), (?P<columns>\d{1,9})\), \} *\n"
)


def read_prototypes(model: ModelFolder) -> Floats | None:
    """``(labels, d)`` prototypes of a verified folder; None where its task has none.

    Raises:
        ArtifactError: the file is not the one of the manifest, is no array of such numbers, or has
            not a row for each label.
    """
    embedding = model.manifest.embedding
    if embedding is None:
        return None
    path = model.folder / embedding.prototypes
    contents = model.read_verified(embedding.prototypes)
    if len(contents) > MAX_PROTOTYPES_BYTES:
        raise ArtifactError(f"{path} has more than {MAX_PROTOTYPES_BYTES} bytes: too large to keep")
    return checked_prototypes(model.manifest, decode_prototypes(contents, str(path)))


def decode_prototypes(contents: bytes, source: str) -> Floats:
    """The matrix in the bytes of an ``.npy`` file, as ``numpy.save`` writes floats.

    Raises:
        ArtifactError: they are none.
    """
    start = len(_MAGIC) + _LENGTH.size
    if not contents.startswith(_MAGIC) or len(contents) < start:
        raise ArtifactError(f"{source} is no .npy file of format 1.0; save it with numpy.save")
    (length,) = _LENGTH.unpack_from(contents, len(_MAGIC))
    header = _HEADER.fullmatch(contents[start : start + length])
    if header is None:
        raise ArtifactError(
            f"{source} holds no floats in a row for each label; save a matrix of float32 with "
            "numpy.save"
        )
    dtype = np.dtype(header["dtype"].decode())
    shape = (int(header["rows"]), int(header["columns"]))
    rest = memoryview(contents)[start + length :]
    if math.prod(shape) * dtype.itemsize != len(rest):
        raise ArtifactError(
            f"{source} is cut off or too long: {list(shape)} {dtype} are not {len(rest)} bytes"
        )
    order: Literal["F", "C"] = "F" if header["order"] == b"True" else "C"
    return np.frombuffer(rest, dtype).reshape(shape, order=order)


def encode_prototypes(prototypes: Floats) -> bytes:
    """The file of them."""
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(prototypes, np.float32), allow_pickle=False)
    return file.getvalue()
