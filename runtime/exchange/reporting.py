"""Sends small reports up through the outbox: what was decided, and what audits and reviews found.

Counts come from the decision log (``runtime.adapters.rollup_reader``); how far it has been counted
is kept with the rollup itself, so that a decision is counted once whatever ends the process.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from runtime.adapters.off_loop import in_thread
from runtime.adapters.outbox import SqliteOutbox
from runtime.adapters.rollup_reader import Counted, Cursor, Place, count_on
from runtime.errors import MalformedBodyError, StorageError
from runtime.exchange.items import derived_id, json_item, new_id
from runtime.messages import ItemKind, Residency
from runtime.ports import (
    AuditRecord,
    Clock,
    DecisionLog,
    DecisionRecord,
    Outbox,
    OutboxItem,
    PutResult,
    ReviewItem,
    ReviewQueue,
    ReviewResult,
)
from runtime.review_report import report_of
from runtime.telemetry import Rollup, Source, encode_rollup

# Rollups that may wait to be sent; the log itself holds what comes after them.
MAX_WAITING = 1000
# Who has nothing to count says at least so often that it is there.
LIFE_S = 600.0
# How often a tier looks whether it has told itself something.
_LOOK_S = 5.0
_CURSOR = {"log": "rollup:log", "decisions": "rollup:decisions", "audits": "rollup:audits"}
_log = structlog.get_logger()


class ReportingLog:
    """A ``DecisionLog`` that sends audits up, one by one."""

    def __init__(self, log: DecisionLog, outbox: Outbox, clock: Clock) -> None:
        self._log, self._outbox, self._clock = log, outbox, clock

    @property
    def num_dropped(self) -> int:
        """Records that did not fit."""
        return self._log.num_dropped

    def append(self, record: DecisionRecord | AuditRecord) -> None:
        """Takes a record to be written soon."""
        self._log.append(record)
        if isinstance(record, AuditRecord):
            body = dataclasses.asdict(record)
            self._outbox.post(json_item(ItemKind.AUDIT, body, self._clock))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """The log is closed by whoever opened it."""


class Rollups:
    """Makes rollups of a decision log and puts them into the outbox.

    Args:
        path: of the log.
        settle: has the log write what it has been told, within a time in s.
        max_samples: of a rollup; 0: none.
    """

    def __init__(
        self,
        path: Path,
        outbox: SqliteOutbox,
        place: Place,
        clock: Clock,
        *,
        settle: Callable[[float], bool] = lambda _: True,
        max_samples: int = 0,
    ) -> None:
        self._path, self._outbox, self._place, self._clock = path, outbox, place, clock
        self._settle, self._max_samples = settle, max_samples
        self._told_s = -math.inf

    async def run(self, interval_s: float) -> None:
        """Counts this often, connected or not, until cancelled."""
        while True:
            await asyncio.sleep(interval_s)
            await self.count()

    async def count(self) -> None:
        """Counts all that has been decided so far, as far as the outbox takes it."""
        try:
            while await in_thread(self._count_some):
                pass
        except StorageError as error:
            # The log holds it, and the next round counts it.
            _log.warning("rollup.put_off", error=str(error))

    async def close(self) -> None:
        """Counts once more, with what has been decided last."""
        await asyncio.to_thread(self._settle, 2.0)
        await self.count()

    def _count_some(self) -> bool:
        """Whether there is more to count, and room for it."""
        file = self._outbox.file
        num_waiting = file.submit(_num_waiting).result()
        if num_waiting >= MAX_WAITING:
            return False
        cursor = file.submit(_cursor).result()
        now_s = self._clock.wall_s()
        counted = count_on(self._path, cursor, self._place, now_s, max_samples=self._max_samples)
        if counted is None:
            if cursor.log and not num_waiting and self._is_silent():
                file.submit(lambda connection: self._live(connection, cursor, now_s)).result()
            return False
        result = file.submit(
            lambda connection: self._put(connection, cursor, counted, now_s)
        ).result()
        self._told_s = self._clock.monotonic_s()
        return result == "known" or (result == "stored" and counted.has_more)

    def _is_silent(self) -> bool:
        return self._clock.monotonic_s() - self._told_s >= LIFE_S

    def _live(self, connection: sqlite3.Connection, at: Cursor, now_s: float) -> None:
        """Says that there is nothing new, so that nobody takes it for dead."""
        if _num_waiting(connection) or _cursor(connection) != at:
            # Others have counted since this was looked at.
            return
        place = self._place
        source = Source(
            place.region, place.site, place.tier, at.log, at.decisions + 1, at.decisions,
            audits_first=at.audits + 1, audits_last=at.audits,
        )  # fmt: skip
        body = encode_rollup(Rollup((source,)))
        self._outbox.add(connection, OutboxItem(new_id(), ItemKind.METRICS, now_s, body))
        self._told_s = self._clock.monotonic_s()

    def _put(
        self, connection: sqlite3.Connection, since: Cursor, counted: Counted, now_s: float
    ) -> PutResult:
        """The rollup and how far it goes, or neither; ``known`` where others have counted on."""
        if _cursor(connection) != since:
            return "known"
        to = counted.cursor
        item_id = derived_id("rollup", to.log, str(to.decisions), str(to.audits))
        body = encode_rollup(counted.rollup)
        result = self._outbox.add(connection, OutboxItem(item_id, ItemKind.METRICS, now_s, body))
        if result == "full":
            return result
        values = {"log": int(to.log, 16), "decisions": to.decisions, "audits": to.audits}
        connection.executemany(
            "INSERT OR REPLACE INTO totals VALUES (?, ?)",
            [(_CURSOR[name], value) for name, value in values.items()],
        )
        return result


@asynccontextmanager
async def rolling_up(rollups: Rollups, interval_s: float) -> AsyncIterator[None]:
    """Counts now and then, and once more at the end."""
    task = asyncio.create_task(rollups.run(interval_s), name="rollups")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await rollups.close()


def _num_waiting(connection: sqlite3.Connection) -> int:
    query = "SELECT count(*) FROM items WHERE kind = ?"
    return int(connection.execute(query, (ItemKind.METRICS.value,)).fetchone()[0])


def _cursor(connection: sqlite3.Connection) -> Cursor:
    """How far the log has been counted."""
    found = dict(
        connection.execute("SELECT name, value FROM totals WHERE name LIKE 'rollup:%'").fetchall()
    )
    if _CURSOR["log"] not in found:
        return Cursor()
    return Cursor(
        f"{found[_CURSOR['log']]:x}", found[_CURSOR["decisions"]], found[_CURSOR["audits"]]
    )


async def keep_here(
    outbox: SqliteOutbox, keep: Callable[[OutboxItem], Awaitable[object]], interval_s: float
) -> None:
    """Takes a tier's own rollups and reviews out of its outbox where they end, until cancelled."""
    while True:
        try:
            for item in await outbox.file.run(_own_items):
                await _keep(outbox, keep, item)
        except StorageError as error:
            _log.warning("rollup.put_off", error=str(error))
        await asyncio.sleep(interval_s)


