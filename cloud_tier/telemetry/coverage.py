"""Which numbers of a decision log have been counted: the highest, and the gaps below it.

Pure. A range may come twice by two ways (a device that heard no word from one gateway asks another
one, and each puts it into a rollup of its own), late, or never.
"""

from __future__ import annotations

from dataclasses import dataclass

# Gaps that are remembered; of more, the oldest is given up: it counts as missing for good.
MAX_GAPS = 256


@dataclass(frozen=True, slots=True)
class Coverage:
    """Numbers 1 to ``last`` without those in ``gaps``, which are ranges in ascending order."""

    last: int = 0
    gaps: tuple[tuple[int, int], ...] = ()

    def added(self, first: int, last: int) -> tuple[Coverage, int]:
        """With this range, and how many of it are new.

        Raises:
            ValueError: it is no range of numbers from 1.
        """
        if not 1 <= first <= last:
            raise ValueError(f"numbers {first} to {last} are no range")
        num_new = max(0, last - max(first - 1, self.last))
        gaps: list[tuple[int, int]] = []
        for low, high in self.gaps:
            overlap = min(high, last) - max(low, first) + 1
            if overlap <= 0:
                gaps.append((low, high))
                continue
            num_new += overlap
            if low < first:
                gaps.append((low, first - 1))
            if high > last:
                gaps.append((last + 1, high))
        if first > self.last + 1:
            gaps.append((self.last + 1, first - 1))
        return Coverage(max(self.last, last), tuple(gaps[-MAX_GAPS:])), num_new
