"""The decision log: one SQLite file that can be read while it is written.

Rules of this file:
  * ``append`` takes a lock for as long as a list append takes, and never waits for a disk.
  * One thread writes, a transaction a batch. What does not fit its bounded queue is counted.
  * A disk that is full or a database that is locked or damaged never reaches the caller: the batch
    is kept and tried again; the trouble is logged once, and its end is logged once.
  * A file of an earlier version is brought up to date in place when it is opened.
  * Audits have a table of their own: what is counted from decisions never counts them.
  * The file has a quota of bytes; over it, the oldest decisions are deleted with their audits, and
    how many were is written into the file. Its journal comes on top, about ``_JOURNAL_BYTES``.
"""

from __future__ import annotations

import dataclasses
import sqlite3
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from runtime.errors import StartError
from runtime.logs import get_logger
from runtime.ports import AuditRecord, DecisionRecord

FILE_NAME = "decisions.sqlite"
SCHEMA_VERSION = 5

_PAGE_BYTES = 4096
_JOURNAL_BYTES = 1_048_576
# Deleting a bit more than is needed makes it rare.
_DELETED_SHARE = 0.1
_NO_DATABASE = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)

_SCHEMA = """
BEGIN;
CREATE TABLE IF NOT EXISTS decisions (
    wall_s REAL NOT NULL,
    request_id TEXT NOT NULL,
    tier TEXT NOT NULL,
    site TEXT NOT NULL,
    region TEXT NOT NULL,
    hop INTEGER NOT NULL,
    model TEXT NOT NULL,
    model_version TEXT NOT NULL,
    action TEXT NOT NULL,
    decided_because TEXT NOT NULL,
    outcome TEXT NOT NULL,
    reason TEXT NOT NULL,
    answered_by TEXT NOT NULL,
    label INTEGER,
    confidence REAL,
    remaining_ms REAL,
    latency_ms REAL,
    service_us INTEGER NOT NULL,
    sent_bytes INTEGER NOT NULL,
    propensity REAL,
    policy TEXT NOT NULL DEFAULT '',
    gear TEXT NOT NULL DEFAULT '',
    score REAL,
    route TEXT NOT NULL DEFAULT '',
    gain REAL,
    cost REAL,
    chance REAL,
    guarantee TEXT NOT NULL DEFAULT 'none',
    seen TEXT NOT NULL DEFAULT '',
    budget_ms REAL,
    audit_chance REAL NOT NULL DEFAULT 0.0,
    residency TEXT NOT NULL DEFAULT '',
    rule TEXT NOT NULL DEFAULT '',
    forwarded TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS audits (
    wall_s REAL NOT NULL,
    request_id TEXT NOT NULL,
    site TEXT NOT NULL,
    policy TEXT NOT NULL,
    gear TEXT NOT NULL,
    chance REAL NOT NULL,
    seen TEXT NOT NULL,
    agrees INTEGER
);
CREATE TABLE IF NOT EXISTS totals (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT OR IGNORE INTO totals VALUES ('deleted', 0);
PRAGMA user_version = 5;
COMMIT;
"""
# What each version added to the one before; each step is one transaction, so that a crash leaves a
# file of one version or of the next.
_STEPS = {
    # The rows of version 1 followed no policy, and nothing was promised for them.
    1: """
BEGIN IMMEDIATE;
ALTER TABLE decisions ADD COLUMN policy TEXT NOT NULL DEFAULT '';
ALTER TABLE decisions ADD COLUMN gear TEXT NOT NULL DEFAULT '';
ALTER TABLE decisions ADD COLUMN score REAL;
ALTER TABLE decisions ADD COLUMN route TEXT NOT NULL DEFAULT '';
ALTER TABLE decisions ADD COLUMN gain REAL;
ALTER TABLE decisions ADD COLUMN cost REAL;
ALTER TABLE decisions ADD COLUMN chance REAL;
ALTER TABLE decisions ADD COLUMN guarantee TEXT NOT NULL DEFAULT 'none';
PRAGMA user_version = 2;
COMMIT;
""",
    # Those of version 2 do not say what other tiers answered: they cannot be replayed.
    2: """
BEGIN IMMEDIATE;
ALTER TABLE decisions ADD COLUMN seen TEXT NOT NULL DEFAULT '';
ALTER TABLE decisions ADD COLUMN budget_ms REAL;
ALTER TABLE decisions ADD COLUMN audit_chance REAL NOT NULL DEFAULT 0.0;
ALTER TABLE decisions ADD COLUMN residency TEXT NOT NULL DEFAULT '';
PRAGMA user_version = 3;
COMMIT;
""",
    # No rule decided what version 3 has logged.
    3: """
BEGIN IMMEDIATE;
ALTER TABLE decisions ADD COLUMN rule TEXT NOT NULL DEFAULT '';
PRAGMA user_version = 4;
COMMIT;
""",
    # Until version 4 what climbed was what had come.
    4: """
BEGIN IMMEDIATE;
ALTER TABLE decisions ADD COLUMN forwarded TEXT NOT NULL DEFAULT '';
PRAGMA user_version = 5;
COMMIT;
""",
}
_Record = DecisionRecord | AuditRecord
_TABLES: dict[type[_Record], str] = {DecisionRecord: "decisions", AuditRecord: "audits"}
_COLUMNS = {kind: tuple(field.name for field in dataclasses.fields(kind)) for kind in _TABLES}
_INSERTS = {
    kind: f"INSERT INTO {table} ({', '.join(_COLUMNS[kind])}) "  # noqa: S608 - our own names
    f"VALUES ({', '.join('?' * len(_COLUMNS[kind]))})"
    for kind, table in _TABLES.items()
}
# An audit has the instant of its decision, so these are audits of decisions that are gone.
_FORGET_AUDITS = (
    "DELETE FROM audits WHERE NOT wall_s >= (SELECT coalesce(min(wall_s), 9e999) FROM decisions)"
)


