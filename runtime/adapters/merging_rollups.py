"""Rollups of those below, taken over one by one and sent on together."""

from __future__ import annotations

import sqlite3
import uuid

from runtime.adapters.outbox import SqliteOutbox
from runtime.core.merging import merged
from runtime.messages import ItemKind
from runtime.ports import Clock, OutboxItem, PutResult
from runtime.telemetry import decode_rollup, encode_rollup

# What waits to be merged; beyond it, those below keep theirs.
MAX_WAITING = 20_000
# Merged at a time, so that nobody waits long for the file.
_MAX_MERGED = 500


class MergingRollups:
    """Keeps rollups in the file of an outbox until they go on."""

    def __init__(self, outbox: SqliteOutbox, clock: Clock) -> None:
        self._outbox, self._clock = outbox, clock

    def add(self, connection: sqlite3.Connection, item: OutboxItem) -> PutResult:
        """Takes a rollup over, within a transaction of the file."""
        (first, last) = connection.execute("SELECT min(seq), max(seq) FROM merging").fetchone()
        if first is not None and last - first >= MAX_WAITING:
            return "full"
        connection.execute(
            "INSERT INTO merging (created_s, body) VALUES (?, ?)", (item.created_s, item.body)
        )
        return "stored"

    async def send_on(self) -> None:
        """Puts all that has been taken over into the outbox, as few as may be.

        Raises:
            StorageError: the disk does not do it.
        """
        while await self._outbox.file.run(self._send_some):
            pass

    def _send_some(self, connection: sqlite3.Connection) -> bool:
        """Whether there is more, and room for it."""
        now_s = self._clock.wall_s()
        rows = connection.execute(
            "SELECT seq, created_s, body FROM merging ORDER BY seq LIMIT ?", (_MAX_MERGED,)
        ).fetchall()
        if not rows:
            return False
        connection.execute("SAVEPOINT merging")
        for whole in merged(
            (now_s - created_s, decode_rollup(body)) for _, created_s, body in rows
        ):
            item = OutboxItem(uuid.uuid4().hex, ItemKind.METRICS, now_s, encode_rollup(whole))
            if self._outbox.add(connection, item) == "full":
                connection.execute("ROLLBACK TO merging")
                connection.execute("RELEASE merging")
                return False
        connection.execute("DELETE FROM merging WHERE seq <= ?", (rows[-1][0],))
        connection.execute("RELEASE merging")
        return len(rows) == _MAX_MERGED
