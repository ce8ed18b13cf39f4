"""Versions that only go up: of models, and of the signed metadata that speaks of them.

A floor outlives restarts because it is part of the commit record. Floors of metadata close what is
left open where files of a verified refresh are lost with the power, or put back by somebody: older
statements that are signed as well as newer ones (The Update Framework, specification, 1.5.2).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from msgspec.structs import replace

from runtime.core.activation import Refusal
from runtime.core.releases import MAX_NAMES, MAX_NUMBER, Record, Slot
from runtime.errors import ReleaseError

ROOT = "root"


def raise_floor(record: Record, model: str, version: int) -> Record:
    """Nothing of the model below ``version`` is installed from now on; a lower one changes nothing.

    A trial below it ends, and so does what is wanted. What serves goes on serving.

    Raises:
        ReleaseError: not a version, or too many models.
    """
    if not 0 <= version <= MAX_NUMBER:
        raise ReleaseError(f"{version} is no version of {model}", because=Refusal.BELOW_FLOOR)
    if version <= record.floors.get(model, 0):
        return record
    floors = _with_bounded(record.floors, {model: version})
    slots = {name: _above(slot, model, version) for name, slot in record.slots.items()}
    return replace(record, floors=floors, slots=slots)


def raise_metadata_floors(
    record: Record, versions: Mapping[str, int], *, reset: Collection[str] = ()
) -> Record:
    """Metadata of these versions was verified: nothing older is believed from now on.

    Args:
        record: as committed.
        versions: by role: root, timestamp, snapshot, targets and delegated ones.
        reset: roles whose keys were exchanged by the new root, which may begin anew. That is the
            way out after a thief of a key has published a huge version.

    Raises:
        ReleaseError: a version is below its floor, or a reset without a newer root. Nothing
            of it was taken over.
    """
    floors = record.metadata_floors
    is_new_root = versions.get(ROOT, 0) > floors.get(ROOT, 0)
    if reset and (not is_new_root or ROOT in reset):
        raise ReleaseError(
            f"floors of {', '.join(sorted(reset))} are reset only by a newer root, and root never",
            because=Refusal.METADATA_ROLLBACK,
        )
    for role, version in sorted(versions.items()):
        floor = 0 if role in reset else floors.get(role, 0)
        if not floor <= version <= MAX_NUMBER:
            raise ReleaseError(
                f"{role} metadata has version {version}, and {floor} was verified before: somebody "
                "serves old metadata; ask another mirror",
                because=Refusal.METADATA_ROLLBACK,
            )
    return replace(record, metadata_floors=_with_bounded(floors, dict(versions)))


def _above(slot: Slot, model: str, version: int) -> Slot:
    trial, wanted = slot.trial, slot.wanted
    if trial and trial.release.model == model and trial.release.version < version:
        slot = replace(slot, trial=None)
    if wanted and wanted.model == model and wanted.version < version:
        slot = replace(slot, wanted=None)
    return slot


def _with_bounded(floors: dict[str, int], more: dict[str, int]) -> dict[str, int]:
    floors = floors | more
    if len(floors) > MAX_NAMES:
        raise ReleaseError(
            f"floors of {len(floors)} names; at most {MAX_NAMES} are kept",
            because=Refusal.TOO_MANY,
        )
    return floors
