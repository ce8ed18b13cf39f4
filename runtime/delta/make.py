"""Makes the delta from an old file to a new one.

Rules of this file:
  * the new file is cut into tensors and what is between them; what the old file has somewhere is
    copied, wherever it has moved to;
  * other tensors are said by what changed since the old tensor that they have come from, in the way
    that is smallest; pieces have a limit, so memory does not grow with the size of a tensor;
  * a delta of the whole file, with the old file as a dictionary, competes with that;
  * the same files and level give the same delta with the same version of zstd.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from runtime.delta.encoding import encode as encode_piece
from runtime.delta.encoding import encode_plain
from runtime.delta.matching import match
from runtime.delta.payload import pack_against
from runtime.delta.ranges import Kind, Range
from runtime.delta.recipe import MAX_ELEMENTS, MAX_SEGMENTS, encode
from runtime.delta.scan import scan
from runtime.delta.segments import Against, Copy, Header, Pool, Pooled, Recipe, Segment

# A delta that is larger than this share of the full download is not worth its risk and time.
WORTHWHILE_SHARE: Final = 0.8
DEFAULT_LEVEL: Final = 12
# Less is put with what is between tensors: what is said about a segment would cost more.
MIN_TENSOR_BYTES: Final = 256
# zstd takes about 8 times the tables' 16 million entries for files of this size together.
MAX_WHOLE_BYTES: Final = 64 << 20
# What a piece of the pool's dictionary takes, about.
REFERENCE_BYTES: Final = 2
MAX_TENSORS: Final = MAX_SEGMENTS // 4
# Nothing is left to win for the whole file below this share of the new one.
SMALL_SHARE: Final = 0.002
# What a file without known tensors may consist of.
GUESSES: Final = (Kind(4, is_float=True), Kind(2, is_float=True), Kind(1))


def is_worthwhile(delta_bytes: int, full_bytes: int) -> bool:
    """Whether to send a delta instead of what the full download takes."""
    return delta_bytes <= WORTHWHILE_SHARE * full_bytes


def make_delta(old: bytes, new: bytes, *, level: int = DEFAULT_LEVEL) -> bytes:
    """What ``apply_delta`` needs to make ``new`` from ``old``.

    Args:
        old: the file that the device has.
        new: the file that it is to have.
        level: of zstd, 1 to 22: 3 for a delta that is made while somebody waits, 19 for one that
            many will fetch.
    """
    header = Header(hashlib.sha256(old).digest(), hashlib.sha256(new).digest(), len(new))
    old_ranges, new_ranges = _large(scan(old)), _large(scan(new))
    delta = _by_tensor(header, old, new, (old_ranges, new_ranges), level)
    if len(delta) < SMALL_SHARE * len(new):
        return delta
    others = []
    if not old_ranges and not new_ranges and len(old) == len(new):
        for kind in GUESSES:
            guess = _large([Range(0, len(new) // kind.width * kind.width, kind)])
            others.append(_by_tensor(header, old, new, (guess, guess), level))
    elif old and len(old) + len(new) <= MAX_WHOLE_BYTES:
        whole = Against(len(new), 0, len(old), pack_against(new, old, level))
        others.append(encode(Recipe(header, Pool(), (whole,))))
    return min([delta, *others], key=len)


def _large(ranges: Sequence[Range]) -> tuple[Range, ...]:
    large = (one for one in ranges if one.length >= MIN_TENSOR_BYTES)
    return tuple(islice(large, MAX_TENSORS))


def _by_tensor(
    header: Header,
    old: bytes,
    new: bytes,
    ranges: tuple[Sequence[Range], Sequence[Range]],
    level: int,
) -> bytes:
    old_ranges, new_ranges = ranges
    old_gaps = _gaps(old_ranges, len(old))
    copies = _Copies(old, [*old_ranges, *old_gaps])
    likely = match(old, new, old_ranges, new_ranges)
    pooled: list[memoryview] = []
    segments: list[Segment] = []
    tensors = set(new_ranges)
    for one in sorted([*new_ranges, *_gaps(new_ranges, len(new))], key=lambda one: one.start):
        data = memoryview(new)[one.start : one.end]
        copied = copies.find(data)
        if copied is not None:
            segments.append(Copy(len(data), copied))
        elif one in tensors:
            segments += _pieces(old, data, one.kind, likely.get(one), level)
        else:
            pooled.append(data)
            segments.append(Pooled(len(data)))
    pool = _pool(old, b"".join(pooled), old_gaps, level)
    return encode(Recipe(header, pool, tuple(_merged(segments))))


def _gaps(ranges: Sequence[Range], size: int) -> list[Range]:
    """What lies between the ranges."""
    ends = [0, *(one.end for one in ranges)]
    starts = [*(one.start for one in ranges), size]
    return [Range(end, start - end) for end, start in zip(ends, starts, strict=True) if end < start]


class _Copies:
    """Finds in the old file what is exactly as it was, best where the copy before it has ended."""

    def __init__(self, old: bytes, ranges: Sequence[Range]) -> None:
        self._old, self._end = memoryview(old), 0
        self._places: dict[bytes, int] = {}
        for one in ranges:
            digest = hashlib.sha256(self._old[one.start : one.end]).digest()
            self._places.setdefault(digest, one.start)

    def find(self, data: memoryview) -> int | None:
        place: int | None = self._end
        if self._old[self._end : self._end + len(data)] != data:
            place = self._places.get(hashlib.sha256(data).digest())
        if place is not None:
            self._end = place + len(data)
        return place


def _pieces(
    old: bytes, new: memoryview, kind: Kind, likely: Range | None, level: int
) -> Iterator[Segment]:
    """A tensor in pieces; one that has grown, or shrunk, is compared as far as both go."""
    for start in range(0, len(new), MAX_ELEMENTS * kind.width):
        piece = new[start : start + MAX_ELEMENTS * kind.width]
        if likely is None:
            yield encode_plain(piece, kind, level)
            continue
        old_start = likely.start + start // kind.width * likely.kind.width
        length = len(piece) // kind.width * likely.kind.width
        reference = memoryview(old)[old_start : min(old_start + length, likely.end)]
        num_both = len(reference) // likely.kind.width
        both = piece[: num_both * kind.width]
        if both:
            yield encode_piece(
                both,
                kind,
                old=reference,
                old_kind=likely.kind,
                old_start=old_start,
                level=level,
            )
        if len(both) < len(piece):
            yield encode_plain(piece[len(both) :], kind, level)


def _pool(old: bytes, data: bytes, old_gaps: Sequence[Range], level: int) -> Pool:
    if not data:
        return Pool()
    pools = [Pool(len(data), (), pack_against(data, b"", level))]
    places = tuple((one.start, one.length) for one in old_gaps)
    if len(data) + sum(length for _, length in places) <= MAX_WHOLE_BYTES:
        dictionary = b"".join(old[start : start + length] for start, length in places)
        pools.append(Pool(len(data), places, pack_against(data, dictionary, level)))
    return min(pools, key=lambda pool: len(pool.payload) + REFERENCE_BYTES * len(pool.references))


def _merged(segments: Sequence[Segment]) -> list[Segment]:
    """Copies that continue one another as one, and neighbours from the pool."""
    merged: list[Segment] = []
    for segment in segments:
        match merged[-1:], segment:
            case [Copy(before, start)], Copy(length, then) if then == start + before:
                merged[-1] = Copy(before + length, start)
            case [Pooled(before)], Pooled(length):
                merged[-1] = Pooled(before + length)
            case _:
                merged.append(segment)
    return merged
