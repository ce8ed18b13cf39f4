"""Which numbers of a decision log have been counted: the highest, and the gaps below it.

Pure. A range may come twice by two ways (a device that heard no word from one gateway asks another
one, and each puts it into a rollup of its own), late, or never.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

# Gaps that are remembered; of more, the oldest is given up: it counts as missing for good.
MAX_GAPS = 256


class Gap(NamedTuple):
    """Numbers that have not come, and since when what comes after them is there.

    ``since_s`` is 0 where an earlier version has not noted it, and of what was before the first.
    """

    low: int
    high: int
    since_s: float = 0.0


def num_missing(gaps: Iterable[Gap], *, after_s: float, before_s: float) -> int:
    """How many numbers are missing in gaps that were seen first between two instants."""
    return sum(one.high - one.low + 1 for one in gaps if after_s < one.since_s <= before_s)


@dataclass(frozen=True, slots=True)
class Coverage:
    """Numbers 1 to ``last`` without those in ``gaps``, which are ranges in ascending order."""

    last: int = 0
    gaps: tuple[Gap, ...] = ()

    def added(self, first: int, last: int, at_s: float = 0.0) -> tuple[Coverage, int]:
        """With this range, which comes at ``at_s``, and how many of it are new.

        Raises:
            ValueError: it is no range of numbers from 1.
        """
        if not 1 <= first <= last:
            raise ValueError(f"numbers {first} to {last} are no range")
        num_new = max(0, last - max(first - 1, self.last))
        gaps: list[Gap] = []
        for gap in self.gaps:
            overlap = min(gap.high, last) - max(gap.low, first) + 1
            if overlap <= 0:
                gaps.append(gap)
                continue
            num_new += overlap
            if gap.low < first:
                gaps.append(Gap(gap.low, first - 1, gap.since_s))
            if gap.high > last:
                gaps.append(Gap(last + 1, gap.high, gap.since_s))
        if first > self.last + 1:
            # What was before the first that came may have gone elsewhere.
            gaps.append(Gap(self.last + 1, first - 1, at_s if self.last else 0.0))
        return Coverage(max(self.last, last), tuple(gaps[-MAX_GAPS:])), num_new
