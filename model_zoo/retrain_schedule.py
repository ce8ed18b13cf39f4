"""When which model is trained anew for which region, so that no two changes meet.

Rules of this file:
  * every pair of a model and a region has one turn in a period, always at the same place in it;
  * turns are equally far apart, and no nearer than what a rollout needs: a model that is rolled out
    while the one beside it changes is judged on the wrong grounds;
  * the order is a hash, so that the turns of one model, and those of one region, are spread out;
  * time is passed in.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from runtime.errors import StartError


class Turn(NamedTuple):
    """Whose turn begins at a Unix time."""

    at_s: float
    model: str
    region: str


class Schedule:
    """The turns of some models in some regions.

    Raises:
        StartError: there is nothing to schedule, or not enough room in a period.
    """

    def __init__(
        self, models: Sequence[str], regions: Sequence[str], *, every_s: float, apart_s: float
    ) -> None:
        pairs = {(model, region) for model in models for region in regions}
        if not pairs:
            raise StartError("name a model and a region at least")
        if not (every_s > 0 and apart_s > 0):
            raise StartError("a period, and what is between two turns, are above 0")
        self._step_s = every_s / len(pairs)
        if self._step_s < apart_s:
            needed_s = apart_s * len(pairs)
            raise StartError(
                f"{len(pairs)} turns do not fit: a period of {every_s:g} s leaves {self._step_s:g} "
                f"s for each, and they are to be {apart_s:g} s apart; {needed_s:g} s would do"
            )
        self._every_s = every_s
        self._order = sorted(pairs, key=_place)

    def after(self, now_s: float) -> Iterator[Turn]:
        """The turns from a Unix time on, in order, without end."""
        begun = int(now_s // self._every_s)
        for period in itertools.count(begun):
            for place, (model, region) in enumerate(self._order):
                at_s = period * self._every_s + place * self._step_s
                if at_s >= now_s:
                    yield Turn(at_s, model, region)


def _place(pair: tuple[str, str]) -> bytes:
    return hashlib.sha256("\n".join(pair).encode()).digest()
