"""A tensor's place in a file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """What elements are: ``width`` bytes each (1, 2, 4 or 8), floats with a leading sign or not."""

    width: int = 1
    is_float: bool = False


@dataclass(frozen=True, slots=True)
class Range:
    """``length`` bytes from ``start``, of elements of one kind; ``name`` is empty without one."""

    start: int
    length: int
    kind: Kind = Kind()
    name: str = ""

    @property
    def end(self) -> int:
        """The position behind its last byte."""
        return self.start + self.length

    @property
    def num_elements(self) -> int:
        """How many whole elements it holds."""
        return self.length // self.kind.width


def disjoint(found: Iterable[Range], size: int) -> tuple[Range, ...]:
    """Those inside ``size`` bytes, in order; one that overlaps an earlier one is left out."""
    kept: list[Range] = []
    end = 0
    for one in sorted(found, key=lambda one: (one.start, one.length)):
        if one.length > 0 and end <= one.start and one.end <= size:
            kept.append(one)
            end = one.end
    return tuple(kept)
