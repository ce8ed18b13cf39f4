"""What an outbox keeps, in which order it gives things up, and when an item is tried again.

The drop order, also in docs/corrections.md:
  1. what is over its age;
  2. when there is no room for a new item: the least precious kind first (the last of ``ItemKind``),
     within a kind what is parked first, then the oldest;
  3. nothing is dropped for an item of a less precious kind: then the new one is refused, and
     nothing is dropped unless the new one fits afterwards.

An item is parked when the other side refuses it, or when it stays silent about this item a few
times while it hears others. Silence about everything is an outage and parks nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from runtime.messages import ItemKind, Outcome, Reason

RANKS = {kind: rank for rank, kind in enumerate(ItemKind)}
# A clock that says less has not been set since the device was switched on.
SET_CLOCK_S = 1_700_000_000.0
SILENT = "no_acknowledgement"
# Reasons of an answer that a tier above could have bettered, had it been heard in time.
_UNANSWERED = frozenset(
    {
        Reason.NO_UPSTREAM,
        Reason.NO_TIME,
        Reason.UNLIKELY_IN_TIME,
        Reason.UPSTREAM_TIMEOUT,
        Reason.UPSTREAM_REFUSED,
        Reason.UPSTREAM_FAILED,
        Reason.OVERLOADED,
        Reason.LOCAL_FAILED,
        Reason.NO_CONFIDENCE,
        Reason.BELOW_FLOOR,
        Reason.DEADLINE,
    }
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What an outbox may hold."""

    max_items: int = 10_000
    max_bytes: int = 67_108_864
    max_age_s: float = 604_800.0


@dataclass(frozen=True, slots=True)
class Held:
    """An item as far as dropping it is concerned."""

    id: str
    rank: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Used:
    """What is held now."""

    num_items: int
    num_bytes: int


def room_for(new: Held, used: Used, limits: Limits, first: Iterable[Held]) -> list[str] | None:
    """The items to drop so that ``new`` fits; None when it may not have that room.

    ``first`` are the items held, in the order in which they are given up; no more of them are
    looked at than needed.
    """
    num_items, num_bytes = used.num_items + 1, used.num_bytes + new.num_bytes
    dropped: list[str] = []
    if new.num_bytes > limits.max_bytes:
        return None
    held = iter(first)
    while num_items > limits.max_items or num_bytes > limits.max_bytes:
        one = next(held, None)
        if one is None or one.rank < new.rank:
            return None
        dropped.append(one.id)
        num_items, num_bytes = num_items - 1, num_bytes - one.num_bytes
    return dropped


def oldest_kept_s(now_s: float, limits: Limits) -> float:
    """Items made before this instant are over their age; below ``SET_CLOCK_S`` nothing is.

    Nobody knows the age of an item from before the clock was set: it is not dropped for it.
    """
    return now_s - limits.max_age_s


def is_expired(created_s: float, now_s: float, limits: Limits) -> bool:
    """Whether an item is over its age."""
    return SET_CLOCK_S <= created_s < oldest_kept_s(now_s, limits)


@dataclass(frozen=True, slots=True)
class Patience:
    """When an item is sent again.

    ``ack_s`` is how long an acknowledgement may take; ``answer_s`` the same for an escalation,
    which is worked on before. After that the wait doubles from ``first_s`` to ``longest_s``.
    ``max_strikes`` is how often the other side may stay silent about an item while it hears others.
    """

    ack_s: float = 10.0
    answer_s: float = 60.0
    first_s: float = 2.0
    longest_s: float = 300.0
    max_strikes: int = 5

    def wait_s(self, kind: ItemKind, attempts: int, draw: float) -> float:
        """How long after this attempt the next one comes; ``draw`` is at random from 0 to 1."""
        answer_s = self.answer_s if kind is ItemKind.ESCALATION else self.ack_s
        return answer_s + self.put_off_s(0.0, attempts, draw)

    def put_off_s(self, said_s: float, attempts: int, draw: float) -> float:
        """How long an item waits that the other side cannot take yet; it said for how long."""
        grown_s = min(self.longest_s, self.first_s * 2.0 ** min(attempts, 30))
        return max(min(said_s, self.longest_s), grown_s * (0.5 + 0.5 * draw))

    def strikes(self, before: int, *, sent_s: float | None, heard_s: float | None) -> int:
        """The strikes of an item that is due again.

        ``sent_s`` is when it was last sent, None in an earlier life of the process or while it was
        not; ``heard_s`` when anything was last acknowledged.
        """
        is_strike = sent_s is not None and heard_s is not None and heard_s > sent_s
        return before + 1 if is_strike else before


def is_unanswered(outcome: Outcome, reason: Reason, above: Outcome | None = None) -> bool:
    """Whether a better answer may still come from above: the climb failed, or was not tried.

    ``above`` is what the tier above said, None where it said nothing: that it has nothing better is
    an answer, too.
    """
    if outcome is Outcome.ANSWERED or above is Outcome.ABSTAINED:
        return False
    return reason in _UNANSWERED
