"""One SQLite file, one thread that works on it, and nobody on the event loop who waits for a disk.

Rules of this file:
  * work that arrives together is committed together, synced once; whoever waits for it is told only
    then, so that what was confirmed outlives a crash of the process and of the machine;
  * work is a function of the connection and of nothing else: where a batch fails, each of it is
    tried by itself, so that one bad piece costs no other;
  * a disk that is full or broken is a ``StorageError`` for whoever asked; it is logged once, and
    its end is logged once. A damaged file is set aside, and a new one is begun.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from runtime.errors import StartError, StorageError
from runtime.logs import get_logger

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
# Pieces of work that may wait for the disk; each holds what it is to write.
MAX_WAITING = 256
# Committed together at most.
MAX_BATCH = 64
_PAGE_BYTES = 4096
_JOURNAL_BYTES = 1_048_576
_NO_DATABASE = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)


class _Job(NamedTuple):
    work: Work[Any]
    future: Future[Any]


class SqliteFile:
    """A file with a schema; a context manager.

    Args:
        path: the file; its folder is made when missing.
        schema: SQL that makes what is missing; run at every connect.
        version: of the schema; a file of a later one is refused.
        max_bytes: a bound of the file itself, well over what its users keep in it.

    Raises:
        StartError: the folder cannot be made, or a later version has written the file.
    """

    def __init__(
        self, path: Path, schema: str, *, version: int = 1, max_bytes: int = 2**32
    ) -> None:
        self.path, self._schema, self._version, self._max_bytes = path, schema, version, max_bytes
        self._log = get_logger(path=str(path))
        self._changed = threading.Condition()
        self._jobs: deque[_Job] = deque()
        self._is_closing = False
        self._has_failed = False
        self._connection: sqlite3.Connection | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StartError(
                f"cannot make the state folder {path.parent}: {error.strerror}"
            ) from error
        self._open_early()
        self._thread = threading.Thread(target=self._run, name=path.stem, daemon=True)
        self._thread.start()

    async def run(self, work: Work[T]) -> T:
        """What ``work`` returns, once it is committed.

        Raises:
            StorageError: it is not; nothing of it was written.
        """
        return await asyncio.wrap_future(self.submit(work))

    def submit(self, work: Work[T]) -> Future[T]:
        """The same without an event loop; the future fails with ``StorageError``."""
        future: Future[T] = Future()
        with self._changed:
            if self._is_closing or len(self._jobs) >= MAX_WAITING:
                future.set_exception(StorageError("too much is being written"))
                return future
            self._jobs.append(_Job(work, future))
            self._changed.notify()
        return future

    def close(self) -> None:
        """Ends what is being written and closes the file; safe to call twice."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(10.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _open_early(self) -> None:
        """So that a file of a later version stops the start; other trouble may pass by itself."""
        try:
            self._connection = self._connected()
        except sqlite3.Error as error:
            self._give_up(error)

    def _run(self) -> None:
        """The thread."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._is_closing)
                batch = [self._jobs.popleft() for _ in range(min(MAX_BATCH, len(self._jobs)))]
            if not batch:
                break
            wanted = [job for job in batch if job.future.set_running_or_notify_cancel()]
            if not self._tried(wanted) and len(wanted) > 1:
                for job in wanted:
                    self._tried([job])
        if self._connection is not None:
            self._connection.close()

    def _tried(self, jobs: list[_Job]) -> bool:
        """Whether all was done; of several jobs that were not, none has been told."""
        results: list[tuple[_Job, Any]] = []
        try:
            if self._connection is None:
                self._connection = self._connected()
            connection = self._connection
            connection.execute("BEGIN IMMEDIATE")
            results = [(job, job.work(connection)) for job in jobs]
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._give_up(error)
            if len(jobs) == 1:
                jobs[0].future.set_exception(StorageError(f"cannot write {self.path}: {error}"))
            return False
        except Exception as error:  # noqa: BLE001 a defect of one piece of work is its asker's
            if self._connection is not None:
                self._connection.execute("ROLLBACK")
            if len(jobs) == 1:
                jobs[0].future.set_exception(error)
            return False
        if self._has_failed:
            self._has_failed = False
            self._log.info("storage.recovered")
        for job, result in results:
            job.future.set_result(result)
        return True

    def _give_up(self, error: sqlite3.Error) -> None:
        """Notes a failure; a connection that saw one is not used again."""
        if not self._has_failed:
            self._has_failed = True
            self._log.error("storage.failed", error=str(error))
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if getattr(error, "sqlite_errorcode", None) in _NO_DATABASE:
            self._set_aside()

    def _set_aside(self) -> None:
        aside = self.path.with_suffix(".damaged")
        try:
            self.path.replace(aside)
            for suffix in ("-wal", "-shm"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        except OSError as error:
            self._log.error("storage.set_aside_failed", error=str(error))
        else:
            self._log.warning("storage.set_aside", kept_as=str(aside))

    def _refuse_later(self, version: int) -> None:
        if version > self._version:
            raise StartError(
                f"{self.path} was written by a later version of Tierwise: "
                "update this one, or move the file away"
            )

    def _connected(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=5.0, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
            connection.execute("PRAGMA journal_mode = WAL")
            # What was confirmed may not be lost with the power.
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA wal_autocheckpoint = {_JOURNAL_BYTES // _PAGE_BYTES}")
            connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_BYTES}")
            connection.execute(f"PRAGMA max_page_count = {self._max_bytes // _PAGE_BYTES}")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            self._refuse_later(version)
            connection.executescript(
                f"BEGIN IMMEDIATE; {self._schema} PRAGMA user_version = {self._version}; COMMIT;"
            )
        except (sqlite3.Error, StartError):
            connection.close()
            raise
        return connection