class SqliteDecisionLog:
    """The ``DecisionLog`` port on a file in ``folder``; a context manager that flushes at its end.

    Args:
        folder: Where ``decisions.sqlite`` is or will be; made when missing.
        max_bytes: Quota of the file.
        max_queued: Records that wait for the writer; one more is dropped and counted.
        retry_s: How long the writer waits after a failure.
        gather_s: How long the writer waits for more records before it writes a batch.
        close_s: How long closing waits for the writer.

    Raises:
        StartError: the folder cannot be made, or a later version has written the file.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int = 67_108_864,
        max_queued: int = 8192,
        retry_s: float = 1.0,
        gather_s: float = 0.1,
        close_s: float = 10.0,
    ) -> None:
        self.path = folder / FILE_NAME
        self._max_bytes, self._max_queued = max_bytes, max_queued
        self._retry_s, self._gather_s, self._close_s = retry_s, gather_s, close_s
        self._changed = threading.Condition()
        self._queue: list[_Record] = []
        self._is_closing = threading.Event()
        self._num_dropped = 0
        self._num_in_hand = 0
        self._has_failed = False
        self._log = get_logger(path=str(self.path))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StartError(f"cannot make the state folder {folder}: {error.strerror}") from error
        self._refuse_later_schema()
        self._thread = threading.Thread(target=self._write, name="decision_log", daemon=True)
        self._thread.start()

    @property
    def num_dropped(self) -> int:
        """Records that did not fit, came after closing, or could not be written by then."""
        return self._num_dropped

    def append(self, record: DecisionRecord | AuditRecord) -> None:
        """Takes a record to be written soon; never blocks, never raises."""
        with self._changed:
            if self._is_closing.is_set() or len(self._queue) >= self._max_queued:
                self._num_dropped += 1
                return
            self._queue.append(record)
            self._changed.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Whether everything appended so far was written within the time."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._queue and not self._num_in_hand, timeout_s
            )

    def close(self) -> None:
        """Writes what is queued and closes the file; safe to call twice."""
        with self._changed:
            self._is_closing.set()
            self._changed.notify_all()
        self._thread.join(self._close_s)
        if self._thread.is_alive():
            self._log.error("decision_log.close_timed_out", close_s=self._close_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _refuse_later_schema(self) -> None:
        try:
            with self.path.open("rb") as file:
                # The header of a database: user_version is at byte 60 (SQLite file format, 1.3).
                version = int.from_bytes(file.read(64)[60:64], "big")
        except FileNotFoundError:
            return
        except OSError as error:
            raise StartError(f"cannot read {self.path}: {error.strerror}") from error
        if SCHEMA_VERSION < version < 1 << 16:
            raise StartError(
                f"{self.path} was written by a later version of Tierwise: "
                "update this one, or move the file away"
            )

    def _write(self) -> None:
        """The writer thread."""
        connection: sqlite3.Connection | None = None
        try:
            # Before the first record, so that a log without decisions is there to be asked.
            connection = _connected(self.path)
        except sqlite3.Error as error:
            self._give_up(None, error)
        while batch := self._next_batch():
            while batch:
                try:
                    if connection is None:
                        connection = _connected(self.path)
                    self._store(connection, batch)
                except sqlite3.Error as error:
                    self._give_up(connection, error)
                    connection = None
                    if self._is_closing.wait(self._retry_s):
                        break
                else:
                    batch = []
                    self._recovered()
            self._done_with(batch)
        if connection is not None:
            connection.close()

    def _next_batch(self) -> list[_Record]:
        """Waits for records; empty when there will be none any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._is_closing.is_set())
        self._is_closing.wait(self._gather_s)
        with self._changed:
            batch, self._queue = self._queue, []
            self._num_in_hand = len(batch)
        return batch

    def _done_with(self, unwritten: list[_Record]) -> None:
        with self._changed:
            self._num_dropped += len(unwritten)
            self._num_in_hand = 0
            self._changed.notify_all()

    def _store(self, connection: sqlite3.Connection, batch: list[_Record]) -> None:
        with connection:
            for kind, columns in _COLUMNS.items():
                rows = [
                    [getattr(record, name) for name in columns]
                    for record in batch
                    if type(record) is kind
                ]
                connection.executemany(_INSERTS[kind], rows)
            self._keep_quota(connection)
        if _bytes_of_pages(connection, "page_count") > self._max_bytes:
            # Freed pages go back to the disk; a script, because execute() would stop at the first.
            connection.executescript("PRAGMA incremental_vacuum")

    def _keep_quota(self, connection: sqlite3.Connection) -> None:
        while _used_bytes(connection) > self._max_bytes:
            oldest, newest = connection.execute(
                "SELECT min(rowid), max(rowid) FROM decisions"
            ).fetchone()
            if oldest is None:
                connection.execute(_FORGET_AUDITS)
                return
            until = oldest + int((newest - oldest) * _DELETED_SHARE)
            deleted = connection.execute("DELETE FROM decisions WHERE rowid <= ?", (until,))
            connection.execute(_FORGET_AUDITS)
            connection.execute(
                "UPDATE totals SET value = value + ? WHERE name = 'deleted'", (deleted.rowcount,)
            )

    def _give_up(self, connection: sqlite3.Connection | None, error: sqlite3.Error) -> None:
        """Notes a failure; a connection that saw one is not used again."""
        if not self._has_failed:
            self._has_failed = True
            self._log.error("decision_log.failed", error=str(error))
        if connection is not None:
            connection.close()
        if getattr(error, "sqlite_errorcode", None) in _NO_DATABASE:
            self._set_aside()

    def _set_aside(self) -> None:
        """Makes room for a new file; what a power cut left of the old one is kept."""
        aside = self.path.with_suffix(".damaged")
        try:
            self.path.replace(aside)
            for suffix in ("-wal", "-shm"):
                self.path.with_name(FILE_NAME + suffix).unlink(missing_ok=True)
        except OSError as error:
            self._log.error("decision_log.set_aside_failed", error=str(error))
        else:
            self._log.warning("decision_log.set_aside", kept_as=str(aside))

    def _recovered(self) -> None:
        if self._has_failed:
            self._has_failed = False
            self._log.info("decision_log.recovered", num_dropped=self._num_dropped)


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=1.0, check_same_thread=False)
    try:
        connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        # A power cut may cost the last decisions, never the file (sqlite.org/pragma, synchronous).
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_JOURNAL_BYTES // _PAGE_BYTES}")
        connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_BYTES}")
        while step := _STEPS.get(connection.execute("PRAGMA user_version").fetchone()[0]):
            connection.executescript(step)
        connection.executescript(_SCHEMA)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _used_bytes(connection: sqlite3.Connection) -> int:
    """Bytes of pages in use; pages that deletion freed are used again before the file grows."""
    return _bytes_of_pages(connection, "page_count") - _bytes_of_pages(connection, "freelist_count")


def _bytes_of_pages(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0]) * _PAGE_BYTES
