"""The format of a delta: a header, the instructions, and the payloads in the instructions' order.

Rules of this file:
  * segments cover the new file in order, each at least one byte, and know their length before
    anything is decompressed;
  * everything that is read has a limit that follows from the sizes of the old and the new file;
  * a delta that breaks a rule is a ``DeltaError``.

``docs/delta.md`` gives the bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from runtime.delta.elements import BYTE_BITS, Order
from runtime.delta.payload import Codec, pack_zstd, unpack
from runtime.delta.ranges import Kind
from runtime.delta.segments import (
    Against,
    Copy,
    Header,
    Plain,
    Pool,
    Pooled,
    Ranked,
    Recipe,
    Residual,
    Segment,
)
from runtime.delta.varint import Reader, fold, put, unfold
from runtime.errors import DeltaError

MAGIC: Final = b"TWDL"
VERSION: Final = 1
DIGEST_BYTES: Final = 32
MAX_SEGMENTS: Final = 1 << 18
MAX_SEGMENT_BYTES: Final = 64
# Elements that are worked on at a time, which bounds memory: a larger tensor is several segments.
MAX_ELEMENTS: Final = 1 << 21
LEVEL: Final = 19

T = TypeVar("T")


def encode(recipe: Recipe) -> bytes:
    """The delta of a recipe.

    Raises:
        ValueError: there are more segments, or pieces of the dictionary, than may be.
    """
    pool = recipe.pool
    if max(len(recipe.segments), len(pool.references)) > MAX_SEGMENTS:
        raise ValueError("too many segments")
    out = bytearray(put(pool.length))
    payloads: list[bytes] = []
    if pool.length:
        out += put(len(pool.references))
        end = 0
        for start, length in pool.references:
            out += put(start - end, length)
            end = start + length
        out += put(len(pool.payload))
        payloads.append(pool.payload)
    out += put(len(recipe.segments))
    writer = _Writer()
    for segment in recipe.segments:
        out += writer.segment(segment)
        if not isinstance(segment, Copy | Pooled):
            payloads.append(segment.payload)
    header = recipe.header
    packed = pack_zstd(bytes(out), LEVEL)
    front = MAGIC + bytes([VERSION]) + header.old_digest + header.new_digest
    sizes = put(header.new_length, len(out), len(packed))
    return b"".join([front, sizes, packed, *payloads])


def decode_header(delta: bytes) -> tuple[Header, Reader]:
    """What a delta says of itself, and the reader of the rest.

    Raises:
        DeltaError: it is no delta, or of a version that is not known here.
    """
    reader = Reader(delta)
    if reader.bytes(min(len(MAGIC), len(delta))) != MAGIC:
        raise DeltaError("this is no delta; fetch the full file")
    version = reader.bytes(1)[0]
    if version != VERSION:
        raise DeltaError(f"deltas of version {version} are not known here; fetch the full file")
    old_digest, new_digest = reader.bytes(DIGEST_BYTES), reader.bytes(DIGEST_BYTES)
    return Header(old_digest, new_digest, reader.number()), reader


def decode(header: Header, reader: Reader, old_length: int) -> Recipe:
    """The rest of a delta after its header, whose length has been found to be the expected one.

    Raises:
        DeltaError: it breaks a rule of the format.
    """
    unpacked, packed = reader.numbers(2)
    limit = MAX_SEGMENT_BYTES * (2 + min(MAX_SEGMENTS, header.new_length + old_length))
    if unpacked > limit:
        raise DeltaError("the delta has too many instructions; fetch the full file")
    instructions = Reader(unpack(reader.bytes(packed), Codec.ZSTD, unpacked))
    pool = _decode_pool(instructions, reader, header.new_length, old_length)
    read = _Segments(instructions, reader, old_length)
    count = instructions.number()
    if count > min(MAX_SEGMENTS, header.new_length):
        raise DeltaError("the delta has too many segments; fetch the full file")
    segments: list[Segment] = []
    left, num_pooled = header.new_length, 0
    for _ in range(count):
        segment = read.segment(left)
        segments.append(segment)
        left -= segment.length
        num_pooled += segment.length if isinstance(segment, Pooled) else 0
    if left or num_pooled != pool.length or instructions.num_left or reader.num_left:
        raise DeltaError("the delta's parts do not add up; fetch the full file")
    return Recipe(header, pool, tuple(segments))


def _decode_pool(instructions: Reader, reader: Reader, new_length: int, old_length: int) -> Pool:
    length = instructions.number()
    if not length:
        return Pool()
    count = instructions.number()
    if length > new_length or count > min(MAX_SEGMENTS, old_length):
        raise DeltaError("the delta's pool is too large; fetch the full file")
    references, end = [], 0
    for _ in range(count):
        gap, size = instructions.numbers(2)
        references.append((end + gap, size))
        end += gap + size
    if end > old_length:
        raise DeltaError("the delta refers to what is not in the old file; fetch the full file")
    return Pool(length, tuple(references), reader.bytes(instructions.number()))


def _kind_number(kind: Kind) -> int:
    return kind.width.bit_length() - 1 | 4 * kind.is_float


# One-byte floats have no rule of order here, so there is no such kind.
KINDS: Final = {
    _kind_number(kind): kind
    for kind in [
        *(Kind(width) for width in (1, 2, 4, 8)),
        *(Kind(width, is_float=True) for width in (2, 4, 8)),
    ]
}


class _Writer:
    """Writes instructions; places in the old file count from the end of the one before."""

    def __init__(self) -> None:
        self._old_end = 0

    def segment(self, segment: Segment) -> bytes:
        match segment:
            case Copy(length, old_start):
                return put(0, length) + self._place(old_start, length)
            case Pooled(length):
                return put(1, length)
            case Plain(length, kind, codec, payload):
                return put(2, length, _kind_number(kind), codec, len(payload))
            case Against(length, old_start, old_length, payload):
                place = self._place(old_start, old_length)
                return put(3, length, old_length) + place + put(len(payload))
            case Residual(length, kind, order, is_sparse, unpacked, codec, old_start, payload):
                shape = put(_kind_number(kind), order, is_sparse)
                # Only what is sparse has a length of its own.
                size = put(unpacked) if is_sparse else b""
                place = self._place(old_start, length)
                return put(4, length) + shape + size + put(codec) + place + put(len(payload))
            case Ranked(length, kind, old_kind, codec, old_start, payload):
                kinds = put(_kind_number(kind), _kind_number(old_kind), codec)
                place = self._place(old_start, length // kind.width * old_kind.width)
                return put(5, length) + kinds + place + put(len(payload))

    def _place(self, start: int, length: int) -> bytes:
        place = put(fold(start - self._old_end))
        self._old_end = start + length
        return place


class _Segments:
    """Reads instructions, and cuts the payloads off."""

    def __init__(self, instructions: Reader, payloads: Reader, old_length: int) -> None:
        self._instructions, self._payloads, self._old_length = instructions, payloads, old_length
        self._old_end = 0
        self._read: dict[int, Callable[[int], Segment]] = {
            0: lambda length: Copy(length, self._place(length)),
            1: Pooled,
            2: self._plain,
            3: self._against,
            4: self._residual,
            5: self._ranked,
        }

    def segment(self, left: int) -> Segment:
        operation, length = self._instructions.numbers(2)
        if not 0 < length <= left:
            raise DeltaError("the delta makes more than it says; fetch the full file")
        return _known(self._read, operation)(length)

    def _plain(self, length: int) -> Segment:
        kind = self._kind(length)
        return Plain(length, kind, self._codec(), self._payload())

    def _against(self, length: int) -> Segment:
        old_length = self._instructions.number()
        return Against(length, self._place(old_length), old_length, self._payload())

    def _residual(self, length: int) -> Segment:
        kind = self._kind(length)
        order = _known({order.value: order for order in Order}, self._instructions.number())
        is_sparse = _known({0: False, 1: True}, self._instructions.number())
        unpacked = self._instructions.number() if is_sparse else length
        if unpacked > length + -(-length // kind.width // BYTE_BITS):
            raise DeltaError("the delta makes more than it says; fetch the full file")
        codec = self._codec()
        place = self._place(length)
        return Residual(length, kind, order, is_sparse, unpacked, codec, place, self._payload())

    def _ranked(self, length: int) -> Segment:
        kind = self._kind(length)
        old_kind = _known(KINDS, self._instructions.number())
        codec = self._codec()
        place = self._place(length // kind.width * old_kind.width)
        return Ranked(length, kind, old_kind, codec, place, self._payload())

    def _kind(self, length: int) -> Kind:
        kind = _known(KINDS, self._instructions.number())
        if length % kind.width or length // kind.width > MAX_ELEMENTS:
            raise DeltaError("the delta has a tensor that cannot be; fetch the full file")
        return kind

    def _codec(self) -> Codec:
        return _known({codec.value: codec for codec in Codec}, self._instructions.number())

    def _place(self, length: int) -> int:
        start = self._old_end + unfold(self._instructions.number())
        if not 0 <= start <= self._old_length - length:
            raise DeltaError("the delta refers to what is not in the old file; fetch the full file")
        self._old_end = start + length
        return start

    def _payload(self) -> bytes:
        return self._payloads.bytes(self._instructions.number())


def _known(table: dict[int, T], number: int) -> T:
    if number not in table:
        raise DeltaError("the delta has an instruction unknown here; fetch the full file")
    return table[number]
