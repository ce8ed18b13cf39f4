"""Sends small reports up through the outbox: what was decided, and what audits and reviews found.

A report holds counts since the one before it, never a request. Reports are numbered within a life
of the process (``epoch``), so that whoever adds them up sees when one is missing.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from types import TracebackType
from typing import Self

from runtime.exchange.items import json_item
from runtime.messages import ItemKind
from runtime.ports import (
    AuditRecord,
    Clock,
    DecisionLog,
    DecisionRecord,
    Outbox,
    ReviewItem,
    ReviewQueue,
    ReviewResult,
)


class ReportingLog:
    """A ``DecisionLog`` that also counts what goes by; audits are sent up one by one."""

    def __init__(self, log: DecisionLog, outbox: Outbox, clock: Clock, *, epoch: int) -> None:
        self._log, self._outbox, self._clock, self._epoch = log, outbox, clock, epoch
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._latency_ms = 0.0
        self._number = 0
        self._since_s = clock.wall_s()

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
            return
        self._counts[record.outcome, record.reason, record.answered_by] += 1
        self._latency_ms += record.latency_ms

    def report(self) -> None:
        """Puts the counts since the last report into the outbox, where there are any."""
        now_s = self._clock.wall_s()
        counts, self._counts = self._counts, Counter()
        latency_ms, self._latency_ms = self._latency_ms, 0.0
        over_s, self._since_s = max(0.0, now_s - self._since_s), now_s
        if not counts:
            return
        self._number += 1
        report = {
            "epoch": self._epoch,
            "number": self._number,
            "over_s": round(over_s, 3),
            "latency_ms_sum": round(latency_ms, 3),
            "decision_log_dropped": self._log.num_dropped,
            "answers": [
                {"outcome": outcome, "reason": reason, "answered_by": tier, "count": count}
                for (outcome, reason, tier), count in sorted(counts.items())
            ],
        }
        self._outbox.post(json_item(ItemKind.METRICS, report, self._clock))

    async def run(self, interval_s: float) -> None:
        """Reports this often, connected or not, until cancelled."""
        while True:
            await asyncio.sleep(interval_s)
            self.report()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """The log is closed by whoever opened it; what was counted is not lost."""
        self.report()


class ReportingQueue:
    """A ``ReviewQueue`` that sends up a line about each item, without its inputs."""

    def __init__(self, queue: ReviewQueue, outbox: Outbox, clock: Clock) -> None:
        self._queue, self._outbox, self._clock = queue, outbox, clock

    async def put(self, item: ReviewItem, timeout_s: float) -> ReviewResult:
        """Puts an item into the queue, or says why it is not there."""
        result = await self._queue.put(item, timeout_s)
        if result == "queued":
            line = dataclasses.asdict(item)
            del line["body"], line["header_length"]
            self._outbox.post(json_item(ItemKind.REVIEW, line, self._clock))
        return result
