"""Spans on disk until the endpoint of traces has them; bounded in bytes and in age.

A span is deleted when the endpoint has said that it took it. Where that word is lost, it is sent
again: OTLP has no way to say which spans are known.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from runtime.adapters.sqlite_file import SqliteFile
from runtime.adapters.tracing_metrics import TracingMetrics
from runtime.core.tracing import Span

FILE_NAME = "spans.db"
# What a row takes on disk beside its body.
ROW_BYTES = 64
# The file itself, over what is kept in it.
_SLACK_BYTES = 8_388_608
_SCHEMA = """
CREATE TABLE IF NOT EXISTS spans (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    created_s REAL NOT NULL,
    num_bytes INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
"""
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Span)


class Kept(NamedTuple):
    """A span with its number in the spool."""

    id: int
    span: Span


class SpanSpool:
    """The spool of one tier.

    Args:
        file: opened by ``open_spool``, and closed by whoever opened it.
        max_bytes: of all spans together.
        max_age_s: after which one is dropped.
        metrics: counts what is dropped.
    """

    def __init__(
        self, file: SqliteFile, *, max_bytes: int, max_age_s: float, metrics: TracingMetrics
    ) -> None:
        self._file, self._max_bytes, self._max_age_s = file, max_bytes, max_age_s
        self._metrics = metrics

    async def add(self, spans: Sequence[Span], now_s: float) -> None:
        """Keeps spans, and drops what is over its age or has no room; ``now_s`` since 1970.

        Raises:
            StorageError: nothing was kept.
        """
        bodies = [_encoder.encode(span) for span in spans]

        def work(connection: sqlite3.Connection) -> tuple[int, int, int]:
            connection.executemany(
                "INSERT INTO spans (created_s, num_bytes, body) VALUES (?, ?, ?)",
                [(now_s, len(body) + ROW_BYTES, body) for body in bodies],
            )
            # A clock that was set back makes nothing young for ever.
            aged = connection.execute(
                "DELETE FROM spans WHERE created_s < ? OR created_s > ?",
                (now_s - self._max_age_s, now_s + self._max_age_s),
            ).rowcount
            held = _num_bytes(connection)
            crowded = 0
            while held > self._max_bytes:
                (oldest,) = connection.execute("SELECT min(id) FROM spans").fetchone()
                (size,) = connection.execute(
                    "SELECT num_bytes FROM spans WHERE id = ?", (oldest,)
                ).fetchone()
                connection.execute("DELETE FROM spans WHERE id = ?", (oldest,))
                held -= size
                crowded += 1
            return aged, crowded, held

        aged, crowded, held = await self._file.run(work)
        self._metrics.count_spans("dropped_age", aged)
        self._metrics.count_spans("dropped_size", crowded)
        self._metrics.set_spool(held)

    async def oldest(self, limit: int) -> list[Kept]:
        """Those that wait longest.

        Raises:
            StorageError: the disk does not say.
        """
        rows = await self._file.run(
            lambda connection: connection.execute(
                "SELECT id, body FROM spans ORDER BY id LIMIT ?", (limit,)
            ).fetchall()
        )
        return [Kept(number, _decoder.decode(body)) for number, body in rows]

    async def sent(self, kept: Sequence[Kept]) -> None:
        """Forgets what has arrived.

        Raises:
            StorageError: it is not forgotten, and will be sent again.
        """

        def work(connection: sqlite3.Connection) -> int:
            connection.executemany("DELETE FROM spans WHERE id = ?", [(one.id,) for one in kept])
            return _num_bytes(connection)

        self._metrics.set_spool(await self._file.run(work))
        self._metrics.count_spans("sent", len(kept))


def open_spool(folder: Path, *, max_bytes: int) -> SqliteFile:
    """The file of a state folder.

    Raises:
        StartError: the folder cannot be used, or a later version has written the file.
    """
    return SqliteFile(folder / FILE_NAME, _SCHEMA, max_bytes=2 * max_bytes + _SLACK_BYTES)


def _num_bytes(connection: sqlite3.Connection) -> int:
    (held,) = connection.execute("SELECT coalesce(sum(num_bytes), 0) FROM spans").fetchone()
    return int(held)
