"""The store of telemetry: one thread that writes, and nobody on the event loop who waits for it.

Rules of this file:
  * items that arrive together are committed together; whoever waits for one is told only then;
  * an item counts once, however often it comes and whatever crashes: its id, the numbers that it
    covers and its rows are one transaction;
  * one bad item costs no other: where a batch fails, each is tried by itself;
  * a database that is away is a ``StorageError`` for whoever asked, logged once, as is its end.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, NamedTuple, Self

from sqlalchemy import Connection

from cloud_tier.telemetry.database import open_engine, shown, writing
from cloud_tier.telemetry.downsampling import STEP_ROWS, add_up, prune
from cloud_tier.telemetry.intake import Taken, read_item
from cloud_tier.telemetry.limits import Limits, Retention
from cloud_tier.telemetry.migrating import migrate
from cloud_tier.telemetry.row_bound import RowBound
from cloud_tier.telemetry.sample_rows import prune_samples
from cloud_tier.telemetry.shortening import FOLD_ROWS, fold
from cloud_tier.telemetry.writing import Applied, Writer
from runtime.errors import StartError, StorageError, TierwiseError
from runtime.logs import get_logger
from runtime.ports import OutboxItem

# Items that may wait for the database, and those that are committed together.
MAX_WAITING = 256
MAX_BATCH = 64
_CLOSE_S = 15.0


class _Job(NamedTuple):
    """An item, or a piece of work on the database by itself."""

    item: OutboxItem | None
    work: Callable[[Connection], Any] | None
    future: Future[Any]


class TelemetryStore:
    """Counts in a database; a context manager.

    Args:
        url: of the database, as SQLAlchemy has it.
        limits: bounds of what senders can make grow.
        retention: how long rows are kept.
        own_region: the region under which gateways find the cloud tier.
        speakers: for which regions each gateway may speak; empty: see ``claims``.
        wall_s: seconds since 1970.

    Raises:
        StartError: the URL cannot be used, or a later version has changed the tables.
    """

    def __init__(
        self,
        url: str,
        *,
        limits: Limits | None = None,
        retention: Retention | None = None,
        own_region: str = "cloud",
        speakers: Mapping[str, Sequence[str]] | None = None,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self.engine = open_engine(url)
        self._retention, self._wall_s = retention or Retention(), wall_s
        self._writer = Writer(
            limits or Limits(),
            own_region=own_region,
            speakers=speakers or {},
            keeps_samples=self._retention.max_samples > 0,
        )
        self._bound = RowBound()
        self._log = get_logger(database=shown(self.engine.url))
        self._changed = threading.Condition()
        self._jobs: deque[_Job] = deque()
        self._is_closing = self._is_migrated = self._has_failed = False
        try:
            self._ready()
        except StorageError as error:
            # A database on another machine may come later than this process.
            self._failed(error)
        except StartError:
            self.engine.dispose()
            raise
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self._thread.start()

    async def apply(self, item: OutboxItem) -> Applied:
        """Counts an item once; what it returns is committed.

        Raises:
            MalformedBodyError: the item can never be counted.
            StorageError: it was not, and may be sent again.
            ValueError: telemetry takes no items of its kind (``intake.KINDS``).
        """
        applied: Applied = await asyncio.wrap_future(self.submit(item))
        return applied

    def submit(self, item: OutboxItem) -> Future[Applied]:
        """The same without an event loop."""
        return self._put(item, None)

    async def add_up(self, max_rows: int = STEP_ROWS) -> int:
        """One bounded step of adding minutes up to hours and days; returns its rows.

        Raises:
            StorageError: nothing of it was done.
        """
        work = self._put(None, lambda connection: add_up(connection, self._wall_s(), max_rows))
        return int(await asyncio.wrap_future(work))

    async def fold(self, max_rows: int = FOLD_ROWS) -> int:
        """One bounded step of adding up short rows; returns how many.

        Raises:
            StorageError: nothing of it was done.
        """
        work = self._put(None, lambda connection: fold(connection, max_rows))
        return int(await asyncio.wrap_future(work))

    async def prune(self, max_rows: int = STEP_ROWS) -> int:
        """One bounded step of deleting what is old or too much; returns its rows.

        Raises:
            StorageError: nothing of it was done.
        """

        def work(connection: Connection) -> int:
            now_s = self._wall_s()
            num = prune(connection, now_s, self._retention, max_rows, self._bound)
            return num or prune_samples(connection, now_s, self._retention, max_rows)

        return int(await asyncio.wrap_future(self._put(None, work)))

    def close(self) -> None:
        """Ends what is being written and lets the database go; safe to call twice."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(_CLOSE_S)
        self.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _put(
        self, item: OutboxItem | None, work: Callable[[Connection], Any] | None
    ) -> Future[Any]:
        future: Future[Any] = Future()
        with self._changed:
            if self._is_closing or len(self._jobs) >= MAX_WAITING:
                future.set_exception(StorageError("too much telemetry is being written"))
                return future
            self._jobs.append(_Job(item, work, future))
            self._changed.notify()
        return future

    def _run(self) -> None:
        """The thread."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._is_closing)
                batch = [self._jobs.popleft() for _ in range(min(MAX_BATCH, len(self._jobs)))]
            if not batch:
                return
            wanted = [job for job in batch if job.future.set_running_or_notify_cancel()]
            self._count([job for job in wanted if job.item is not None])
            for job in wanted:
                if job.work is not None:
                    self._do(job, job.work)

    def _count(self, jobs: Sequence[_Job]) -> None:
        ready: list[tuple[_Job, Taken]] = []
        for job in jobs:
            try:
                ready.append((job, self._read(job.item)))
            except (TierwiseError, ValueError) as error:
                job.future.set_exception(error)
        if ready and not self._tried(ready) and len(ready) > 1:
            for one in ready:
                self._tried([one])

    def _read(self, item: OutboxItem | None) -> Taken:
        if item is None:
            raise AssertionError("only items are counted")
        taken = read_item(item)
        self._writer.check(taken)
        return taken

    def _tried(self, ready: Sequence[tuple[_Job, Taken]]) -> bool:
        """Whether all was committed; of several that were not, none has been told."""
        try:
            self._ready()
            with writing(self.engine) as connection:
                items = [taken for _, taken in ready]
                outcomes = self._writer.write(connection, items, self._wall_s())
        except Exception as error:  # noqa: BLE001 a defect of one item is its sender's
            self._writer.forget()
            if len(ready) == 1:
                self._failed(error)
                ready[0][0].future.set_exception(error)
            return False
        self._writer.confirm()
        self._recovered()
        for (job, _), outcome in zip(ready, outcomes, strict=True):
            job.future.set_result(outcome)
        return True

    def _do(self, job: _Job, work: Callable[[Connection], Any]) -> None:
        try:
            self._ready()
            with writing(self.engine) as connection:
                result = work(connection)
        except Exception as error:  # noqa: BLE001 whoever asked for the work is told
            self._failed(error)
            job.future.set_exception(error)
        else:
            self._recovered()
            job.future.set_result(result)

    def _ready(self) -> None:
        if not self._is_migrated:
            migrate(self.engine)
            self._is_migrated = True

    def _failed(self, error: Exception) -> None:
        if not self._has_failed:
            self._has_failed = True
            self._log.error("telemetry.failed", error=str(error))

    def _recovered(self) -> None:
        if self._has_failed:
            self._has_failed = False
            self._log.info("telemetry.recovered")
