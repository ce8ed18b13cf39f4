"""What a delta is made of, before it is bytes: its header, its pool, and its segments."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.delta.elements import Order
from runtime.delta.payload import Codec
from runtime.delta.ranges import Kind


@dataclass(frozen=True, slots=True)
class Copy:
    """As it is in the old file."""

    length: int
    old_start: int


@dataclass(frozen=True, slots=True)
class Pooled:
    """The next bytes of the pool."""

    length: int


@dataclass(frozen=True, slots=True)
class Plain:
    """Elements without a reference: shuffled and compressed."""

    length: int
    kind: Kind
    codec: Codec
    payload: bytes


@dataclass(frozen=True, slots=True)
class Against:
    """Compressed with a piece of the old file as the dictionary."""

    length: int
    old_start: int
    old_length: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Residual:
    """Differences from as many old elements of the same kind."""

    length: int
    kind: Kind
    order: Order
    is_sparse: bool
    unpacked_length: int
    codec: Codec
    old_start: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Ranked:
    """Steps between new elements in the order of as many old ones, which may be of another kind."""

    length: int
    kind: Kind
    old_kind: Kind
    codec: Codec
    old_start: int
    payload: bytes


Segment = Copy | Pooled | Plain | Against | Residual | Ranked


@dataclass(frozen=True, slots=True)
class Pool:
    """All bytes that are no tensors and not in the old file, compressed as one.

    ``references`` are the pieces of the old file, in order and apart (start, length), that make up
    the dictionary.
    """

    length: int = 0
    references: tuple[tuple[int, int], ...] = ()
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Header:
    """Which file a delta is for, and which one it makes."""

    old_digest: bytes
    new_digest: bytes
    new_length: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """A whole delta."""

    header: Header
    pool: Pool
    segments: tuple[Segment, ...]
