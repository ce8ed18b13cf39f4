"""What a process that starts is to load, and what has to be on record before it does.

Rules of this file:
  * only a release whose files are all there, and are what they should be, is selected;
  * what would be loaded is counted first: an attempt of a trial, a start of anything else;
  * a confirmed release that was restarted three times within ten minutes is rolled back, unless it
    is the only one: the rule is for crashes, so an end on purpose, or a run that lasts, clears the
    count (``stopped_cleanly``, ``ran_well``);
  * a release that answers a share of the requests is loaded beside what serves, and an end of the
    process is put down to it, not to what served before it.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Collection
from dataclasses import dataclass

from msgspec.structs import replace

from runtime.core.activation import attempted, given_up, split_attempted, with_slot
from runtime.core.releases import Bad, Fault, Record, Release, Slot, Split, Starts

# So many restarts of a confirmed release within that time, and it is rolled back.
MAX_RESTARTS = 3
CRASH_WINDOW_S = 600.0


class Origin(enum.StrEnum):
    """Which of a slot's releases was selected."""

    TRIAL = "trial"
    CURRENT = "current"
    PREVIOUS = "previous"
    FACTORY = "factory"


@dataclass(frozen=True, slots=True)
class Selection:
    """What to load, and the record to commit before that is begun.

    ``release`` and ``origin`` are None where nothing can be loaded. ``generation`` is the trial's,
    None for anything else. ``split`` is to be loaded beside it. ``given_up`` are releases that
    became bad in this selection.
    """

    record: Record
    release: Release | None = None
    origin: Origin | None = None
    generation: int | None = None
    given_up: tuple[Bad, ...] = ()
    is_below_floor: bool = False
    split: Split | None = None


def select_at_start(
    record: Record, name: str, available: Collection[str], now_s: float
) -> Selection:
    """What a process that starts loads: trial, else current, else previous, else factory.

    A trial without its files, or after three attempts, is given up first; so is a confirmed release
    that was restarted three times within ten minutes, if there is another one. What is at or above
    its floor comes before what is not.

    Args:
        record: as committed.
        name: of the slot.
        available: digests of blobs that are there and are what they should be.
        now_s: of a clock that is comparable over restarts.

    Raises:
        ValueError: ``now_s`` is not finite.
    """
    if not math.isfinite(now_s):
        raise ValueError(f"now_s must be finite, not {now_s}")
    before = slot = record.slot(name)
    if slot.trial is not None:
        tried = slot.trial.release
        is_whole = set(available).issuperset(tried.blobs)
        slot = attempted(slot, slot.trial) if is_whole else given_up(slot, tried, Fault.FILES_LOST)
    if slot.trial is not None:
        counted = with_slot(record, name, slot)
        return Selection(counted, slot.trial.release, Origin.TRIAL, slot.trial.generation)
    if slot.split is not None:
        split = slot.split.release
        is_whole = set(available).issuperset(split.blobs)
        slot = (
            split_attempted(slot, slot.split)
            if is_whole
            else given_up(slot, split, Fault.FILES_LOST)
        )
    ranked = _ranked(slot, record.floors, available)
    while slot.split is None and len(ranked) > 1 and _is_looping(slot.starts, ranked[0][1], now_s):
        origin, looping = ranked.pop(0)
        if origin is not Origin.FACTORY:
            slot = given_up(slot, looping, Fault.CRASH_LOOP)
    bad = tuple(one for one in slot.bad if one not in before.bad)
    if not ranked:
        after = with_slot(record, name, slot) if slot != before else record
        return Selection(after, given_up=bad, split=slot.split)
    origin, release = ranked[0]
    if slot.split is None:
        at_s = _recent(slot.starts, release, now_s)[1 - MAX_RESTARTS :]
        slot = replace(slot, starts=Starts(release.name, (*at_s, now_s)))
    return Selection(
        with_slot(record, name, slot),
        release,
        origin,
        given_up=bad,
        is_below_floor=release.version < record.floors.get(release.model, 0),
        split=slot.split,
    )


def _ranked(
    slot: Slot, floors: dict[str, int], available: Collection[str]
) -> list[tuple[Origin, Release]]:
    places = (
        (Origin.CURRENT, slot.current),
        (Origin.PREVIOUS, slot.previous),
        (Origin.FACTORY, slot.factory),
    )
    whole = [
        (origin, release)
        for origin, release in places
        if release is not None and set(available).issuperset(release.blobs)
    ]
    return sorted(whole, key=lambda one: one[1].version < floors.get(one[1].model, 0))


def _recent(starts: Starts | None, release: Release, now_s: float) -> tuple[float, ...]:
    """Its starts in the crash window; a clock that was set back or on makes it forget some."""
    if starts is None or starts.manifest_sha256 != release.name:
        return ()
    return tuple(at_s for at_s in starts.at_s if abs(now_s - at_s) <= CRASH_WINDOW_S)


def _is_looping(starts: Starts | None, release: Release, now_s: float) -> bool:
    return len(_recent(starts, release, now_s)) >= MAX_RESTARTS
