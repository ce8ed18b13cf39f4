"""Latencies as counts of buckets that grow by a constant factor, so that they can be added up.

A DDSketch (Masson, Rim and Lee, VLDB 2019) with one relative error for all of Tierwise: any
quantile of any sum of sketches is within ``RELATIVE_ERROR`` of a value of that rank. A sketch is a
mapping from the number of a bucket to how many values lie in it; bucket ``i`` holds the values in
``(GROWTH ** (i - 1), GROWTH ** i]`` milliseconds, and ``LEAST`` all up to a microsecond.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from itertools import accumulate

RELATIVE_ERROR = 0.005
GROWTH = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GROWTH = math.log(GROWTH)
_LEAST_MS, _MOST_MS = 1e-3, 1e7
LEAST = math.ceil(math.log(_LEAST_MS) / _LOG_GROWTH)
MOST = math.ceil(math.log(_MOST_MS) / _LOG_GROWTH)


def bucket_of(value_ms: float) -> int:
    """The bucket of a value; what is no number, or below a microsecond, is in the least one."""
    if not value_ms > _LEAST_MS:
        return LEAST
    return min(MOST, math.ceil(math.log(min(value_ms, _MOST_MS)) / _LOG_GROWTH))


def value_of(bucket: int) -> float:
    """The value in milliseconds that is within the relative error of all in a bucket."""
    return float(2 * GROWTH**bucket / (GROWTH + 1))


def added(sketches: Iterable[Mapping[int, int]]) -> dict[int, int]:
    """One sketch of all."""
    total: dict[int, int] = {}
    for sketch in sketches:
        for bucket, count in sketch.items():
            total[bucket] = total.get(bucket, 0) + count
    return total


def within(sketch: Mapping[int, int]) -> dict[int, int]:
    """The same with all that lies beyond the least and the last bucket in these two."""
    total: dict[int, int] = {}
    for bucket, count in sketch.items():
        place = min(MOST, max(LEAST, bucket))
        total[place] = total.get(place, 0) + count
    return total


def quantile(sketch: Mapping[int, int], share: float) -> float | None:
    """The value below which this share of all lies, in ms; None where there is none.

    Raises:
        ValueError: ``share`` is not in 0 .. 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"a quantile lies in 0 .. 1, not at {share}")
    count = sum(sketch.values())
    if not count:
        return None
    ordered = sorted(sketch)
    seen = list(accumulate(sketch[bucket] for bucket in ordered))
    return value_of(ordered[bisect_right(seen, share * (count - 1))])
