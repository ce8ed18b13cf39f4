"""Who fails too often is not asked for a while: a breaker for one upstream or one model.

Rules of this file:
  * a closed breaker lets everything pass and opens when, of the latest outcomes in a span of time,
    too large a share failed: a rate, so that failures which take turns with successes open it too;
  * an open one lets nothing pass until its cool-down is over; every opening doubles the cool-down
    up to a limit, unless it had been closed for that long;
  * a half-open one lets a few probes pass at a time; one that fails opens it, enough that succeed
    close it; a probe of which nothing is heard gives its place back;
  * what passed before the last change of state decides nothing any more;
  * every change of state is in ``TRANSITIONS``; time is passed in.

         TRIPPED                COOLED
    closed ------------> open ------------> half-open
      ^                    ^    PROBE_FAILED    |  |
      |                    +--------------------+  |
      +--------------------------------------------+
                       RECOVERED
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass


class State(enum.StrEnum):
    """What a breaker does with a request."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Event(enum.Enum):
    """What changes a breaker's state."""

    TRIPPED = enum.auto()
    COOLED = enum.auto()
    PROBE_FAILED = enum.auto()
    RECOVERED = enum.auto()


TRANSITIONS = {
    (State.CLOSED, Event.TRIPPED): State.OPEN,
    (State.OPEN, Event.COOLED): State.HALF_OPEN,
    (State.HALF_OPEN, Event.PROBE_FAILED): State.OPEN,
    (State.HALF_OPEN, Event.RECOVERED): State.CLOSED,
}


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """``failure_rate`` of at least ``min_outcomes`` among the latest ``window`` opens.

    Outcomes older than ``span_s`` do not count. So many ``probes`` pass at a time while half-open,
    and so many have to succeed.
    """

    window: int = 20
    min_outcomes: int = 10
    span_s: float = 30.0
    failure_rate: float = 0.5
    cool_down_s: float = 1.0
    max_cool_down_s: float = 30.0
    probes: int = 2


@dataclass(frozen=True, slots=True)
class Pass:
    """Leave to ask once; ``generation`` is the breaker's state at that time."""

    generation: int
    number: int


@dataclass(frozen=True, slots=True)
class Change:
    """A breaker's new state, and why; ``cool_down_s`` is how long it stays open at least."""

    key: str
    state: State
    why: str
    cool_down_s: float = 0.0


class Breaker:
    """One breaker; ``on_change`` hears of every change of state, once."""

    def __init__(
        self,
        key: str = "",
        settings: BreakerSettings | None = None,
        on_change: Callable[[Change], None] | None = None,
    ) -> None:
        self._key, self._on_change = key, on_change
        self._settings = settings or BreakerSettings()
        self._state = State.CLOSED
        self._generation = self._number = self._num_good = 0
        self._outcomes: deque[tuple[float, bool]] = deque(maxlen=self._settings.window)
        self._probes: set[int] = set()
        self._cool_down_s = 0.0
        self._changed_s = float("-inf")

    @property
    def state(self) -> State:
        """As of the last call that passed the time in."""
        return self._state

    def lets_pass(self, now_s: float) -> bool:
        """Whether a request may pass now; takes no place."""
        if self._state is State.OPEN and now_s - self._changed_s >= self._cool_down_s:
            self._change(Event.COOLED, now_s, "the cool-down is over")
        if self._state is State.HALF_OPEN:
            return len(self._probes) < self._settings.probes
        return self._state is State.CLOSED

    def enter(self, now_s: float) -> Pass | None:
        """Lets a request pass, or not; whoever passes has to ``leave``."""
        if not self.lets_pass(now_s):
            return None
        self._number += 1
        if self._state is State.HALF_OPEN:
            self._probes.add(self._number)
        return Pass(self._generation, self._number)

    def leave(self, passed: Pass, now_s: float, *, succeeded: bool | None) -> None:
        """How it went; None where that says nothing. Only the first call for a pass counts."""
        if passed.generation != self._generation:
            return
        if self._state is State.HALF_OPEN:
            self._leave_probe(passed, now_s, succeeded=succeeded)
        elif succeeded is not None:
            self._outcomes.append((now_s, succeeded))
            if not succeeded:
                self._judge(now_s)

    def trip(self, now_s: float, why: str) -> None:
        """Opens for a reason of its own; a breaker that is not closed stays as it is."""
        if self._state is State.CLOSED:
            self._change(Event.TRIPPED, now_s, why)

    def _leave_probe(self, passed: Pass, now_s: float, *, succeeded: bool | None) -> None:
        if passed.number not in self._probes:
            return
        self._probes.remove(passed.number)
        if succeeded is None:
            return
        if not succeeded:
            self._change(Event.PROBE_FAILED, now_s, "a probe failed")
            return
        self._num_good += 1
        if self._num_good >= self._settings.probes:
            self._change(Event.RECOVERED, now_s, "probes succeeded")

    def _judge(self, now_s: float) -> None:
        while self._outcomes[0][0] < now_s - self._settings.span_s:
            self._outcomes.popleft()
        num, num_failed = len(self._outcomes), sum(not good for _, good in self._outcomes)
        enough = num >= self._settings.min_outcomes
        if enough and num_failed >= self._settings.failure_rate * num:
            self.trip(now_s, f"{num_failed} of the latest {num} failed")

    def _change(self, event: Event, now_s: float, why: str) -> None:
        if event is Event.TRIPPED and now_s - self._changed_s >= self._settings.max_cool_down_s:
            self._cool_down_s = 0.0
        self._state = TRANSITIONS[self._state, event]
        if self._state is State.OPEN:
            self._cool_down_s = min(
                self._settings.max_cool_down_s,
                max(self._settings.cool_down_s, 2 * self._cool_down_s),
            )
        self._changed_s = now_s
        self._generation += 1
        self._num_good = 0
        self._outcomes.clear()
        self._probes.clear()
        if self._on_change is not None:
            waits_s = self._cool_down_s if self._state is State.OPEN else 0.0
            self._on_change(Change(self._key, self._state, why, waits_s))
