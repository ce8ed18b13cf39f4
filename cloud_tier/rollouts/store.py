"""Rollouts on the disk: states under compare-and-swap, what devices are told, and the audit.

Rules of this file:
  * a state, its audit and the numbers of what devices are told are one transaction: what is in
    force and what is said of it cannot differ after a crash;
  * only the holder changes rollouts; whoever took the store over last is it;
  * a device's numbers only grow, over all rollouts, and over what the device has heard from anybody
    else.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from cloud_tier.rollouts.assigning import Told, assignment_of, what_to_do
from runtime.adapters.sqlite_file import SqliteFile
from runtime.assignments import Assignment, decode_assignment, encode
from runtime.catalogue import CatalogueEntry, encode_entry
from runtime.core.rollout_events import AnyAction, AskOperator, Audit
from runtime.core.rollout_states import ACTIVE, Phase, Rollout
from runtime.errors import RolloutConflictError, RolloutError, UnknownRolloutError

# Said by the controller about something that only a person decides.
ASKS = "asks"
MAX_ROLLOUTS = 10_000
# Steps of one device whose numbers are remembered.
_MAX_TOLD = 32
_ROLLOUT = msgspec.json.Decoder(Rollout)
_ENTRY = msgspec.json.Decoder(CatalogueEntry)
_COLUMNS = "body, entry, created_s, by, why, clears_bad"
# Those that have not begun are changed by people alone.
_RESTING = (Phase.DRAFT, Phase.APPROVED, Phase.SUPERSEDED)


class Kept(NamedTuple):
    """A rollout as it is stored; ``entry`` is what it brings to devices."""

    rollout: Rollout
    entry: CatalogueEntry
    created_s: float
    by: str
    why: str
    clears_bad: bool = False

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


class RolloutStore:
    """Everything raises ``StorageError`` where the disk fails."""

    def __init__(self, file: SqliteFile) -> None:
        self.file = file
        # By id; no state is stored twice under one revision.
        self._known: dict[str, Kept] = {}

    async def hold(self, name: str) -> int:
        """Makes ``name`` the one that changes rollouts; returns how many were it so far."""

        def work(connection: sqlite3.Connection) -> int:
            connection.execute(
                "INSERT INTO holder VALUES (1, ?, 1) "
                "ON CONFLICT (one) DO UPDATE SET name = excluded.name, epoch = epoch + 1",
                (name,),
            )
            return int(connection.execute("SELECT epoch FROM holder").fetchone()[0])

        return await self.file.run(work)

    async def holder(self) -> str:
        """Who may change rollouts; empty: nobody yet."""

        def work(connection: sqlite3.Connection) -> str:
            row = connection.execute("SELECT name FROM holder").fetchone()
            return str(row[0]) if row else ""

        return await self.file.run(work)

    async def add(self, holder: str, kept: Kept) -> None:
        """Puts a new rollout in.

        Raises:
            RolloutConflictError: the id is taken, or another controller holds the store.
            RolloutError: there are too many.
        """

        def work(connection: sqlite3.Connection) -> None:
            _check_holder(connection, holder)
            rollout = kept.rollout
            if connection.execute("SELECT count(*) FROM rollouts").fetchone()[0] >= MAX_ROLLOUTS:
                raise RolloutError(f"{MAX_ROLLOUTS} rollouts are kept; move {self.file.path} away")
            try:
                connection.execute(
                    "INSERT INTO rollouts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        rollout.id,
                        rollout.revision,
                        _is_live(rollout),
                        rollout.model,
                        kept.created_s,
                        kept.by,
                        kept.why,
                        kept.clears_bad,
                        encode_entry(kept.entry),
                        msgspec.json.encode(rollout),
                    ),
                )
            except sqlite3.IntegrityError:
                raise RolloutConflictError(
                    f"there is a rollout {rollout.id} already: choose another id"
                ) from None

        await self.file.run(work)

    async def get(self, rollout_id: str) -> Kept:
        """One rollout.

        Raises:
            UnknownRolloutError: there is none of this id.
        """
        found = await self._kept("WHERE id = ?", (rollout_id,))
        if not found:
            raise UnknownRolloutError(
                f"there is no rollout {rollout_id!r}: `tierwise rollout list` has all"
            )
        return found[0]

    async def all(self) -> list[Kept]:
        """Every rollout, the newest first."""
        return await self._kept("ORDER BY created_s DESC, id", ())

    async def live(self) -> list[Kept]:
        """Those that have begun and are not superseded, the oldest first.

        What is known from a read or a commit under the same revision is not read again: a state of
        many devices takes milliseconds to decode.
        """
        query = "SELECT id, revision FROM rollouts WHERE is_live ORDER BY created_s, id"
        rows = await self.file.run(lambda connection: connection.execute(query).fetchall())
        found = [
            known
            if (known := self._known.get(one)) and known.rollout.revision == revision
            else await self.get(one)
            for one, revision in rows
        ]
        self._known = {kept.rollout.id: kept for kept in found}
        return found

    async def commit(self, holder: str, change: Change, now_s: float) -> None:
        """Stores what a rollout has become, if it is still what it was.

        Raises:
            RolloutConflictError: it is not, or another controller holds the store.
        """
        await self.file.run(lambda connection: _commit(connection, holder, change, now_s))
        self._known[change.after.id] = change.kept._replace(rollout=change.after)

    async def retire(self, holder: str, rollout_id: str) -> None:
        """Leaves a rollout that has ended alone from now on: a later one decides.

        Raises:
            RolloutConflictError: another controller holds the store.
        """

        def work(connection: sqlite3.Connection) -> None:
            _check_holder(connection, holder)
            connection.execute("UPDATE rollouts SET is_live = 0 WHERE id = ?", (rollout_id,))

        await self.file.run(work)

    async def history(self, rollout_id: str, after: int = 0, limit: int = 1000) -> list[AuditRow]:
        """The audit of a rollout after a number, the oldest first."""
        query = (
            "SELECT seq, rollout, device, at_s, who, why, was, now FROM audit "
            "WHERE rollout = ? AND seq > ? ORDER BY seq LIMIT ?"
        )
        return await self.file.run(
            lambda connection: [
                AuditRow(*row) for row in connection.execute(query, (rollout_id, after, limit))
            ]
        )

    async def unheard(self, limit: int) -> list[Assignment]:
        """The latest assignments that their devices have not said that they know."""
        query = (
            "SELECT s.body FROM sequences s LEFT JOIN devices d ON d.id = s.device "
            "WHERE s.seq > coalesce(d.seq, 0) ORDER BY s.seq DESC LIMIT ?"
        )
        rows = await self.file.run(
            lambda connection: connection.execute(query, (limit,)).fetchall()
        )
        return [decode_assignment(body) for (body,) in rows]

    async def steps(self, devices: Iterable[str]) -> dict[str, list[tuple[int, str, int]]]:
        """What each device was told, as number, rollout and the rollout's step, rising."""
        query = "SELECT seq, rollout, step FROM told WHERE device = ? ORDER BY seq"
        names = tuple(devices)
        return await self.file.run(
            lambda connection: {
                name: connection.execute(query, (name,)).fetchall() for name in names
            }
        )

    async def _kept(self, where: str, values: tuple[object, ...]) -> list[Kept]:
        query = f"SELECT {_COLUMNS} FROM rollouts {where}"  # noqa: S608 - words of our own
        rows = await self.file.run(lambda connection: connection.execute(query, values).fetchall())
        return [
            Kept(_ROLLOUT.decode(body), _ENTRY.decode(entry), created_s, by, why, bool(clears))
            for body, entry, created_s, by, why, clears in rows
        ]


