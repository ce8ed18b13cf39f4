"""Placements: which tiers take part, and the stops that a request can come to.

A *stop* is the tiers that have answered so far, the last one deciding.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

Stop = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Placement:
    """Which tiers take part, and whether a request may skip one or ask two at once.

    With ``averages`` every tier after the first averages with those that have answered before it.
    Whoever races does not wait for the others, so races have nothing to average with.
    """

    tiers: tuple[int, ...]
    skips: bool = False
    races: bool = False
    averages: bool = False

    def describe(self, names: Sequence[str]) -> str:
        """In words: the tiers with what else is allowed."""
        extras = [
            word
            for word, on in (("skip", self.skips), ("race", self.races), ("average", self.averages))
            if on
        ]
        return " > ".join(names[tier] for tier in self.tiers) + "".join(f" +{e}" for e in extras)

    def stops(self) -> list[Stop]:
        """All stops below the top, those of the highest tier first."""
        first, *middle = self.tiers[:-1]
        if not self.skips:
            found = [self.tiers[:count] for count in range(1, len(self.tiers))]
        else:
            found = [
                (first, *chosen)
                for count in range(len(middle) + 1)
                for chosen in itertools.combinations(middle, count)
            ]
        return sorted(found, key=lambda stop: -stop[-1])

    def targets(self, stop: Stop) -> list[tuple[int, ...]]:
        """What may be asked from a stop."""
        above = [tier for tier in self.tiers if tier > stop[-1]]
        found: list[tuple[int, ...]] = [(tier,) for tier in (above if self.skips else above[:1])]
        if self.races and len(above) > 1:
            found.append((above[0], above[-1]))
        return found

    def averaging_stops(self) -> list[Stop]:
        """The stops at which tiers average, those of the top tier among them."""
        if not self.averages:
            return []
        stops = self.stops()
        reached = [(*stop, *to) for stop in stops for to in self.targets(stop)]
        return sorted({stop for stop in (*stops, *reached) if len(stop) > 1})


def placements(num_tiers: int, *, with_races: bool, with_averages: bool = False) -> list[Placement]:
    """All placements from the lowest tier to the top; races matter only where time does."""
    found = []
    middle = range(1, num_tiers - 1)
    for count in range(num_tiers - 1):
        for chosen in itertools.combinations(middle, count):
            tiers = (0, *chosen, num_tiers - 1)
            found.append(Placement(tiers))
            if chosen:
                found.append(Placement(tiers, skips=True))
            if chosen and with_races:
                found.append(Placement(tiers, skips=True, races=True))
    if with_averages:
        found += [replace(one, averages=True) for one in found if not one.races]
    return found
