"""From an answer that went to people to what its caller hears: over a gateway, once."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloud_tier.reviews.outcomes import Outcomes
from cloud_tier.reviews.store import Bounds, ReviewStore
from cloud_tier.telemetry.database import open_engine
from fakes.gears import gearbox
from fakes.hierarchy import ask
from fakes.reviews import ListQueue, item, reviewed
from fakes.storing import StoringTier, storing_edge, storing_gateway
from fakes.tiers import UNSURE, NumbersBackend
from fakes.waiting import eventually, until
from runtime import topics
from runtime.adapters.clock import SystemClock
from runtime.adapters.memory_bus import MemoryBroker
from runtime.adapters.review_queue import SqliteReviewQueue
from runtime.core.reviewing import UNDO_S
from runtime.exchange.correction_relay import CorrectionRelay
from runtime.exchange.items import control
from runtime.exchange.reporting import ReportingQueue
from runtime.messages import Correction, ItemKind, Outcome, Reason, Residency, Said, Tier
from runtime.ports import OutboxItem, PutResult
from runtime.review_report import decode_report

ASKED = reviewed()


class Box:
    """An outbox that keeps what is put into it."""

    def __init__(self) -> None:
        self.said: list[OutboxItem] = []

    async def put(self, one: OutboxItem) -> PutResult:
        self.said.append(one)
        return "stored"

    def post(self, one: OutboxItem) -> None:
        self.said.append(one)


class Desk:
    """The store of the cloud, on a clock that can be moved on."""

    def __init__(self, tier: StoringTier, folder: Path) -> None:
        self.later_s = 0.0
        self.engine = open_engine(f"sqlite:///{folder / 'telemetry.sqlite'}")
        self.store = ReviewStore(
            self.engine, Bounds(), wall_s=lambda: tier.clock.wall_s() + self.later_s
        )
        self.kept: list[OutboxItem] = []
        send = tier.storage.outbox.put
        self.outcomes = Outcomes(self.store, self._keep, send, site=tier.identity.site)
        assert tier.receiver is not None
        tier.receiver.appliers = {ItemKind.REVIEW: self.store.apply}

    async def _keep(self, one: OutboxItem) -> None:
        self.kept.append(one)

    async def tell(self) -> int:
        self.later_s += UNDO_S + 2
        return await self.outcomes.tell()

    async def num_callers(self) -> int:
        query = "SELECT count(*) FROM review_callers"
        found = await self.store.run(
            lambda connection: connection.exec_driver_sql(query).scalar_one()
        )
        return int(found)

    def close(self) -> None:
        self.store.close()
        self.engine.dispose()


async def three(
    stack: AsyncExitStack, folder: Path, **options: Any
) -> tuple[StoringTier, StoringTier, StoringTier, Desk]:
    broker = MemoryBroker()
    queue = stack.enter_context(SqliteReviewQueue(folder / "queue"))

    top = StoringTier(
        broker,
        Tier.CLOUD,
        folder,
        NumbersBackend(UNSURE),
        gearbox=gearbox(Tier.CLOUD, ASKED),
        reviews=queue,
    )
    await stack.enter_async_context(top)
    desk = Desk(top, folder)
    stack.callback(desk.close)
    middle = storing_gateway(broker, folder, gearbox=gearbox(Tier.REGIONAL, ASKED))
    await stack.enter_async_context(middle)
    relay = CorrectionRelay(middle.storage, middle.up_bus, middle.identity, region="cloud")
    stack.push_async_callback(relay.close)
    device = storing_edge(broker, folder, gearbox=gearbox(Tier.EDGE, ASKED), **options)
    await stack.enter_async_context(device)
    return device, middle, top, desk


async def reported(desk: Desk, name: str = "i1", **changes: Any) -> None:
    """What the top tier's own queue tells the store."""
    box = Box()
    reporting = ReportingQueue(ListQueue(), box, SystemClock(), sends_inputs=True)
    await reporting.put(item(name, labels=("cat", "dog", "owl"), **changes), 1.0)
    await desk.store.apply(replace(box.said[0], origin="cloud/cloud-1"))


