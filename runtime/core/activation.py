"""What becomes of a release on a device: the transitions of the one commit record.

Rules of this file:
  * every function takes a record and returns the next one; nothing counts before the caller has
    committed that, durably;
  * ``current`` stays as it is while a trial is on probation; only ``confirm`` replaces it;
  * an attempt is counted before the load, so that a load which kills the process counts, too; after
    three of them a trial is given up;
  * a release that was given up is loaded no more, and is not taken again unless a newer assignment
    says so;
  * assignments are numbered upwards; the same number with the same release is a repetition, which a
    retained message makes all the time; any other is a replay;
  * a floor stops what would be installed. It never stops what serves: where nothing at or above it
    is left, what is below it is loaded, and the caller is told.

    assign -> wanted -- stage --> trial -- confirm --> current -- next confirm --> previous
                                    `-- fail --> bad <-- roll_back --'
"""

from __future__ import annotations

import enum

from msgspec.structs import replace

from runtime.core.releases import (
    MAX_BAD,
    MAX_NUMBER,
    MAX_SLOTS,
    Bad,
    Fault,
    Record,
    Release,
    Slot,
    Split,
    Starts,
    Trial,
)
from runtime.errors import ReleaseError

MAX_ATTEMPTS = 3


class Refusal(enum.StrEnum):
    """Why a change of the record was refused: ``ReleaseError.because``."""

    BELOW_FLOOR = "below_floor"
    REPLAYED = "replayed"
    BAD = "bad"
    STALE = "stale"
    NO_WAY_BACK = "no_way_back"
    METADATA_ROLLBACK = "metadata_rollback"
    TOO_FAR_AHEAD = "too_far_ahead"
    TOO_MANY = "too_many"
    BUSY = "busy"
    SERVES = "serves"


def assign(
    record: Record, name: str, release: Release, *, seq: int, clears_bad: bool = False
) -> Record:
    """Takes over an assignment, so that its files are kept while they are fetched.

    A trial of another release goes on until ``stage``; it ends here if ``current`` was assigned. A
    split with another release ends here: the latest assignment says all that a device is to do.

    Args:
        record: as committed.
        name: of the slot.
        release: what the slot should run.
        seq: the number of the assignment.
        clears_bad: the assignment says to try it again although it was given up here.

    Raises:
        ReleaseError: below the model's floor, replayed, bad, or too many slots.
    """
    slot = record.slot(name)
    floor = record.floors.get(release.model, 0)
    what = f"{release.model} version {release.version}"
    if release.version < floor:
        raise ReleaseError(
            f"{what} is below the floor {floor} of {release.model}: assign version {floor} or "
            "a later one",
            because=Refusal.BELOW_FLOOR,
        )
    is_repeated = seq == slot.seq and slot.assigned == release.name
    if not is_repeated and not slot.seq < seq <= MAX_NUMBER:
        raise ReleaseError(
            f"assignment {seq} of {what} to {name!r} is a replay: number {slot.seq} was accepted "
            "before; a new one needs a higher number",
            because=Refusal.REPLAYED,
        )
    if slot.is_bad(release) and (is_repeated or not clears_bad):
        fault = next(one.fault for one in slot.bad if one.manifest_sha256 == release.name)
        raise ReleaseError(
            f"{what} was given up on this device ({fault}); it is taken again only by a newer "
            "assignment that clears it",
            because=Refusal.BAD,
        )
    if name not in record.slots and len(record.slots) >= MAX_SLOTS:
        raise ReleaseError(
            f"there are {MAX_SLOTS} slots already; {name!r} would be one more",
            because=Refusal.TOO_MANY,
        )
    is_current = slot.current is not None and slot.current.name == release.name
    is_trial = slot.trial is not None and slot.trial.release.name == release.name
    is_split = slot.split is not None and slot.split.release.name == release.name
    return with_slot(
        record,
        name,
        replace(
            slot,
            seq=seq,
            assigned=release.name,
            wanted=None if is_current or is_trial else release,
            trial=None if is_current else slot.trial,
            split=slot.split if is_split else None,
            bad=tuple(one for one in slot.bad if one.manifest_sha256 != release.name),
        ),
    )


def stage(
    record: Record, name: str, candidate: Release, *, seq: int, clears_bad: bool = False
) -> Record:
    """Puts a release whose files are all there on trial, in place of a trial or split before it.

    What is on trial or confirmed already stays what it is. Takes the assignment over where
    ``assign`` has not.

    Raises:
        ReleaseError: as ``assign``.
    """
    record = assign(record, name, candidate, seq=seq, clears_bad=clears_bad)
    slot = record.slot(name)
    if slot.wanted is None:
        return record
    generation = slot.generation + 1
    trial = Trial(generation, candidate)
    after = replace(slot, generation=generation, trial=trial, wanted=None, split=None)
    return with_slot(record, name, after)


def begin_attempt(record: Record, name: str) -> Record:
    """Counts one more load of the trial; without a trial afterwards, it has had its attempts.

    Raises:
        ReleaseError: there is no trial.
    """
    slot = record.slot(name)
    if slot.trial is None:
        raise ReleaseError(f"nothing is on trial in {name!r}", because=Refusal.STALE)
    return with_slot(record, name, attempted(slot, slot.trial))


