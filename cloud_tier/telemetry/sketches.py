"""Sketches as bytes: six for each bucket, and one sketch after another is their sum.

An entry is the bucket's number as a 16-bit and its count as a 32-bit little-endian integer. A
bucket may have several entries, so that adding up is joining; ``compact`` makes one of each.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

from runtime.core.sketch import value_of

_ENTRY = np.dtype([("bucket", "<i2"), ("count", "<u4")])
MAX_COUNT = 2**32 - 1
# Of so many cells a table of all groups and buckets is made at once: 32 MB.
_MAX_CELLS = 1 << 22
# Entries that are looked at together.
_MAX_ENTRIES = 1 << 20
_Numbers = npt.NDArray[np.int64]


def pack(sketch: Mapping[int, int]) -> bytes:
    """The bytes of a sketch; of counts that fit in no entry, several."""
    if not sketch:
        return b""
    if max(sketch.values()) <= MAX_COUNT and min(sketch.values()) > 0:
        # What nearly all of them are, and there are two for each row that comes.
        flat = chain.from_iterable(sorted(sketch.items()))
        return struct.pack("<" + "hI" * len(sketch), *flat)
    pairs: list[tuple[int, int]] = []
    for bucket, total in sorted(sketch.items()):
        left = total
        while left > 0:
            pairs.append((bucket, min(left, MAX_COUNT)))
            left -= MAX_COUNT
    return np.array(pairs, _ENTRY).tobytes()


def unpack(packed: bytes) -> dict[int, int]:
    """The sketch of bytes, or of several sketches' bytes one after the other."""
    buckets, counts = _added(packed)
    return dict(zip(buckets.tolist(), counts.tolist(), strict=True))


def compact(parts: Iterable[bytes]) -> bytes:
    """The sum of sketches, with one entry for each bucket."""
    buckets, counts = _added(b"".join(parts))
    if counts.size and int(counts.max()) > MAX_COUNT:
        return pack(dict(zip(buckets.tolist(), counts.tolist(), strict=True)))
    entries = np.empty(buckets.size, _ENTRY)
    entries["bucket"], entries["count"] = buckets, counts
    return entries.tobytes()


def _added(packed: bytes) -> tuple[_Numbers, _Numbers]:
    """The buckets in ascending order, each once, and what is in them."""
    entries = np.frombuffer(packed, _ENTRY)
    if not entries.size:
        nothing = np.empty(0, np.int64)
        return nothing, nothing
    buckets = entries["bucket"].astype(np.int64)
    least = int(buckets.min())
    buckets -= least
    # No more than 2 ** 16 buckets. Added as floats, seven times as fast as integers are, and exact
    # up to 2 ** 53; a store keeps fewer decisions.
    counts = np.bincount(buckets, weights=entries["count"])
    found = np.flatnonzero(counts)
    return found + least, counts[found].astype(np.int64)


class Tally:
    """The sums of many sketches by group, and quantiles of each; groups are numbers from 0."""

    def __init__(self) -> None:
        # Sorted keys of what has been added, each of a group and a bucket, and their counts.
        self._parts: list[tuple[_Numbers, _Numbers]] = []
        self._num_waiting = 0

    def add(self, groups: Sequence[int], packed: Sequence[bytes]) -> None:
        """Adds a sketch to each of these groups; a group may be there several times."""
        begin = size = 0
        for at, one in enumerate(packed):
            size += len(one)
            if size >= _MAX_ENTRIES * _ENTRY.itemsize:
                self._add(groups[begin : at + 1], packed[begin : at + 1])
                begin, size = at + 1, 0
        self._add(groups[begin:], packed[begin:])

    def _add(self, groups: Sequence[int], packed: Sequence[bytes]) -> None:
        entries = np.frombuffer(b"".join(packed), _ENTRY)
        if not entries.size:
            return
        lengths = np.fromiter(map(len, packed), np.int64, len(packed)) // _ENTRY.itemsize
        buckets = entries["bucket"].astype(np.int64)
        least, most = int(buckets.min()), int(buckets.max())
        width = most - least + 1
        buckets -= least
        given = np.asarray(groups, np.int64)
        first = int(given.min())
        given -= first
        cells = (int(given.max()) + 1) * width
        if cells <= _MAX_CELLS:
            buckets += np.repeat(given * width, lengths)
            sums = np.bincount(buckets, weights=entries["count"])
            found = np.flatnonzero(sums)
            group, bucket = np.divmod(found, width)
            keys = _keys(group + first, bucket + least)
            self._keep(keys, sums[found].astype(np.int64))
        else:
            keys = _keys(np.repeat(given + first, lengths), buckets + least)
            self._keep(*_merged(keys, entries["count"].astype(np.int64)))

    def _keep(self, keys: _Numbers, counts: _Numbers) -> None:
        self._parts.append((keys, counts))
        self._num_waiting += keys.size
        if self._num_waiting > 2 * _MAX_ENTRIES:
            self._join()

    def _join(self) -> tuple[_Numbers, _Numbers]:
        if not self._parts:
            nothing = np.empty(0, np.int64)
            return nothing, nothing
        if len(self._parts) > 1:
            keys, counts = (np.concatenate(some) for some in zip(*self._parts, strict=True))
            self._parts = [_merged(keys, counts)]
        self._num_waiting = 0
        return self._parts[0]

    def quantiles(self, num_groups: int, shares: Sequence[float]) -> list[list[float | None]]:
        """For each group the values in ms below which these shares of it lie; None: it is empty.

        As ``runtime.core.sketch.quantile`` has them.
        """
        keys, counts = self._join()
        ends = np.searchsorted(keys, np.arange(1, num_groups + 1) << 16)
        seen = np.concatenate(([0], np.cumsum(counts)))
        upto = seen[ends]
        before = np.concatenate(([0], upto[:-1]))
        totals = upto - before
        values: list[list[float | None]] = [[None] * len(shares) for _ in range(num_groups)]
        filled = np.flatnonzero(totals)
        for column, share in enumerate(shares):
            # Whole numbers are more than a rank if they are more than the whole part of it.
            ranks = before[filled] + np.floor(share * (totals[filled] - 1)).astype(np.int64)
            places = np.searchsorted(seen[1:], ranks, side="right")
            buckets = (keys[places] & 0xFFFF) - _SHIFT
            for group, bucket in zip(filled.tolist(), buckets.tolist(), strict=True):
                values[group][column] = value_of(bucket)
        return values


# Buckets are signed, keys are in the order of groups and then of buckets.
_SHIFT = 1 << 15


def _keys(groups: _Numbers, buckets: _Numbers) -> _Numbers:
    return (groups << 16) | (buckets + _SHIFT)


def _merged(keys: _Numbers, counts: _Numbers) -> tuple[_Numbers, _Numbers]:
    """Keys in ascending order, each once, with the sum of its counts."""
    order = np.argsort(keys, kind="stable")
    keys, counts = keys[order], counts[order]
    firsts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
    return keys[firsts], np.add.reduceat(counts, firsts)
