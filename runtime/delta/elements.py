"""How the elements of a tensor are put, so that a general compressor finds what is there to find.

Rules of this file:
  * floats are compared as the integers that sort like them, so that a nearby value is a small
    difference, and every bit pattern (NaN, both zeros) comes back as it was;
  * differences wrap around, are folded to small unsigned numbers (zigzag), and their bytes are put
    plane by plane (shuffle);
  * elements may be taken in the order of the old tensor's values: what an update does to a weight
    depends on how large that weight is, and whoever has the old file has this order too;
  * sorts are stable, so every machine has the same order.
"""

from __future__ import annotations

import enum
from typing import Final

import numpy as np
import numpy.typing as npt

from runtime.delta.ranges import Kind
from runtime.errors import DeltaError

Elements = npt.NDArray[np.unsignedinteger]
# Bits of a float's magnitude that order by it: the exponent, and the start of the fraction.
MAGNITUDE_BITS: Final = 16
BYTE_BITS: Final = 8


class Order(enum.IntEnum):
    """The order that differences are put in."""

    FILE = 0
    MAGNITUDE = 1
    VALUE = 2


def elements(data: bytes | memoryview, kind: Kind) -> Elements:
    """Bytes as unsigned integers of the kind's width, little-endian."""
    return np.frombuffer(data, f"<u{kind.width}")


def permutation(old: Elements, kind: Kind, order: Order) -> npt.NDArray[np.intp] | None:
    """The positions of ``old``'s elements in an order; None means as they are in the file."""
    if order is Order.FILE:
        return None
    one = old.dtype.type(1)
    if order is Order.MAGNITUDE:
        if kind.width == 1:
            return np.argsort(old, kind="stable")
        drop = old.dtype.type(BYTE_BITS * kind.width - MAGNITUDE_BITS)
        return np.argsort(((old << one) >> drop).astype(np.uint16), kind="stable")
    return np.argsort(_sortable(old, kind), kind="stable")


def difference(new: Elements, old: Elements, kind: Kind) -> Elements:
    """What to add to each old element, folded."""
    return _fold(_ordered(new, kind) - _ordered(old, kind))


def add_difference(folded: Elements, old: Elements, kind: Kind) -> Elements:
    """The new elements; undoes ``difference``."""
    return _unordered(_ordered(old, kind) + _unfold(folded), kind)


def steps(new: Elements, kind: Kind) -> Elements:
    """What to add to each element's predecessor, folded; the first one's is 0."""
    ordered = _ordered(new, kind)
    before = np.zeros_like(ordered)
    before[1:] = ordered[:-1]
    return _fold(ordered - before)


def add_steps(folded: Elements, kind: Kind) -> Elements:
    """The new elements; undoes ``steps``."""
    return _unordered(np.cumsum(_unfold(folded), dtype=folded.dtype), kind)


def put_back(taken: Elements, order: npt.NDArray[np.intp] | None) -> Elements:
    """Elements in the file's order again, after they were taken in another one."""
    if order is None:
        return taken
    back = np.empty_like(taken)
    back[order] = taken
    return back


def shuffle(values: Elements) -> bytes:
    """All first bytes, then all second ones, and so on."""
    return values.view(np.uint8).reshape(-1, values.dtype.itemsize).T.tobytes()


def unshuffle(planes: bytes, width: int) -> Elements:
    """Undoes ``shuffle``."""
    by_plane = np.frombuffer(planes, np.uint8).reshape(width, -1)
    return np.ascontiguousarray(by_plane.T).view(f"<u{width}").ravel()


def sparse(values: Elements) -> bytes:
    """A bit for each element, highest bit first: whether it is not 0; then those, shuffled."""
    is_set = values != 0
    return np.packbits(is_set).tobytes() + shuffle(values[is_set])


def unsparse(data: bytes, num_elements: int, width: int) -> Elements:
    """Undoes ``sparse``.

    Raises:
        DeltaError: there are more or fewer elements than bits say.
    """
    num_mask_bytes = -(-num_elements // BYTE_BITS)
    mask = np.frombuffer(data[:num_mask_bytes], np.uint8)
    is_set = np.unpackbits(mask, count=num_elements).view(np.bool_)
    if len(data) != num_mask_bytes + width * int(np.count_nonzero(is_set)):
        raise DeltaError("the delta's elements are not as many as it says; fetch the full file")
    values = np.zeros(num_elements, f"<u{width}")
    values[is_set] = unshuffle(data[num_mask_bytes:], width)
    return values


def ranks(values: Elements, kind: Kind) -> npt.NDArray[np.float32]:
    """The rank of each value among all, centred and of length 1; zeros if all are the same."""
    _, rank = np.unique(_sortable(values, kind), return_inverse=True)
    centred = rank.astype(np.float32) - np.float32(rank.mean())
    norm = np.float32(np.linalg.norm(centred))
    return centred / norm if norm else centred


def _top(values: Elements) -> np.unsignedinteger:
    one: np.unsignedinteger = values.dtype.type(1 << (BYTE_BITS * values.dtype.itemsize - 1))
    return one


def _ordered(values: Elements, kind: Kind) -> Elements:
    if not kind.is_float:
        return values
    top = _top(values)
    return np.where(values & top, ~values, values | top)


def _unordered(values: Elements, kind: Kind) -> Elements:
    if not kind.is_float:
        return values
    top = _top(values)
    return np.where(values & top, values ^ top, ~values)


def _sortable(values: Elements, kind: Kind) -> Elements:
    return _ordered(values, kind) if kind.is_float else values ^ _top(values)


def _fold(differences: Elements) -> Elements:
    width = differences.dtype.itemsize
    signed = differences.view(f"<i{width}")
    one, last = signed.dtype.type(1), signed.dtype.type(BYTE_BITS * width - 1)
    folded: Elements = ((signed << one) ^ (signed >> last)).view(differences.dtype)
    return folded


def _unfold(folded: Elements) -> Elements:
    one = folded.dtype.type(1)
    return (folded >> one) ^ (~(folded & one) + one)
