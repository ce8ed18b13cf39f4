"""Alerts, silences, facts from below and notices on their way, in ``alerts.sqlite``.

A step of all alerts and the notices that it makes are committed together, so that a restart neither
repeats nor loses one; a notice stays until its sink has it or it is given up.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from runtime.adapters.sqlite_file import SqliteFile
from runtime.core.alerts import Alert, AlertRules, Condition, Notice, Silence, step

FILE_NAME = "alerts.sqlite"
# Of origins that have told something; over it, nothing of new ones is kept.
MAX_ORIGINS = 100_000
# Notices of one sink that wait; over it the oldest is given up.
MAX_WAITING = 1000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS alerts (key TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS silences (key TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS facts (origin TEXT PRIMARY KEY, at_s REAL NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS notices (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    sink TEXT NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0,
    not_before_s REAL NOT NULL DEFAULT 0,
    body BLOB NOT NULL
);
"""
_encode = msgspec.json.encode


class Waiting(NamedTuple):
    """A notice that a sink is to have."""

    seq: int
    sink: str
    tries: int
    notice: Notice


class AlertStore:
    """The file of one cloud tier."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    async def step(
        self,
        conditions: Sequence[Condition],
        now_s: float,
        rules: AlertRules,
        sinks: Sequence[str],
    ) -> list[Notice]:
        """One step of all alerts; its notices wait for every sink.

        Raises:
            StorageError: nothing has happened.
        """

        def work(connection: sqlite3.Connection) -> list[Notice]:
            before = _alerts(connection)
            after, notices = step(before, conditions, now_s, rules, _silences(connection, now_s))
            for key in before.keys() - after.keys():
                connection.execute("DELETE FROM alerts WHERE key = ?", (key,))
            for key, alert in after.items():
                if before.get(key) != alert:
                    connection.execute(
                        "INSERT OR REPLACE INTO alerts VALUES (?, ?)", (key, _encode(alert))
                    )
            for sink in sinks:
                for notice in notices:
                    connection.execute(
                        "INSERT INTO notices (sink, body) VALUES (?, ?)", (sink, _encode(notice))
                    )
                connection.execute(
                    "DELETE FROM notices WHERE sink = ?1 AND seq <= (SELECT seq FROM notices "
                    "WHERE sink = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2)",
                    (sink, MAX_WAITING),
                )
            return notices

        return await self._file.run(work)

    async def alerts(self) -> dict[str, Alert]:
        """All of them.

        Raises:
            StorageError: the disk does not say.
        """
        return await self._file.run(_alerts)

    async def silences(self, now_s: float) -> list[Silence]:
        """Those that hold; raises as ``alerts`` does."""
        return await self._file.run(lambda connection: _silences(connection, now_s))

    async def silence(self, silence: Silence) -> None:
        """Adds one, or replaces that of the same key.

        Raises:
            StorageError: it is not kept.
        """

        def work(connection: sqlite3.Connection) -> None:
            row = silence.key, _encode(silence)
            connection.execute("INSERT OR REPLACE INTO silences VALUES (?, ?)", row)

        await self._file.run(work)

    async def hear(self, origin: str, at_s: float, body: bytes) -> None:
        """Keeps what an origin says of itself; what it said before is over, what is older is not.

        Raises:
            StorageError: it is not kept, and is to come again.
        """

        def work(connection: sqlite3.Connection) -> None:
            (num,) = connection.execute(
                "SELECT count(*) FROM facts WHERE origin != ?", (origin,)
            ).fetchone()
            if num < MAX_ORIGINS:
                connection.execute(
                    "INSERT INTO facts VALUES (?1, ?2, ?3) ON CONFLICT (origin) DO UPDATE SET "
                    "at_s = ?2, body = ?3 WHERE at_s <= ?2",
                    (origin, at_s, body),
                )

        await self._file.run(work)

    async def facts(self, since_s: float) -> list[tuple[str, bytes]]:
        """What origins have said since then; raises as ``alerts`` does."""

        def work(connection: sqlite3.Connection) -> list[tuple[str, bytes]]:
            connection.execute("DELETE FROM facts WHERE at_s < ?", (since_s,))
            return connection.execute("SELECT origin, body FROM facts ORDER BY origin").fetchall()

        return await self._file.run(work)

    async def waiting(self, now_s: float) -> list[Waiting]:
        """The first notice of each sink, where it is due; raises as ``alerts`` does."""
        query = (
            "SELECT seq, sink, tries, body FROM notices WHERE seq IN "
            "(SELECT min(seq) FROM notices GROUP BY sink) AND not_before_s <= ?"
        )
        rows = await self._file.run(
            lambda connection: connection.execute(query, (now_s,)).fetchall()
        )
        return [
            Waiting(seq, sink, tries, msgspec.json.decode(body, type=Notice))
            for seq, sink, tries, body in rows
        ]

    async def settle(self, waiting: Waiting, not_before_s: float | None) -> None:
        """The sink has it, or it is given up (None); or it is tried again, not before then.

        Raises:
            StorageError: it will be told again.
        """

        def work(connection: sqlite3.Connection) -> None:
            if not_before_s is None:
                connection.execute("DELETE FROM notices WHERE seq = ?", (waiting.seq,))
            else:
                connection.execute(
                    "UPDATE notices SET tries = tries + 1, not_before_s = ? WHERE seq = ?",
                    (not_before_s, waiting.seq),
                )

        await self._file.run(work)


def open_store(folder: Path) -> SqliteFile:
    """The file of a state folder.

    Raises:
        StartError: the folder cannot be used, or a later version has written the file.
    """
    return SqliteFile(folder / FILE_NAME, _SCHEMA)


def _alerts(connection: sqlite3.Connection) -> dict[str, Alert]:
    rows: Iterable[tuple[str, bytes]] = connection.execute("SELECT key, body FROM alerts")
    return {key: msgspec.json.decode(body, type=Alert) for key, body in rows}


def _silences(connection: sqlite3.Connection, now_s: float) -> list[Silence]:
    rows = connection.execute("SELECT body FROM silences ORDER BY key").fetchall()
    found = [msgspec.json.decode(body, type=Silence) for (body,) in rows]
    for one in found:
        if one.until_s <= now_s:
            connection.execute("DELETE FROM silences WHERE key = ?", (one.key,))
    return [one for one in found if one.until_s > now_s]
