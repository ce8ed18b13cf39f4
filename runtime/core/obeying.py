"""What an assignment, or somebody at the device, does to the record without a new release.

Rules of this file:
  * each is one transition of the record, so that it has happened as a whole or not at all, and its
    number is on record with it;
  * a number at or below that of the slot is a replay; whoever repeats one is not asked again;
  * going back leads to what was there before, never further than one step;
  * what answers is ``answering``; a trial is not what answers for good.
"""

from __future__ import annotations

import enum

from msgspec.structs import replace

from runtime.core.activation import Refusal, given_up, roll_back, with_slot
from runtime.core.releases import MAX_NUMBER, Fault, Record, Release, Slot
from runtime.errors import ReleaseError


class Standing(enum.StrEnum):
    """What has become of the release that was assigned last."""

    NOTHING = "nothing"
    WANTED = "wanted"
    TRIAL = "trial"
    SPLIT = "split"
    CURRENT = "current"
    GIVEN_UP = "given_up"


def answering(slot: Slot) -> Release | None:
    """What answers where nothing is on trial; None where the slot has never had anything."""
    return slot.current or slot.previous or slot.factory


def standing(slot: Slot) -> Standing:
    """How far the latest assignment came, as far as the record knows."""
    if slot.assigned is None:
        return Standing.NOTHING
    places = (
        (Standing.WANTED, slot.wanted),
        (Standing.TRIAL, slot.trial.release if slot.trial else None),
        (Standing.SPLIT, slot.split.release if slot.split else None),
        (Standing.CURRENT, slot.current),
    )
    for place, release in places:
        if release is not None and release.name == slot.assigned:
            return place
    if any(one.manifest_sha256 == slot.assigned for one in slot.bad):
        return Standing.GIVEN_UP
    return Standing.NOTHING


def is_new(slot: Slot, *, seq: int, heard_seq: int) -> bool:
    """Whether an assignment is newer than all before it; else it is a repetition of the latest.

    ``heard_seq`` is the highest number that this process has heard, which may not be on record.

    Raises:
        ReleaseError: it is older, a replay.
    """
    latest = max(slot.seq, heard_seq)
    if seq < latest:
        raise ReleaseError(
            f"assignment {seq} is a replay: number {latest} was heard before",
            because=Refusal.REPLAYED,
        )
    return seq > latest


def withdraw(record: Record, name: str, seq: int) -> Record:
    """Forgets what was assigned and does not serve yet: a split ends, a trial goes on.

    Raises:
        ReleaseError: replayed.
    """
    slot = _numbered(record.slot(name), seq)
    return with_slot(record, name, replace(slot, wanted=None, split=None))


def go_back(record: Record, name: str, *, seq: int, to: str = "") -> Record:
    """Goes back to what served before the last assignment.

    Args:
        record: as committed.
        name: of the slot.
        seq: the number of the assignment that says so.
        to: the digest of the release that is to answer then; empty: whatever that is. Where it
            answers already, nothing but the number changes.

    Raises:
        ReleaseError: replayed, or there is no such way back.
    """
    slot = _numbered(record.slot(name), seq)
    probation = slot.trial or slot.split
    if probation is not None:
        slot = given_up(replace(slot, wanted=None), probation.release, Fault.OPERATOR)
        return with_slot(record, name, slot)
    serves = answering(slot)
    never_served = slot.assigned is not None and (serves is None or serves.name != slot.assigned)
    if serves is not None and (serves.name == to or (not to and never_served)):
        return with_slot(record, name, replace(slot, wanted=None))
    after = roll_back(with_slot(record, name, replace(slot, wanted=None)), name, Fault.OPERATOR)
    left = answering(after.slot(name))
    if to and (left is None or left.name != to):
        raise ReleaseError(
            f"{to[:12]} is not what {name!r} had before; assign it anew",
            because=Refusal.NO_WAY_BACK,
        )
    return after


def take_back(record: Record, name: str) -> Record:
    """Somebody at the device goes back: from what is wanted or on trial, else from what serves.

    Raises:
        ReleaseError: nothing is there to go back to.
    """
    wanted = record.slot(name).wanted
    if wanted is not None:
        record = give_up(record, name, wanted, Fault.OPERATOR)
        if record.slot(name).trial is None:
            return record
    return roll_back(record, name, Fault.OPERATOR)


def give_up(record: Record, name: str, release: Release, fault: Fault) -> Record:
    """The release is bad on this device, wherever in the slot it is; the factory's stays."""
    slot = record.slot(name)
    if slot.wanted is not None and slot.wanted.name == release.name:
        slot = replace(slot, wanted=None)
    return with_slot(record, name, given_up(slot, release, fault))


def _numbered(slot: Slot, seq: int) -> Slot:
    if not slot.seq < seq <= MAX_NUMBER:
        raise ReleaseError(
            f"assignment {seq} is a replay: number {slot.seq} was accepted before",
            because=Refusal.REPLAYED,
        )
    return replace(slot, seq=seq)