async def test_the_caller_hears_what_people_say_once(stack: AsyncExitStack, tmp_path: Path) -> None:
    device, middle, top, desk = await three(stack, tmp_path)
    await eventually(lambda: device.uplink is not None and device.uplink.choose() is not None)
    answer, _ = await ask(device)
    assert answer.reason is Reason.REVIEW
    known = await until(lambda: device.storage.corrections().known("q1"), bool)
    await until(desk.num_callers, bool)
    await reported(desk, request_id="q1")
    await desk.store.give("i1", "ann", 2)
    await desk.tell()
    (event,) = await until(device.events, bool)
    await until(top.waiting, lambda items: not items)
    await until(middle.waiting, lambda items: not items)
    await desk.tell()
    again = await device.events()

    assert known is not None
    assert known.state == "waiting"
    assert (event.request_id, event.now.label, event.now.label_name) == ("q1", 2, "owl")
    assert (event.now.reason, event.was.reason) == (Reason.REVIEW, Reason.REVIEW)
    assert event.confirmed is False
    assert again == [event]
    assert [one.kind for one in desk.kept] == [ItemKind.FEEDBACK]


async def test_a_devices_own_item_comes_up_and_its_label_goes_home(
    stack: AsyncExitStack, tmp_path: Path
) -> None:
    device, _, _, desk = await three(stack, tmp_path)
    queue = stack.enter_context(SqliteReviewQueue(tmp_path / "device"))
    reporting = ReportingQueue(queue, device.storage.outbox, device.clock, sends_inputs=True)
    one = item("mine", request_id="r7", tier="edge", site=device.identity.site, region="r")
    assert await reporting.put(replace(one, labels=("cat", "dog", "owl")), 5) == "queued"
    await until(lambda: desk.store.next("ann"), bool)
    await desk.store.give("mine", "ann", 0)
    await desk.tell()
    (event,) = await until(device.events, bool)

    # Nobody had waited for it: it is told with what had been answered.
    assert (event.request_id, event.was.label, event.now.label) == ("r7", 1, 0)


@pytest.mark.parametrize(
    ("sends", "residency", "comes"),
    [(True, "cloud", True), (False, "cloud", False), (True, "region", False)],
)
async def test_inputs_travel_only_where_setting_and_residency_let_them(
    sends: bool, residency: str, comes: bool
) -> None:
    box = Box()
    reporting = ReportingQueue(ListQueue(), box, SystemClock(), sends_inputs=sends)
    await reporting.put(item("i1", residency=Residency(residency).value), 1.0)
    report = decode_report(box.said[0].body)

    assert bool(report.body) is comes


async def test_what_is_not_for_this_region_is_left_alone(
    stack: AsyncExitStack, tmp_path: Path
) -> None:
    device, middle, top, _ = await three(stack, tmp_path)
    said = Said(outcome=Outcome.ANSWERED, reason=Reason.REVIEW, label=1)
    await eventually(lambda: top.bus.is_connected and middle.up_bus.is_connected)
    for number, to in enumerate(("elsewhere/agent", "r/", "", "r/a/b#", "r/edge-1")):
        word = Correction("r9", said, item=f"c{number}", gateway=top.identity.site, to=to, was=said)
        top.bus.publish(control(word, topics.agent_replies("cloud", middle.identity.site)))
    (event,) = await until(device.events, bool)
    taken = await middle.storage.outbox.file.run(
        lambda connection: connection.execute("SELECT id FROM seen WHERE id LIKE 'c_'").fetchall()
    )

    assert event.request_id == "r9"
    # Sent last, and the only one that was taken over.
    assert taken == [("c4",)]


async def test_only_a_person_corrects_what_nobody_asked_for(
    stack: AsyncExitStack, tmp_path: Path
) -> None:
    device = await stack.enter_async_context(storing_edge(MemoryBroker(), tmp_path))
    corrections = device.storage.corrections()
    was = Said(outcome=Outcome.ANSWERED, reason=Reason.CONFIDENT, label=1)
    now = Said(outcome=Outcome.ANSWERED, reason=Reason.REVIEW, label=2)

    assert await corrections.apply("r1", now) is None
    event = await corrections.apply("r1", now, was)
    assert await corrections.apply("r1", now, was) is None

    assert event is not None
    assert event.was == was
