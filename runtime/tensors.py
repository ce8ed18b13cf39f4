"""Tensors as the Open Inference Protocol names, sizes and packs them; whether they fit a model.

Every count is checked against the bytes that are there before anything is allocated for it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from runtime.errors import InvalidTensorError
from runtime.messages import Tensors, TensorSpec

BYTES = "BYTES"
MAX_RANK = 16
# numpy counts bytes in 63 bits, empty axes left out; no body comes near this.
MAX_ELEMENTS = 2**48
_NUMPY: dict[str, np.dtype[np.generic]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
_NAMES = {dtype: name for name, dtype in _NUMPY.items()}
_LENGTH = struct.Struct("<I")


def datatype_of(array: npt.NDArray[np.generic]) -> str:
    """The protocol's name of an array's type; byte and text arrays are ``BYTES``.

    Raises:
        InvalidTensorError: the type has no name in the protocol.
    """
    if array.dtype.kind in "OSU":
        return BYTES
    name = _NAMES.get(array.dtype.newbyteorder("<"))
    if name is None:
        raise InvalidTensorError(f"arrays of {array.dtype} have no datatype in the protocol")
    return name


def dtype_of(datatype: str) -> np.dtype[np.generic]:
    """The numpy type of a numeric datatype.

    Raises:
        InvalidTensorError: unknown datatype, or ``BYTES``.
    """
    dtype = _NUMPY.get(datatype)
    if dtype is None:
        known = ", ".join((*_NUMPY, BYTES))
        raise InvalidTensorError(f"unknown datatype {datatype[:40]!r}; known are {known}")
    return dtype


def num_elements(shape: Sequence[int]) -> int:
    """How many elements a shape holds.

    Raises:
        InvalidTensorError: over 16 axes, a negative size, or beyond any memory.
    """
    if len(shape) > MAX_RANK or any(not 0 <= size <= MAX_ELEMENTS for size in shape):
        raise InvalidTensorError("unusable shape: too many axes, or a size out of range")
    # An empty tensor with huge other axes is as impossible to numpy as a full one.
    if math.prod(size for size in shape if size) > MAX_ELEMENTS:
        raise InvalidTensorError(f"shape {list(shape)} is too large")
    return math.prod(shape)


def native(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """The same numbers as engines read them: row-major, in this machine's byte order.

    An engine that is handed another byte order takes the bytes as they are, and answers wrongly.
    """
    return np.asarray(array, array.dtype.newbyteorder("="), order="C")


def pack(array: npt.NDArray[np.generic]) -> bytes:
    """Raw little-endian bytes in row-major order; ``BYTES`` elements carry a 4-byte length."""
    if datatype_of(array) == BYTES:
        parts = []
        for element in array.ravel():
            raw = _raw(element)
            parts.append(_LENGTH.pack(len(raw)) + raw)
        return b"".join(parts)
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _raw(element: object) -> bytes:
    if isinstance(element, str):
        return element.encode()
    if isinstance(element, bytes):
        return element
    raise InvalidTensorError(f"BYTES elements are text or bytes, not {type(element).__name__}")


def unpack(raw: memoryview, datatype: str, shape: Sequence[int]) -> npt.NDArray[np.generic]:
    """The reverse of ``pack``; numeric results are read-only views of ``raw``.

    Raises:
        InvalidTensorError: the bytes are not what datatype and shape ask for.
    """
    count = num_elements(shape)
    if datatype == BYTES:
        return _unpack_bytes(raw, count).reshape(shape)
    dtype = dtype_of(datatype)
    if len(raw) != count * dtype.itemsize:
        raise InvalidTensorError(
            f"{datatype} of shape {list(shape)} takes {count * dtype.itemsize} bytes, "
            f"there are {len(raw)}"
        )
    return np.frombuffer(raw, dtype).reshape(shape)


def _unpack_bytes(raw: memoryview, count: int) -> npt.NDArray[np.object_]:
    if count * _LENGTH.size > len(raw):
        raise InvalidTensorError(f"{count} BYTES elements do not fit in {len(raw)} bytes")
    elements: list[bytes] = []
    position = 0
    for _ in range(count):
        if position + _LENGTH.size > len(raw):
            raise InvalidTensorError("BYTES data ends inside a length")
        (length,) = _LENGTH.unpack_from(raw, position)
        position += _LENGTH.size
        if position + length > len(raw):
            raise InvalidTensorError("BYTES data ends inside an element")
        elements.append(bytes(raw[position : position + length]))
        position += length
    if position != len(raw):
        raise InvalidTensorError(f"{len(raw) - position} bytes follow the last BYTES element")
    result = np.empty(count, dtype=object)
    result[:] = elements
    return result


def from_list(data: object, datatype: str, shape: Sequence[int]) -> npt.NDArray[np.generic]:
    """A tensor from the ``data`` of a JSON body: flat or nested, row-major.

    Raises:
        InvalidTensorError: wrong count, wrong kind of element, or out of the datatype's range.
    """
    if not isinstance(data, list):
        raise InvalidTensorError("data must be a list")
    count = num_elements(shape)
    flat = _flatten(data, count)
    if len(flat) != count:
        raise InvalidTensorError(f"shape {list(shape)} takes {count} elements, not {len(flat)}")
    if datatype == BYTES:
        if not all(isinstance(element, str) for element in flat):
            raise InvalidTensorError("BYTES data in JSON must be text")
        result = np.empty(count, dtype=object)
        result[:] = [str(element).encode() for element in flat]
        return result.reshape(shape)
    dtype = dtype_of(datatype)
    wanted = bool if dtype.kind == "b" else (int, float) if dtype.kind == "f" else int
    if not all(isinstance(element, wanted) for element in flat) or (
        dtype.kind != "b" and any(isinstance(element, bool) for element in flat)
    ):
        raise InvalidTensorError(f"data has elements that are no {datatype}")
    if dtype.kind in "iu" and flat:
        # NumPy 1 wraps around where NumPy 2 raises.
        limits, numbers = np.iinfo(dtype.str), [e for e in flat if isinstance(e, int)]
        if min(numbers) < limits.min or max(numbers) > limits.max:
            raise InvalidTensorError(f"data has elements out of the range of {datatype}")
    try:
        with np.errstate(over="raise"):
            return np.array(flat, dtype=dtype).reshape(shape)
    except (OverflowError, FloatingPointError):
        raise InvalidTensorError(f"data has elements out of the range of {datatype}") from None


def _flatten(data: list[object], count: int) -> list[object]:
    flat: list[object] = []
    stack: list[object] = [data]
    while stack:
        element = stack.pop()
        if isinstance(element, list):
            stack.extend(reversed(element))
        else:
            flat.append(element)
        if len(flat) > count:
            raise InvalidTensorError(f"more than {count} elements")
    return flat


def num_examples(tensors: Tensors) -> int:
    """How many examples are in a batch."""
    # Asked several times a request: no generator, no function calls.
    most = -1
    for array in tensors.values():
        shape = array.shape
        if shape and shape[0] > most:
            most = shape[0]
    return most if most >= 0 else 1


def check_fit(tensors: Tensors, specs: Sequence[TensorSpec]) -> int:
    """Checks that tensors are just what a model takes; returns the batch size.

    Raises:
        InvalidTensorError: a name is missing or unknown, a datatype or shape differs, batch axes
            differ or are empty, or an element is NaN or infinite.
    """
    expected = {spec.name: spec for spec in specs}
    if expected.keys() != tensors.keys():
        raise InvalidTensorError(
            f"the model takes {sorted(expected)}, the request has "
            f"{sorted(name[:40] for name in tensors)[:8]}"
        )
    batches = set()
    for name, spec in expected.items():
        array = tensors[name]
        # The usual case costs one comparison.
        if array.dtype != _NUMPY.get(spec.datatype) and datatype_of(array) != spec.datatype:
            raise InvalidTensorError(f"{name!r} must be {spec.datatype}, not {datatype_of(array)}")
        shape = array.shape
        fits = len(shape) == len(spec.shape)
        for wanted, size in zip(spec.shape, shape, strict=False):
            fits = fits and wanted in (-1, size)
        if not fits or array.size == 0:
            raise InvalidTensorError(
                f"{name!r} must have shape {list(spec.shape)}, not {list(array.shape)}"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InvalidTensorError(f"{name!r} holds NaN or infinity")
        batches.add(array.shape[0] if array.shape else 1)
    if len(batches) > 1:
        raise InvalidTensorError(f"inputs disagree on the batch size: {sorted(batches)}")
    return batches.pop() if batches else 0