def _is_live(rollout: Rollout) -> bool:
    """Whether devices' words are for it; one that was aborted before it began has none."""
    return rollout.phase not in _RESTING and (bool(rollout.devices) or rollout.phase in ACTIVE)


def _check_holder(connection: sqlite3.Connection, holder: str) -> None:
    row = connection.execute("SELECT name FROM holder").fetchone()
    if row is None or row[0] != holder:
        raise RolloutConflictError(
            f"the controller {row[0] if row else 'nobody'!r} holds these rollouts, not "
            f"{holder!r}: ask that one, or start this one again to take over"
        )


def _commit(connection: sqlite3.Connection, holder: str, change: Change, now_s: float) -> None:
    before, after = change.kept.rollout, change.after
    _check_holder(connection, holder)
    changed = connection.execute(
        "UPDATE rollouts SET revision = ?, is_live = ?, body = ? WHERE id = ? AND revision = ?",
        (
            after.revision,
            _is_live(after),
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
            _note(connection, (*row, action.was, action.now))
        elif isinstance(action, AskOperator):
            _note(connection, (after.id, "", now_s, f"controller:{holder}", action.why, "", ASKS))
        elif isinstance(action, Told):
            _tell(connection, change.kept, action, now_s)


def _note(connection: sqlite3.Connection, row: tuple[object, ...]) -> None:
    connection.execute(
        "INSERT INTO audit (rollout, device, at_s, who, why, was, now) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        row,
    )


def _tell(connection: sqlite3.Connection, kept: Kept, action: Told, now_s: float) -> None:
    """Numbers what a device is told; what it was told before keeps its number."""
    step = (kept.rollout.id, action.device, action.seq, what_to_do(action).value)
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
