"""Two releases side by side on one device: which of them a request goes to, and the record of it.

Rules of this file:
  * the arm depends on experiment, key and share alone, whoever asks; raising the share only brings
    keys to the new release, and experiments are independent of one another. Who wants devices to be
    so, too, gives each a name of its own for the experiment;
  * the key is what the caller says in the request's context. A request without it is answered by
    what serves and is in no arm: hashed by anything else it would change arms with every repetition
    of the same question, and its kind of caller would be in one arm only by accident;
  * a request that names a version is answered by that version, and is in no arm either: its caller
    has chosen, and not the hash;
  * what serves never becomes the new release by a split: only a trial, after it or instead of it,
    leads there.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from msgspec.structs import replace

from runtime.core.activation import Refusal, assign, with_slot
from runtime.core.cohorts import draw
from runtime.core.obeying import answering
from runtime.core.releases import Record, Release, Split, Trial
from runtime.errors import ReleaseError


class Arm(enum.StrEnum):
    """Where a request goes: those in no arm are answered by what serves, or whom they name."""

    CONTROL = "control"
    TREATMENT = "treatment"
    UNKEYED = "unkeyed"
    NAMED = "named"


def arm_of(experiment: str, key: str, share: float) -> bool:
    """Whether the key is in the arm of the new release, which has ``share`` of all keys."""
    return draw("split", experiment, key) < share


def key_in(context: Mapping[str, str | float | bool], split_by: str) -> str:
    """The key of a request as text; empty where it has none.

    A number and the text that looks the same are one key: transports differ in what they send.
    """
    value = context.get(split_by, "")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float | int):
        # Every double that is whole and short of 2**63 is written without its ".0".
        return str(int(value)) if value == int(value) and abs(value) < 2**63 else repr(value)
    return value


def arm_for(split: Split, context: Mapping[str, str | float | bool]) -> Arm:
    """The arm of a request that names no version."""
    key = key_in(context, split.split_by)
    if not key:
        return Arm.UNKEYED
    is_new = arm_of(split.experiment, key, split.share)
    return Arm.TREATMENT if is_new else Arm.CONTROL


def check_may_split(record: Record, name: str, release: Release) -> None:
    """Refuses a split that would compare nothing, or with something that may not stay.

    Raises:
        ReleaseError: another release is on probation, or this one serves.
    """
    slot = record.slot(name)
    what = f"{release.model} version {release.version}"
    if slot.trial is not None:
        raise ReleaseError(
            f"{what} cannot answer a share: version {slot.trial.release.version} is on probation, "
            "and what a share is compared with has to stay; assign it again when that is over",
            because=Refusal.BUSY,
        )
    serves = answering(slot)
    if serves is not None and serves.name == release.name:
        raise ReleaseError(
            f"{what} serves already: a share of the requests is not to be had beside itself",
            because=Refusal.SERVES,
        )


def divide(
    record: Record, name: str, split: Split, *, seq: int, clears_bad: bool = False
) -> Record:
    """Lets a release whose files are all there answer its share, in place of any split before.

    One of the same release keeps its generation, and the attempts that it has had: only who gets it
    changes. Takes the assignment over where ``assign`` has not. The generation and attempts of
    ``split`` itself are not looked at.

    Raises:
        ReleaseError: as ``assign`` and ``check_may_split``.
    """
    release = split.release
    check_may_split(record, name, release)
    record = assign(record, name, release, seq=seq, clears_bad=clears_bad)
    slot = record.slot(name)
    generation = slot.generation + 1
    trial = Trial(generation, release)
    if slot.split is not None:
        generation, trial = slot.generation, slot.split.trial
    after = replace(slot, generation=generation, split=replace(split, trial=trial), wanted=None)
    return with_slot(record, name, after)


def unite(record: Record, name: str) -> Record:
    """Ends a split; its release is none the worse for it."""
    slot = record.slot(name)
    return record if slot.split is None else with_slot(record, name, replace(slot, split=None))