def confirm(record: Record, name: str, generation: int) -> Record:
    """The trial is healthy: it becomes current, and what served before it becomes previous.

    Raises:
        ReleaseError: that trial is over.
    """
    slot, trial = record.slot(name), _trial(record, name, generation)
    # Where current was damaged, previous has served in its place and is what can be gone back to.
    served = slot.current
    if slot.previous and slot.starts and slot.starts.manifest_sha256 == slot.previous.name:
        served = slot.previous
    if served is not None and served.name == trial.release.name:
        served = slot.current
    return with_slot(
        record,
        name,
        replace(
            slot,
            current=trial.release,
            previous=served,
            trial=None,
            starts=Starts(trial.release.name),
        ),
    )


def fail(record: Record, name: str, generation: int, fault: Fault) -> Record:
    """The trial is given up; what served before goes on.

    Raises:
        ReleaseError: that trial is over.
    """
    trial = _trial(record, name, generation)
    return with_slot(record, name, given_up(record.slot(name), trial.release, fault))


def roll_back(record: Record, name: str, fault: Fault) -> Record:
    """Goes back from what is in use: trial or split, else from current to previous, else factory.

    Raises:
        ReleaseError: nothing is there to go back to.
    """
    slot = record.slot(name)
    if slot.trial is not None:
        return with_slot(record, name, given_up(slot, slot.trial.release, fault))
    if slot.split is not None:
        return with_slot(record, name, given_up(slot, slot.split.release, fault))
    others = [one for one in (slot.previous, slot.factory) if one is not None]
    if slot.current is None or all(one.name == slot.current.name for one in others):
        raise ReleaseError(
            f"{name!r} has nothing to go back to: assign another version",
            because=Refusal.NO_WAY_BACK,
        )
    return with_slot(record, name, given_up(slot, slot.current, fault))


def ran_well(record: Record, name: str) -> Record:
    """What serves has run for the crash window, so that earlier restarts count no more."""
    slot = record.slot(name)
    if slot.split is not None and slot.split.trial.attempts:
        # A split may last for weeks, in which a device loses its power more than once.
        slot = _with_attempts(slot, slot.split, 0)
        record = with_slot(record, name, slot)
    if slot.starts is None or not slot.starts.at_s:
        return record
    return with_slot(record, name, replace(slot, starts=replace(slot.starts, at_s=())))


def stopped_cleanly(record: Record, name: str) -> Record:
    """The process ends on purpose: that is neither a crash nor a failed attempt."""
    record = ran_well(record, name)
    slot = record.slot(name)
    if slot.trial is None or not slot.trial.attempts:
        return record
    trial = replace(slot.trial, attempts=slot.trial.attempts - 1)
    return with_slot(record, name, replace(slot, trial=trial))


def set_factory(record: Record, name: str, release: Release) -> Record:
    """What came with the package and is the last resort; no floor and no fault rules it out."""
    return with_slot(record, name, replace(record.slot(name), factory=release))


def with_slot(record: Record, name: str, slot: Slot) -> Record:
    """The record with this in place of the slot of that name."""
    return replace(record, slots=record.slots | {name: slot})


def split_attempted(slot: Slot, split: Split) -> Slot:
    """The slot with one more attempt of its split, or without the split."""
    if split.trial.attempts >= MAX_ATTEMPTS:
        return given_up(slot, split.release, Fault.ATTEMPTS)
    return _with_attempts(slot, split, split.trial.attempts + 1)


def _with_attempts(slot: Slot, split: Split, attempts: int) -> Slot:
    return replace(slot, split=replace(split, trial=replace(split.trial, attempts=attempts)))


def _trial(record: Record, name: str, generation: int) -> Trial:
    trial = record.slot(name).trial
    if trial is None or trial.generation != generation:
        raise ReleaseError(
            f"trial {generation} of {name!r} is over; its verdict changes nothing",
            because=Refusal.STALE,
        )
    return trial


def attempted(slot: Slot, trial: Trial) -> Slot:
    """The slot with one more attempt of its trial, or without the trial."""
    if trial.attempts >= MAX_ATTEMPTS:
        return given_up(slot, trial.release, Fault.ATTEMPTS)
    return replace(slot, trial=replace(trial, attempts=trial.attempts + 1))


def given_up(slot: Slot, release: Release, fault: Fault) -> Slot:
    """The slot without the release, in any place but that of the last resort."""
    bad = Bad(release.name, release.model, release.version, fault, slot.seq)
    trial, current, previous = slot.trial, slot.current, slot.previous
    split, wanted = slot.split, slot.wanted
    if wanted and wanted.name == release.name:
        # Assigned anew while it answered a share.
        wanted = None
    if split and split.release.name == release.name:
        split = None
    if trial and trial.release.name == release.name:
        trial = None
    if previous and previous.name == release.name:
        previous = None
    if current and current.name == release.name:
        current, previous = previous, None
    others = tuple(one for one in slot.bad if one.manifest_sha256 != release.name)
    return replace(
        slot,
        trial=trial,
        split=split,
        wanted=wanted,
        current=current,
        previous=previous,
        bad=(*others, bad)[-MAX_BAD:],
    )
