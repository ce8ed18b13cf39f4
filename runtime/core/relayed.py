"""Retained assignments on their way down: what a gateway has to publish to its region's broker.

Rules of this file:
  * a place (one process's topic) ends with what the tier above has said last. Of two, the one with
    the higher ``seq`` is newer, and of two with the same the one with the higher digest: every
    gateway decides alike, so that several of them do not take turns;
  * nothing is decided before all that the region's broker retains was heard: what is retained there
    may be newer than what a gateway knows;
  * what was cleared above is cleared below, unless something newer than what was cleared is there;
    after that anything may follow. What clears below is another gateway that does the same: it is
    not undone;
  * that something is not retained above any more is no clearing: a broker may have lost it. What is
    known is published again where the region's broker has lost it;
  * so many places are remembered; beyond that the one that was said longest ago is forgotten.

``seq`` is read from what nobody has verified: it orders, and it grants nothing. Devices verify.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from typing import NamedTuple

MAX_PLACES = 10_000


class Place(NamedTuple):
    """Whose assignment: a process (``site``) of a region."""

    region: str
    site: str


class Mark(NamedTuple):
    """Orders assignments to one place: the greater is the newer."""

    seq: int
    digest: bytes

    @classmethod
    def of(cls, seq: int, payload: bytes) -> Mark:
        """The mark of a payload that says it is number ``seq``."""
        return cls(seq, hashlib.sha256(payload).digest())


# Of what was cleared before it was known here; what is retained then is what it was.
_UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class _Said:
    """By the tier above; an empty ``payload`` clears what is not above ``mark.seq``.

    ``path`` is what is assigned.
    """

    payload: bytes
    mark: Mark
    path: str = ""


class Relayed:
    """What one gateway knows of the places below it.

    Raises:
        ValueError: less than one place.
    """

    def __init__(self, max_places: int = MAX_PLACES) -> None:
        if max_places < 1:
            raise ValueError(f"{max_places} places are too few to relay anything")
        self._max_places = max_places
        self._said: dict[Place, _Said] = {}
        self._here: dict[Place, Mark] = {}
        self._due: dict[Place, None] = {}
        # Publications of ours that the broker has not echoed yet, by place.
        self._in_flight: Counter[Place] = Counter()
        self._has_heard_all = False
        self.num_forgotten = 0

    @property
    def num_places(self) -> int:
        """Places that are remembered."""
        return len(self._said)

    def paths(self) -> frozenset[str]:
        """Entries of the catalogue that are assigned to somebody."""
        return frozenset(said.path for said in self._said.values() if said.path)

    def above(self, place: Place, payload: bytes, seq: int, path: str = "") -> bool:
        """The tier above retains this; False where a newer one was known."""
        said, before = _Said(payload, Mark.of(seq, payload), path), self._said.pop(place, None)
        if before is not None and before.payload and said.mark < before.mark:
            self._say(place, before)
            return False
        self._say(place, said)
        return True

    def cleared_above(self, place: Place) -> None:
        """The tier above retains nothing there any more, and has said so."""
        before = self._said.pop(place, None)
        self._say(place, _Said(b"", Mark(before.mark.seq if before else _UNKNOWN, b"")))

    def here(self, place: Place, mark: Mark | None, *, is_ours: bool = False) -> None:
        """The region's broker retains this; None: it was cleared there.

        ``is_ours``: this gateway has published it. While more of that is on its way, what others
        publish there does not stay.
        """
        if self._in_flight[place] > is_ours:
            self._in_flight[place] -= is_ours
            return
        del self._in_flight[place]
        self._here.pop(place, None)
        if mark is not None:
            self._here[place] = mark
            while len(self._here) > self._max_places:
                del self._here[next(iter(self._here))]
        if place in self._said and (mark is not None or is_ours):
            self._due[place] = None

    def lost(self) -> None:
        """The connection to the region's broker is gone: it may come back with anything."""
        self._here.clear()
        self._in_flight.clear()
        self._has_heard_all = False

    def all_heard(self) -> None:
        """All that the region's broker retains was heard over this connection."""
        if not self._has_heard_all:
            self._has_heard_all = True
            self._due |= dict.fromkeys(place for place, said in self._said.items() if said.payload)

    def due(self) -> list[tuple[Place, bytes]]:
        """What is to be published now, retained; what is not ``sent`` stays due."""
        if not self._has_heard_all:
            return []
        found: list[tuple[Place, bytes]] = []
        for place in tuple(self._due):
            said, here = self._said[place], self._here.get(place)
            if said.mark.seq == _UNKNOWN:
                said = replace(said, mark=here or Mark(0, b""))
                self._said[place] = said
            if said.payload:
                is_due = here is None or here < said.mark
            else:
                is_due = here is not None and here.seq <= said.mark.seq
            if is_due:
                found.append((place, said.payload))
            else:
                del self._due[place]
        return found

    def sent(self, place: Place) -> None:
        """What was due at a place was handed to the connection."""
        said = self._said[place]
        del self._due[place]
        self._here.pop(place, None)
        self._in_flight[place] += 1
        if said.payload:
            self._here[place] = said.mark

    def given_up(self, place: Place) -> None:
        """What was due at a place can never be sent."""
        del self._due[place]

    def _say(self, place: Place, said: _Said) -> None:
        self._said[place] = said
        self._due[place] = None
        while len(self._said) > self._max_places:
            oldest = next(iter(self._said))
            del self._said[oldest]
            self._due.pop(oldest, None)
            self.num_forgotten += 1
