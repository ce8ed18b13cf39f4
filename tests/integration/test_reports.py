"""Audits and reviews go up through the outbox."""

from __future__ import annotations

import asyncio
import json

from fakes.reviews import ListQueue
from fakes.reviews import item as review
from fakes.tiers import ListLog
from runtime.adapters.clock import SystemClock
from runtime.exchange.chores import Chores
from runtime.exchange.reporting import ReportingLog, ReportingQueue
from runtime.messages import ItemKind
from runtime.ports import AuditRecord, OutboxItem, PutResult

AUDIT = AuditRecord(1.0, "q1", "edge-1", "p", "g", 0.5, "edge=1:0.5", agrees=True)


class ListOutbox:
    """An outbox in memory."""

    def __init__(self) -> None:
        self.items: list[OutboxItem] = []

    async def put(self, item: OutboxItem) -> PutResult:
        self.items.append(item)
        return "stored"

    def post(self, item: OutboxItem) -> None:
        self.items.append(item)


async def test_audits_and_reviews_go_up_as_they_end() -> None:
    outbox, log, queue = ListOutbox(), ListLog(), ListQueue()
    reports = ReportingLog(log, outbox, SystemClock())
    reviews = ReportingQueue(queue, outbox, SystemClock())

    reports.append(AUDIT)
    queued = await reviews.put(review("i1"), 1.0)
    queue.says = "full"
    full = await reviews.put(review("i2"), 1.0)

    assert (queued, full) == ("queued", "full")
    assert log.audits == [AUDIT]
    assert [item.kind for item in outbox.items] == [ItemKind.AUDIT, ItemKind.REVIEW]
    assert json.loads(outbox.items[0].body)["agrees"] is True
    line = json.loads(outbox.items[1].body)
    assert line["item"] == "i1"
    assert "body" not in line


async def test_work_that_fails_is_logged_and_costs_no_other() -> None:
    chores, done = Chores(), asyncio.Event()

    async def crash() -> None:
        raise ZeroDivisionError

    async def works() -> None:
        done.set()

    async def hangs() -> None:
        await asyncio.Event().wait()

    chores.start(crash(), "crash")
    chores.start(works(), "works")
    await done.wait()
    chores.keep_up(hangs(), "hangs")
    await chores.close()
    chores.start(works(), "too late")

    assert not chores._short
    assert not chores._endless


async def test_what_goes_on_step_by_step_finishes_the_one_that_it_is_in() -> None:
    chores, begun, may_go_on = Chores(), asyncio.Event(), asyncio.Event()
    steps: list[str] = []

    async def works() -> None:
        while not chores.is_closing:
            begun.set()
            await may_go_on.wait()
            steps.append("done")
            await chores.pause(60.0)

    chores.start(works(), "works")
    await begun.wait()
    closing = asyncio.ensure_future(chores.close())
    await asyncio.sleep(0)
    may_go_on.set()
    await closing

    assert steps == ["done"]


async def test_a_pause_ends_by_itself() -> None:
    chores = Chores()

    await chores.pause(0.0)

    assert not chores.is_closing
