"""What came from other tiers: taken over once, whoever sends it again, also after a restart."""

from __future__ import annotations

import sqlite3

from runtime.adapters.merging_rollups import MergingRollups
from runtime.adapters.outbox import ROW_BYTES, SqliteOutbox
from runtime.messages import ItemKind
from runtime.ports import Clock, OutboxItem, PutResult

# Regions below whose gateways are remembered.
MAX_WAYS = 10_000
# Ids that are remembered; an item that is older than so many others is not sent again.
MAX_SEEN = 200_000


class SqliteReceived:
    """Takes items over; every method raises ``StorageError``.

    With ``sends_on`` they wait in the outbox, rollups to be merged first; else this is the end of
    their way, and they are kept in ``received``, the oldest dropped over ``max_bytes``.
    """

    def __init__(
        self, store: SqliteOutbox, clock: Clock, *, max_bytes: int, sends_on: bool
    ) -> None:
        self._outbox, self._file, self._clock = store, store.file, clock
        self._max_bytes, self._sends_on = max_bytes, sends_on
        self.rollups = MergingRollups(store, clock)
        # What the file holds already, as far as it was asked for.
        self._ways: dict[str, str] = {}

    async def is_known(self, item_id: str) -> bool:
        """Whether an item has been taken over."""
        return await self._file.run(lambda connection: _is_known(connection, item_id))

    async def take_over(self, item: OutboxItem, sender: str) -> PutResult:
        """Keeps an item or sends it on, once."""
        return await self._file.run(lambda connection: self._apply(connection, item, sender))

    async def remember(self, item_id: str) -> None:
        """Notes that an item was taken over by somebody else; safe to do twice."""

        def work(connection: sqlite3.Connection) -> None:
            if not _is_known(connection, item_id):
                _remember(connection, item_id)

        await self._file.run(work)

    async def note_way(self, region: str, gateway: str) -> None:
        """Remembers by whom something of a region further below has come."""
        if self._ways.get(region) == gateway:
            return

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM ways WHERE region = ?", (region,))
            connection.execute(
                "INSERT INTO ways (region, gateway) VALUES (?, ?)", (region, gateway)
            )
            (seq,) = connection.execute("SELECT max(seq) FROM ways").fetchone()
            connection.execute("DELETE FROM ways WHERE seq <= ?", (seq - MAX_WAYS,))

        await self._file.run(work)
        if len(self._ways) >= MAX_WAYS:
            self._ways.clear()
        self._ways[region] = gateway

    async def way_to(self, region: str) -> str:
        """The gateway of this region by which another one was heard last; empty: none was."""
        query = "SELECT gateway FROM ways WHERE region = ?"
        found = await self._file.run(
            lambda connection: connection.execute(query, (region,)).fetchone()
        )
        return str(found[0]) if found else ""

    def _apply(self, connection: sqlite3.Connection, item: OutboxItem, sender: str) -> PutResult:
        if _is_known(connection, item.id):
            return "known"
        if self._sends_on:
            onward = self.rollups if item.kind is ItemKind.METRICS else self._outbox
            result = onward.add(connection, item)
            if result == "full":
                return result
        else:
            self._store(connection, item, sender)
        _remember(connection, item.id)
        return "stored"

    async def answer(self, item_id: str, answer: OutboxItem) -> PutResult:
        """Notes that an escalation is answered, with its answer on the way down."""

        def work(connection: sqlite3.Connection) -> PutResult:
            if _is_known(connection, item_id):
                return "known"
            result = self._outbox.add(connection, answer)
            if result != "full":
                _remember(connection, item_id)
            return result

        return await self._file.run(work)

    def _store(self, connection: sqlite3.Connection, item: OutboxItem, sender: str) -> None:
        size = len(item.body) + ROW_BYTES
        connection.execute(
            "INSERT INTO received (id, origin, sender, kind, created_s, received_s, body, "
            "num_bytes) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                item.id,
                item.origin,
                sender,
                item.kind.value,
                item.created_s,
                self._clock.wall_s(),
                item.body,
                size,
            ),
        )
        query = "SELECT coalesce(sum(num_bytes), 0) FROM received"
        while connection.execute(query).fetchone()[0] > self._max_bytes:
            # A tenth at a time, which makes it rare.
            connection.execute(
                "DELETE FROM received WHERE seq IN (SELECT seq FROM received ORDER BY seq "
                "LIMIT (SELECT max(1, count(*) / 10) FROM received))"
            )


def _is_known(connection: sqlite3.Connection, item_id: str) -> bool:
    query = "SELECT count(*) FROM seen WHERE id = ?"
    return bool(connection.execute(query, (item_id,)).fetchone()[0])


def _remember(connection: sqlite3.Connection, item_id: str) -> None:
    (seq,) = connection.execute(
        "INSERT INTO seen (id) VALUES (?) RETURNING seq", (item_id,)
    ).fetchone()
    connection.execute("DELETE FROM seen WHERE seq <= ?", (seq - MAX_SEEN,))