async def _keep(
    outbox: SqliteOutbox, keep: Callable[[OutboxItem], Awaitable[object]], item: OutboxItem
) -> None:
    try:
        await keep(item)
    except MalformedBodyError as error:
        _log.error("rollup.refused", item=item.id, error=str(error))
        await outbox.refused(item.id, error.code)
    else:
        await outbox.applied([item.id])


def _own_items(connection: sqlite3.Connection) -> list[OutboxItem]:
    rows = connection.execute(
        "SELECT id, kind, created_s, body FROM items WHERE kind IN (?, ?) AND target = '' "
        "AND parked = '' ORDER BY seq LIMIT 64",
        (ItemKind.METRICS.value, ItemKind.REVIEW.value),
    )
    return [OutboxItem(item_id, ItemKind(kind), at_s, body) for item_id, kind, at_s, body in rows]


class ReportingQueue:
    """A ``ReviewQueue`` that tells those above about each item.

    Its inputs come along with ``sends_inputs``, where its residency lets them reach the cloud.
    ``is_on`` says whether anybody above is to be told.
    """

    def __init__(
        self,
        queue: ReviewQueue,
        outbox: Outbox,
        clock: Clock,
        *,
        sends_inputs: bool = False,
        is_on: Callable[[], bool] = lambda: True,
    ) -> None:
        self._queue, self._outbox, self._clock = queue, outbox, clock
        self._sends_inputs, self._is_on = sends_inputs, is_on

    async def put(self, item: ReviewItem, timeout_s: float) -> ReviewResult:
        """Puts an item into the queue, or says why it is not there."""
        result = await self._queue.put(item, timeout_s)
        if result == "queued" and self._is_on():
            may = self._sends_inputs and item.residency == Residency.CLOUD
            report = report_of(item, with_inputs=may)
            self._outbox.post(json_item(ItemKind.REVIEW, report, self._clock))
        return result


@asynccontextmanager
async def telling_of_itself(
    rollups: Rollups,
    outbox: SqliteOutbox,
    keep: Callable[[OutboxItem], Awaitable[object]],
    interval_s: float,
) -> AsyncIterator[None]:
    """What the top tier decides is counted as well, and kept where it is, until left."""
    async with rolling_up(rollups, interval_s):
        keeping = asyncio.create_task(keep_here(outbox, keep, min(interval_s, _LOOK_S)))
        try:
            yield
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
