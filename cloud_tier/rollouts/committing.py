"""How one step of a rollout is stored: its state, its audit and its numbers together."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

import msgspec

from cloud_tier.rollouts.assigning import Told, assignment_of, what_to_do
from runtime.assignments import encode
from runtime.catalogue import CatalogueEntry
from runtime.core.rollout_events import AnyAction, AskOperator, Audit
from runtime.core.rollout_states import ACTIVE, Phase, Rollout
from runtime.errors import RolloutConflictError

# Said by the controller about something that only a person decides.
ASKS = "asks"
# Steps of one device whose numbers are remembered.
_MAX_TOLD = 32
# Those that have not begun are changed by people alone.
_RESTING = (Phase.DRAFT, Phase.APPROVED, Phase.SUPERSEDED)


class Kept(NamedTuple):
    """A rollout as it is stored; ``entry`` is what it brings to devices.

    One that ``is_closed`` is for the devices of its plan: nobody joins later.
    """

    rollout: Rollout
    entry: CatalogueEntry
    created_s: float
    by: str
    why: str
    clears_bad: bool = False
    is_closed: bool = False

    @property
    def digests(self) -> frozenset[str]:
        """Manifests of all its variants: a device that serves one of them serves the version."""
        return frozenset(self.entry.release(one).name for one in self.entry.variants)


class AuditRow(NamedTuple):
    """One line of the audit; ``device`` is empty where it is about the rollout."""

    seq: int
    rollout: str
    device: str
    at_s: float
    who: str
    why: str
    was: str
    now: str


class Change(NamedTuple):
    """What a rollout was, with everything known of it, what it is now, and what is to be done."""

    kept: Kept
    after: Rollout
    actions: tuple[AnyAction, ...]


def is_live(rollout: Rollout) -> bool:
    """Whether devices' words are for it; one that was aborted before it began has none."""
    return rollout.phase not in _RESTING and (bool(rollout.devices) or rollout.phase in ACTIVE)


def check_holder(connection: sqlite3.Connection, holder: str) -> None:
    """Whether ``holder`` may change rollouts.

    Raises:
        RolloutConflictError: another one does.
    """
    row = connection.execute("SELECT name FROM holder").fetchone()
    if row is None or row[0] != holder:
        raise RolloutConflictError(
            f"the controller {row[0] if row else 'nobody'!r} holds these rollouts, not "
            f"{holder!r}: ask that one, or start this one again to take over"
        )


def commit(connection: sqlite3.Connection, holder: str, change: Change, now_s: float) -> None:
    """Stores a step within a transaction.

    Raises:
        RolloutConflictError: it is not any more what it was, or another controller has it.
    """
    before, after = change.kept.rollout, change.after
    check_holder(connection, holder)
    changed = connection.execute(
        "UPDATE rollouts SET revision = ?, is_live = ?, body = ? WHERE id = ? AND revision = ?",
        (
            after.revision,
            is_live(after),
            msgspec.json.encode(after),
            after.id,
            before.revision,
        ),
    )
    if not changed.rowcount:
        raise RolloutConflictError(
            f"{after.id} was changed by somebody else meanwhile: look at it, and ask again"
        )
    for action in change.actions:
        if isinstance(action, Audit):
            row = (after.id, action.device, action.at_s, action.who, action.why)
            note(connection, (*row, action.was, action.now))
        elif isinstance(action, AskOperator):
            note(connection, (after.id, "", now_s, f"controller:{holder}", action.why, "", ASKS))
        elif isinstance(action, Told):
            _tell(connection, change.kept, action, now_s)


def note(connection: sqlite3.Connection, row: tuple[object, ...]) -> None:
    """One line of the audit: rollout, device, when, who, why, from, to."""
    connection.execute(
        "INSERT INTO audit (rollout, device, at_s, who, why, was, now) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        row,
    )


def _tell(connection: sqlite3.Connection, kept: Kept, action: Told, now_s: float) -> None:
    """Numbers what a device is told; what it was told before keeps its number."""
    split = kept.rollout.settings.split
    step = (kept.rollout.id, action.device, action.seq, what_to_do(action, split).value)
    known = "SELECT 1 FROM told WHERE rollout = ? AND device = ? AND step = ? AND kind = ?"
    if connection.execute(known, step).fetchone():
        return
    query = (
        "SELECT max(coalesce((SELECT seq FROM sequences WHERE device = ?), 0), "
        "coalesce((SELECT seq FROM devices WHERE id = ?), 0))"
    )
    seq = connection.execute(query, (action.device, action.device)).fetchone()[0] + 1
    said = assignment_of(
        action,
        seq=seq,
        rollout=kept.rollout.id,
        entry=kept.entry,
        now_s=now_s,
        clears_bad=kept.clears_bad,
        split=split,
    )
    connection.execute(
        "INSERT INTO sequences VALUES (?, ?, ?) "
        "ON CONFLICT (device) DO UPDATE SET seq = excluded.seq, body = excluded.body",
        (action.device, seq, encode(said)),
    )
    connection.execute(
        "INSERT INTO told (rollout, device, step, kind, seq) VALUES (?, ?, ?, ?, ?)", (*step, seq)
    )
    connection.execute(
        "DELETE FROM told WHERE device = ? AND seq NOT IN "
        "(SELECT seq FROM told WHERE device = ? ORDER BY seq DESC LIMIT ?)",
        (action.device, action.device, _MAX_TOLD),
    )
