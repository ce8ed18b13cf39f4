"""From an item that waits for people to what they have settled on. Pure; the store keeps the rest.

    waiting    nobody looks at it
    assigned   somebody does, until a lease ends
    labelled   one person was wanted, and has labelled it
    agreed     as many as were wanted say the same
    disputed   people say different things, and no label has enough of them yet
    expired    nobody looked at it in time; it is over

Rules of this file:
  * nobody labels an item twice, and nobody who has skipped it is given it again;
  * a label has won when ``wanted`` people have given it; what comes afterwards is late and changes
    nothing;
  * a lease keeps others from the same work by accident, not by force: a label without a lease, or
    after its end, counts like any other while it is not late;
  * every move has a named outcome, also the one that changes nothing.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

# Who disagrees for ever is not asked for ever.
MAX_LABELS = 5
LEASE_S = 600.0
UNDO_S = 10.0


class State(enum.StrEnum):
    """Where an item stands."""

    WAITING = "waiting"
    ASSIGNED = "assigned"
    LABELLED = "labelled"
    AGREED = "agreed"
    DISPUTED = "disputed"
    EXPIRED = "expired"


class Move(enum.StrEnum):
    """What became of what somebody did; the first three have changed something."""

    TAKEN = "taken"
    COUNTED = "counted"
    UNDONE = "undone"
    # The same again: a submit whose answer was lost.
    KNOWN = "known"
    # Another label by the same person, who could have undone the first.
    TWICE = "twice"
    # Settled, or over, before it came.
    LATE = "late"
    # Others hold all places, or it is not for this person any more.
    HELD = "held"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Given:
    """What one person has said: a label, or None where it was skipped."""

    who: str
    label: int | None
    at_s: float


@dataclass(frozen=True, slots=True)
class Lease:
    """Who looks at it, and until when."""

    who: str
    until_s: float


@dataclass(frozen=True, slots=True)
class Case:
    """An item as far as people are concerned; ``wanted`` have to say the same."""

    wanted: int = 1
    given: tuple[Given, ...] = ()
    leases: tuple[Lease, ...] = ()
    is_expired: bool = False

    @property
    def labels(self) -> tuple[Given, ...]:
        """Who has labelled it, in the order of time."""
        return tuple(one for one in self.given if one.label is not None)

    def winner(self) -> int | None:
        """The label that enough people have given; None while there is none."""
        counts: dict[int, int] = {}
        for one in self.given:
            if one.label is not None:
                counts[one.label] = counts.get(one.label, 0) + 1
                if counts[one.label] >= self.wanted:
                    return one.label
        return None

    def state(self, now_s: float) -> State:
        """Where it stands at this instant."""
        if self.winner() is not None:
            return State.LABELLED if len(self.labels) == 1 else State.AGREED
        if self.is_expired:
            return State.EXPIRED
        if len({one.label for one in self.labels}) > 1:
            return State.DISPUTED
        return State.ASSIGNED if self._held(now_s) else State.WAITING

    def said_by(self, who: str) -> Given | None:
        """What a person has said about it."""
        return next((one for one in self.given if one.who == who), None)

    def num_places(self) -> int:
        """How many more people it takes at least."""
        if self.is_over():
            return 0
        most = max((self._votes(one.label) for one in self.labels), default=0)
        return min(self.wanted - most, MAX_LABELS - len(self.labels))

    def is_over(self) -> bool:
        """Whether nothing that people say can change it."""
        return self.is_expired or self.winner() is not None or len(self.labels) >= MAX_LABELS

    def is_free_for(self, who: str, now_s: float) -> bool:
        """Whether somebody may be given it."""
        others = [one for one in self._held(now_s) if one.who != who]
        return self.said_by(who) is None and len(others) < self.num_places()

    def _votes(self, label: int | None) -> int:
        return sum(one.label == label for one in self.labels)

    def _held(self, now_s: float) -> tuple[Lease, ...]:
        return tuple(one for one in self.leases if one.until_s > now_s)


def take(case: Case, who: str, now_s: float, *, lease_s: float = LEASE_S) -> tuple[Case, Move]:
    """Somebody begins to look at it, or goes on."""
    if case.is_over():
        return case, Move.LATE
    if not case.is_free_for(who, now_s):
        return case, Move.HELD
    lease = Lease(who, now_s + lease_s)
    return replace(case, leases=(*_without(case, who, now_s), lease)), Move.TAKEN


def give(case: Case, who: str, label: int | None, now_s: float) -> tuple[Case, Move]:
    """Somebody labels it, or skips it (None)."""
    before = case.said_by(who)
    if before is not None:
        return case, Move.KNOWN if before.label == label else Move.TWICE
    if case.is_over():
        return case, Move.LATE
    leases = _without(case, who, now_s)
    return replace(case, given=(*case.given, Given(who, label, now_s)), leases=leases), Move.COUNTED


def undo(case: Case, who: str, now_s: float, *, within_s: float = UNDO_S) -> tuple[Case, Move]:
    """Somebody takes back what they have just said; the item is theirs again."""
    said = case.said_by(who)
    if said is None:
        return case, Move.NOTHING
    if now_s - said.at_s > within_s or case.is_expired:
        return case, Move.LATE
    given = tuple(one for one in case.given if one.who != who)
    return replace(case, given=given), Move.UNDONE


def expire(case: Case) -> tuple[Case, Move]:
    """Nobody is asked any more."""
    if case.is_over():
        return case, Move.NOTHING
    return replace(case, is_expired=True), Move.COUNTED


def _without(case: Case, who: str, now_s: float) -> tuple[Lease, ...]:
    return tuple(one for one in case.leases if one.who != who and one.until_s > now_s)


class Age(enum.StrEnum):
    """How long an item has waited, against what was promised."""

    FRESH = "fresh"
    HALF = "half"
    OVERDUE = "overdue"


def age_of(wall_s: float, due_s: float, now_s: float) -> Age:
    """Whether half, or all, of the promised time is over."""
    if now_s >= due_s:
        return Age.OVERDUE
    return Age.HALF if now_s - wall_s >= (due_s - wall_s) / 2 else Age.FRESH


def order_of(due_s: float, value: float, item: str, now_s: float) -> tuple[int, float, float, str]:
    """What sorts work: what is due by how long it has been, then the rest by expected value."""
    if due_s <= now_s:
        return (0, due_s, -value, item)
    return (1, -value, due_s, item)


def value_of(chance: float, label: int) -> float:
    """How likely a person is to say something new, from 0 to 1; nobody answered: 1."""
    if label < 0 or not 0 <= chance <= 1:
        return 1.0
    return 1 - chance
