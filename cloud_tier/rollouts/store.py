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

import msgspec

from cloud_tier.rollouts.committing import (
    AuditRow,
    Change,
    Kept,
    check_holder,
    commit,
    is_live,
)
from runtime.adapters.sqlite_file import SqliteFile
from runtime.assignments import Assignment, decode_assignment
from runtime.catalogue import CatalogueEntry, encode_entry
from runtime.core.rollout_states import Rollout
from runtime.errors import RolloutConflictError, RolloutError, UnknownRolloutError

MAX_ROLLOUTS = 10_000
_ROLLOUT = msgspec.json.Decoder(Rollout)
_ENTRY = msgspec.json.Decoder(CatalogueEntry)
_COLUMNS = "body, entry, created_s, by, why, clears_bad, is_closed"


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
            check_holder(connection, holder)
            rollout = kept.rollout
            if connection.execute("SELECT count(*) FROM rollouts").fetchone()[0] >= MAX_ROLLOUTS:
                raise RolloutError(f"{MAX_ROLLOUTS} rollouts are kept; move {self.file.path} away")
            try:
                connection.execute(
                    "INSERT INTO rollouts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        rollout.id,
                        rollout.revision,
                        is_live(rollout),
                        rollout.model,
                        kept.created_s,
                        kept.by,
                        kept.why,
                        kept.clears_bad,
                        kept.is_closed,
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
        await self.file.run(lambda connection: commit(connection, holder, change, now_s))
        self._known[change.after.id] = change.kept._replace(rollout=change.after)

    async def retire(self, holder: str, rollout_id: str) -> None:
        """Leaves a rollout that has ended alone from now on: a later one decides.

        Raises:
            RolloutConflictError: another controller holds the store.
        """

        def work(connection: sqlite3.Connection) -> None:
            check_holder(connection, holder)
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
            Kept(
                _ROLLOUT.decode(body),
                _ENTRY.decode(entry),
                created_s,
                by,
                why,
                clears_bad=bool(clears),
                is_closed=bool(closed),
            )
            for body, entry, created_s, by, why, clears, closed in rows
        ]
