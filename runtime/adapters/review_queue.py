"""What waits for people to review: one SQLite file, bounded, that outlives crashes.

Rules of this file:
  * one thread writes, so that no disk ever holds up the event loop; ``put`` waits for it as long
    as it is told to, and at most ``MAX_WAITING`` items are on their way to it;
  * an item is committed and synced before ``put`` says ``queued``;
  * the quotas are hard: an item over one is not written, and none that waits is thrown away;
  * the same item is there once, whoever sends it again and whether or not the quota is reached;
  * trouble is logged once, and its end is logged once; a damaged file is left as it is, for what
    people are waited for is in it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from runtime.errors import StartError
from runtime.logs import get_logger
from runtime.ports import ReviewItem, ReviewResult

FILE_NAME = "reviews.sqlite"
TABLE = "reviews"
SCHEMA_VERSION = 1
# Each holds its body in memory while it waits for the disk.
MAX_WAITING = 16

_PAGE_BYTES = 4096
# A row beside its body: names, numbers, and its share of the tree.
_ROW_BYTES = 1024
# The file itself may grow so far beyond what its items count as.
_FILE_SHARE, _FILE_PAGES = 1.25, 256
_JOURNAL_BYTES = 1_048_576

# What only those above are told is not kept here.
_NOT_KEPT = ("source", "labels")
COLUMNS = tuple(
    field.name for field in dataclasses.fields(ReviewItem) if field.name not in _NOT_KEPT
)
_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS {TABLE} (
    item TEXT PRIMARY KEY,
    request_id TEXT NOT NULL,
    wall_s REAL NOT NULL,
    due_s REAL NOT NULL,
    tier TEXT NOT NULL,
    site TEXT NOT NULL,
    region TEXT NOT NULL,
    model TEXT NOT NULL,
    model_version TEXT NOT NULL,
    policy TEXT NOT NULL,
    gear TEXT NOT NULL,
    label INTEGER NOT NULL,
    label_name TEXT NOT NULL,
    confidence REAL NOT NULL,
    chance REAL NOT NULL,
    answers TEXT NOT NULL,
    residency TEXT NOT NULL,
    header_length INTEGER NOT NULL,
    body BLOB NOT NULL,
    num_bytes INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS review_bytes ON {TABLE} (num_bytes);
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""
_INSERT = (
    f"INSERT INTO {TABLE} ({', '.join(COLUMNS)}, num_bytes) "  # noqa: S608 - names of our own
    f"VALUES ({', '.join('?' * len(COLUMNS))}, ?)"
)
_IS_KNOWN = f"SELECT count(*) FROM {TABLE} WHERE item = ?"  # noqa: S608 - as above
_USED = f"SELECT count(*), coalesce(sum(num_bytes), 0) FROM {TABLE}"  # noqa: S608 - as above


def bytes_of(item: ReviewItem) -> int:
    """What an item counts as: its body in whole pages, and its row."""
    return -(-len(item.body) // _PAGE_BYTES) * _PAGE_BYTES + _ROW_BYTES


class SqliteReviewQueue:
    """The ``ReviewQueue`` port on a file in ``folder``; a context manager.

    Args:
        folder: Where ``reviews.sqlite`` is or will be; made when missing.
        max_items: Items that may wait.
        max_bytes: What they may count as together.

    Raises:
        StartError: the folder cannot be made.
    """

    def __init__(
        self, folder: Path, *, max_items: int = 10_000, max_bytes: int = 268_435_456
    ) -> None:
        self.path = folder / FILE_NAME
        self._max_items, self._max_bytes = max_items, max_bytes
        self._log = get_logger(path=str(self.path))
        self._connection: sqlite3.Connection | None = None
        self._num_waiting = 0
        self._has_failed = self._is_closed = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StartError(f"cannot make the state folder {folder}: {error.strerror}") from error
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="review_queue")

    async def put(self, item: ReviewItem, timeout_s: float) -> ReviewResult:
        """Puts an item into the queue, or says why it is not there; never raises."""
        if self._is_closed or self._num_waiting >= MAX_WAITING:
            return "busy"
        self._num_waiting += 1
        writing = asyncio.get_running_loop().run_in_executor(self._thread, self._store, item)
        writing.add_done_callback(self._on_written)
        done, _ = await asyncio.wait([writing], timeout=timeout_s)
        return writing.result() if done else "unconfirmed"

    def close(self) -> None:
        """Ends what is being written and closes the file; safe to call twice."""
        if self._is_closed:
            return
        self._is_closed = True
        self._thread.submit(self._disconnect)
        self._thread.shutdown(wait=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _on_written(self, _: asyncio.Future[ReviewResult]) -> None:
        self._num_waiting -= 1

    def _store(self, item: ReviewItem) -> ReviewResult:
        """In the thread: what became of an item."""
        try:
            if self._connection is None:
                self._connection = _connected(self.path, self._max_bytes)
            result = self._insert(self._connection, item)
        except sqlite3.Error as error:
            self._disconnect()
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                return "full"
            if not self._has_failed:
                self._has_failed = True
                self._log.error("review_queue.failed", error=str(error))
            return "failed"
        if self._has_failed:
            self._has_failed = False
            self._log.info("review_queue.recovered")
        return result

    def _insert(self, connection: sqlite3.Connection, item: ReviewItem) -> ReviewResult:
        with connection:
            # At once for writing: nobody else may fill the queue between counting and inserting.
            connection.execute("BEGIN IMMEDIATE")
            if connection.execute(_IS_KNOWN, (item.item,)).fetchone()[0]:
                return "known"
            num_items, num_bytes = connection.execute(_USED).fetchone()
            needed = bytes_of(item)
            if num_items >= self._max_items or num_bytes + needed > self._max_bytes:
                return "full"
            connection.execute(_INSERT, [*(getattr(item, name) for name in COLUMNS), needed])
        return "queued"

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _connected(path: Path, max_bytes: int) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
    try:
        connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        connection.execute("PRAGMA journal_mode = WAL")
        # An answer has said that it waits here: a power cut may not make that untrue.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_JOURNAL_BYTES // _PAGE_BYTES}")
        connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_BYTES}")
        max_pages = int(max_bytes * _FILE_SHARE) // _PAGE_BYTES + _FILE_PAGES
        connection.execute(f"PRAGMA max_page_count = {max_pages}")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise sqlite3.DatabaseError("a later version of Tierwise has written it")
        connection.executescript(_SCHEMA)
    except sqlite3.Error:
        connection.close()
        raise
    return connection
