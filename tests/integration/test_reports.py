"""Counts, audits and reviews go up through the outbox, also those of a time without a network."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import msgspec
import numpy as np

from edge_agent.agent import Agent
from edge_agent.settings import EdgeSettings
from fakes.hierarchy import ask
from fakes.reviews import ListQueue
from fakes.reviews import item as review
from fakes.storing import storing_cloud, storing_edge, storing_gateway
from fakes.tiers import ListLog
from fakes.waiting import eventually, until
from runtime.adapters.clock import SystemClock
from runtime.adapters.memory_bus import MemoryBroker, MemoryBus
from runtime.adapters.outbox_reader import find_item, items_in, received_in
from runtime.exchange.chores import Chores
from runtime.exchange.reporting import ReportingLog, ReportingQueue
from runtime.messages import ItemKind, Tensors
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


async def test_offline_metrics_are_buffered_and_arrive_later(tmp_path: Path) -> None:
    # Peer that fails: Roboflow, whose metrics of a time without a network are lost.
    broker = MemoryBroker()
    async with storing_edge(broker, tmp_path) as edge:
        reports = ReportingLog(ListLog(), edge.storage.outbox, edge.clock, epoch=9)
        edge.flow._ledger._log = reports
        for _ in range(3):
            await ask(edge)
        reports.report()
        reports.report()
        async with storing_gateway(broker, tmp_path), storing_cloud(broker, tmp_path) as cloud:
            found = await until(cloud.received, bool)

    ((_, origin, body),) = found
    report = msgspec.json.decode(body)
    assert origin == "r/edge-1"
    assert (report["epoch"], report["number"]) == (9, 1)
    expected = {"outcome": "degraded", "reason": "no_upstream", "answered_by": "edge", "count": 3}
    assert report["answers"] == [expected]


async def test_audits_and_reviews_go_up_as_they_end() -> None:
    outbox, log, queue = ListOutbox(), ListLog(), ListQueue()
    reports = ReportingLog(log, outbox, SystemClock(), epoch=1)
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


async def test_an_agent_reports_now_and_then_and_at_its_end(edge_settings: EdgeSettings) -> None:
    state = msgspec.structs.replace(edge_settings.state, rollup_interval_s=0.05)
    settings = msgspec.structs.replace(edge_settings, state=state)
    path = Path(state.folder) / "outbox.sqlite"
    grey: Tensors = {"image": np.zeros((1, 28, 28), np.float32)}

    def numbers() -> list[int]:
        found = [find_item(path, item.id) for item in items_in(path) if item.kind == "metrics"]
        return [json.loads(item.body)["number"] for item in found if item]

    async with Agent(settings, bus=MemoryBus(MemoryBroker(), client_id="a")) as agent:
        await agent.infer(grey)
        await eventually(lambda: numbers() == [1])
        await agent.infer(grey)

    assert numbers() == [1, 2]
    assert received_in(path) == []


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
