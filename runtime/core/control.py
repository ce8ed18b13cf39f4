"""What operators have said: which control state counts, and what its stops mean for a process.

Rules of this file:
  * every region has a state of its own; of two states of a region the later one counts, in
    whatever order, and however often, they arrive;
  * two operators may take the same sequence: then the greater encoding counts, everywhere;
  * a process is stopped when any state that reaches it says so: a narrower stop takes nothing back
    from a wider one, and ``stop`` counts more than ``fallback``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from runtime.control_state import ControlState, Override, Stop, StopMode, StopScope

# The instant that a Stop may have: what a date can be made of.
_MAX_WALL_S = 253_402_300_799.0
_SCOPES = tuple(StopScope)
Known = Mapping[str, ControlState]


@dataclass(frozen=True, slots=True)
class Subject:
    """A process, as stops name it."""

    region: str
    site: str
    model: str
    model_version: str


def is_usable(state: ControlState) -> bool:
    """Whether everything says what it is about, and when; of a state that could be decoded."""
    said: tuple[Stop | Override, ...] = (*state.stops, *state.overrides)
    ids = [one.id for one in state.overrides]
    return len(set(ids)) == len(ids) and all(
        (one.scope is StopScope.ALL) == (not one.target) and 0 <= one.wall_s <= _MAX_WALL_S
        for one in said
    )


def supersedes(state: ControlState, other: ControlState | None) -> bool:
    """Whether a state of a region counts more than another one of it."""
    if other is None or state.sequence != other.sequence:
        return other is None or state.sequence > other.sequence
    return msgspec.json.encode(state) > msgspec.json.encode(other)


def apply(known: Known, state: ControlState) -> Known:
    """What is known with one more state; the very same when that one changes nothing."""
    if not supersedes(state, known.get(state.region)):
        return known
    return {**known, state.region: state}


def verdict(known: Known, subject: Subject) -> Stop | None:
    """The stop that counts for a process: a ``stop`` before a fallback, then the widest."""
    found = [stop for stop in _stops(known) if concerns(stop, subject)]
    return min(found, key=_rank, default=None)


def concerns(stop: Stop, subject: Subject) -> bool:
    """Whether a stop is about this process."""
    return reaches(stop.scope, stop.target, subject)


def reaches(scope: StopScope, target: str, subject: Subject) -> bool:
    """Whether what has this scope and target is about this process."""
    names = {
        StopScope.ALL: ("",),
        StopScope.REGION: (subject.region,),
        StopScope.MODEL: (subject.model, f"{subject.model}@{subject.model_version}"),
        StopScope.DEVICE: (subject.site, f"{subject.region}/{subject.site}"),
    }
    return target in names[scope]


def stops_asker(known: Known, region: str, asker: str) -> Stop | None:
    """The ``stop`` that is about whoever asks; a process that does not obey finds nobody."""
    found = [
        stop
        for stop in _stops(known)
        if stop.scope is StopScope.DEVICE
        and stop.mode is StopMode.STOP
        and stop.target in (asker, f"{region}/{asker}")
    ]
    return min(found, key=_rank, default=None)


def _stops(known: Known) -> Iterable[Stop]:
    return (stop for region in sorted(known) for stop in known[region].stops)


def _rank(stop: Stop) -> tuple[bool, int, float]:
    return stop.mode is not StopMode.STOP, _SCOPES.index(stop.scope), stop.wall_s


def with_stop(
    state: ControlState | None, region: str, stop: Stop, *, sequence: int
) -> ControlState:
    """A region's state with one more stop, in place of one with the same scope and target."""
    kept = () if state is None else _others(state, stop.scope, stop.target)
    overrides = () if state is None else state.overrides
    return ControlState(
        region, sequence, (*kept, stop), by=stop.by, why=stop.why, overrides=overrides
    )


def without_stops(
    state: ControlState, stops: Iterable[Stop], *, sequence: int, by: str, why: str
) -> ControlState:
    """A region's state without some of its stops."""
    gone = tuple(stops)
    kept = tuple(stop for stop in state.stops if stop not in gone)
    return ControlState(state.region, sequence, kept, by=by, why=why, overrides=state.overrides)


def _others(state: ControlState, scope: StopScope, target: str) -> tuple[Stop, ...]:
    return tuple(stop for stop in state.stops if (stop.scope, stop.target) != (scope, target))


def next_sequence(state: ControlState | None, wall_s: float) -> int:
    """A sequence above that of the last state.

    The wall clock is the lower bound, so that a broker that has lost what it retained does not
    send the sequence back below what devices have latched.
    """
    return max(1 if state is None else state.sequence + 1, int(wall_s * 1000))


def told(stop: Stop) -> str:
    """A stop in words: what, by whom, since when and why."""
    what = stop.scope.value if not stop.target else f"{stop.scope.value} {stop.target}"
    return told_of(f"{stop.mode.value} of {what}", stop.by, stop.wall_s, stop.why)


def told_of(what: str, by: str, wall_s: float, why: str) -> str:
    """What somebody has done, in words; nothing in them is more than text."""
    since = datetime.fromtimestamp(wall_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"{_shown(what)} by {_shown(by)} since {since}: {_shown(why)}"


def _shown(text: str) -> str:
    return "".join(one if one.isprintable() else "?" for one in text)
