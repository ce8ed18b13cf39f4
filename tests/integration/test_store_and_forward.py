"""What cannot be sent waits, arrives once, and brings corrections home; nothing blocks the rest."""

from __future__ import annotations

import dataclasses
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fakes.clock import FakeClock
from fakes.hierarchy import ask
from fakes.storing import StoringTier, storing_cloud, storing_edge, storing_gateway
from fakes.tiers import SURE, NumbersBackend, request
from fakes.waiting import eventually, until
from runtime import topics
from runtime.adapters.corrections import SqliteCorrections
from runtime.adapters.memory_bus import LinkFaults, MemoryBroker, MemoryBus
from runtime.adapters.metrics import TierMetrics
from runtime.common_settings import StateSettings
from runtime.core.outbox import SILENT
from runtime.exchange.forwarding import open_storage
from runtime.exchange.items import json_item
from runtime.messages import ItemKind, Outcome, Reason, Residency, Said, Tier
from runtime.ports import Message, OutboxItem


def feedback(tier: StoringTier, number: int = 0) -> OutboxItem:
    return json_item(ItemKind.FEEDBACK, {"number": number}, tier.clock)


async def test_a_request_that_could_not_climb_is_corrected_once_when_the_way_is_back(
    stack: AsyncExitStack, tmp_path: Path
) -> None:
    broker = MemoryBroker()
    edge = await stack.enter_async_context(storing_edge(broker, tmp_path))
    assert edge.desk is not None
    heard: list[str] = []
    edge.desk.on_correction(lambda event: heard.append(event.request_id))
    published: list[Message] = []
    observer = MemoryBus(broker, client_id="observer")
    observer.subscribe(topics.agent_corrections("r", edge.identity.site), published.append, qos=1)
    await observer.start()
    stack.push_async_callback(observer.close)

    answer, _ = await ask(edge)
    waiting = await until(edge.waiting, bool)
    cloud = await stack.enter_async_context(storing_cloud(broker, tmp_path))
    gateway = await stack.enter_async_context(storing_gateway(broker, tmp_path))
    (event,) = await until(edge.events, bool)
    await until(edge.waiting, lambda items: not items)
    await until(gateway.waiting, lambda items: not items)
    await eventually(lambda: heard and published)

    assert (answer.outcome, answer.reason) == (Outcome.DEGRADED, Reason.NO_UPSTREAM)
    assert [item.kind for item in waiting] == [ItemKind.ESCALATION]
    assert (event.request_id, event.was.label, event.now.label) == ("q1", 0, 1)
    assert event.confirmed is False
    assert event.now.tier is Tier.CLOUD
    assert [hop.tier for hop in event.now.hops] == [Tier.REGIONAL, Tier.CLOUD]
    assert event.now.outputs[0]["name"] == "logits"
    assert heard == ["q1"]
    assert [msgspec.json.decode(one.payload)["seq"] for one in published] == [1]
    assert cloud.backends[0].num_runs == 1
    assert edge.counted('tierwise_edge_corrections_total{result="changed"}') == 1


async def test_while_the_cloud_is_away_the_gateway_puts_off_what_it_could_not_better(
    stack: AsyncExitStack, tmp_path: Path
) -> None:
    broker = MemoryBroker()
    edge = await stack.enter_async_context(storing_edge(broker, tmp_path))
    await ask(edge)
    gateway = await stack.enter_async_context(storing_gateway(broker, tmp_path))
    deferred = 'tierwise_regional_received_items_total{kind="escalation",result="deferred"}'
    await eventually(lambda: gateway.counted(deferred) >= 3)

    before = await edge.events()
    still = await edge.waiting()
    await stack.enter_async_context(storing_cloud(broker, tmp_path))
    (event,) = await until(edge.events, bool)

    assert before == []
    # Put off again and again, and never parked for it.
    assert [item.parked for item in still] == [""]
    assert event.now.tier is Tier.CLOUD


async def test_an_answer_that_agrees_is_an_event_that_says_so(
    stack: AsyncExitStack, tmp_path: Path
) -> None:
    broker = MemoryBroker()
    edge = await stack.enter_async_context(storing_edge(broker, tmp_path))
    await ask(edge)
    await stack.enter_async_context(storing_gateway(broker, tmp_path, NumbersBackend(SURE)))

    (event,) = await until(edge.events, bool)

    assert event.confirmed is True


@pytest.mark.parametrize("residency", [Residency.DEVICE, Residency.REGION])
async def test_a_payload_that_must_stay_is_in_no_outbox_and_not_sent_beyond(
    stack: AsyncExitStack, tmp_path: Path, residency: Residency
) -> None:
    broker = MemoryBroker()
    cloud = await stack.enter_async_context(storing_cloud(broker, tmp_path))
    # An agent without a gateway: the region is below whom it would ask.
    edge = await stack.enter_async_context(
        StoringTier(broker, Tier.EDGE, tmp_path, NumbersBackend((0.3, 0.2, 0.1)), above=Tier.CLOUD)
    )

    answer, _ = await ask(edge, residency=residency)
    # Work of the file is in order: what was to be put in would be there.
    waiting = await edge.waiting()

    assert answer.reason is Reason.RESIDENCY
    assert waiting == []
    assert cloud.backends[0].num_runs == 0
    secret = b'"id":"q1"'
    files = [edge._folder / name for name in ("outbox.sqlite", "outbox.sqlite-wal")]
    assert not any(secret in path.read_bytes() for path in files)


async def test_a_payload_of_the_region_is_corrected_by_the_region_alone(
    stack: AsyncExitStack, tmp_path: Path
) -> None:
    broker = MemoryBroker()
    edge = await stack.enter_async_context(storing_edge(broker, tmp_path))
    await ask(edge, residency=Residency.REGION)
    cloud = await stack.enter_async_context(storing_cloud(broker, tmp_path))
    gateway = await stack.enter_async_context(storing_gateway(broker, tmp_path))

    (event,) = await until(edge.events, bool)

    assert (event.now.tier, event.now.reason) == (Tier.REGIONAL, Reason.RESIDENCY)
    assert cloud.backends[0].num_runs == 0
    assert [item.kind for item in await gateway.waiting()] in ([], [ItemKind.CORRECTION])


async def test_what_is_published_while_disconnected_is_stored_not_dropped(
    stack: AsyncExitStack, tmp_path: Path
) -> None:
    # Peer that fails: Frigate, whose publish drops the message at debug level.
    broker = MemoryBroker()
    cloud = await stack.enter_async_context(storing_cloud(broker, tmp_path))
    gateway = await stack.enter_async_context(storing_gateway(broker, tmp_path))
    edge = await stack.enter_async_context(storing_edge(broker, tmp_path))
    assert edge.uplink is not None
    edge.up_bus.partition()
    edge.up_bus.drop_connection()
    await eventually(lambda: not edge.up_bus.is_connected)

    results = [await edge.storage.outbox.put(feedback(edge, number)) for number in range(20)]
    edge.up_bus.heal()
    received = await until(cloud.received, lambda rows: len(rows) == 20)

    assert results == ["stored"] * 20
    assert sorted(msgspec.json.decode(body)["number"] for _, _, body in received) == list(range(20))
    assert {(kind, origin) for kind, origin, _ in received} == {("feedback", "r/edge-1")}
    await until(edge.waiting, lambda items: not items)
    await until(gateway.waiting, lambda items: not items)


async def test_what_arrives_twice_on_a_bad_link_is_applied_once(
    stack: AsyncExitStack, tmp_path: Path
) -> None:
    broker = MemoryBroker()
    link = LinkFaults(delay_s=0.002, jitter_s=0.01, loss=0.2, duplication=0.5)
    cloud = await stack.enter_async_context(storing_cloud(broker, tmp_path, link=link))
    await stack.enter_async_context(storing_gateway(broker, tmp_path, link=link))
    edge = await stack.enter_async_context(storing_edge(broker, tmp_path, link=link))

    for number in range(30):
        await edge.storage.outbox.put(feedback(edge, number))
    await until(edge.waiting, lambda items: not items)
    received = await until(cloud.received, lambda rows: len(rows) >= 30)

    numbers = [msgspec.json.decode(body)["number"] for _, _, body in received]
    assert sorted(numbers) == list(range(30))


async def test_a_poison_item_parks_alone(stack: AsyncExitStack, tmp_path: Path) -> None:
    # Peer that fails: Groundlight, whose queue is stuck behind one bad item.
    broker = MemoryBroker()
    cloud = await stack.enter_async_context(storing_cloud(broker, tmp_path))
    await stack.enter_async_context(storing_gateway(broker, tmp_path))
    edge = await stack.enter_async_context(storing_edge(broker, tmp_path))

    now_s = edge.clock.wall_s()
    poison = OutboxItem("poison", ItemKind.FEEDBACK, now_s - 60, b"no JSON")
    await edge.storage.outbox.put(poison)
    for number in range(20):
        await edge.storage.outbox.put(feedback(edge, number))
    await until(cloud.received, lambda rows: len(rows) == 20)
    (left,) = await until(edge.waiting, lambda items: len(items) == 1)

    assert (left.id, left.parked) == ("poison", "malformed_body")
    assert edge.counted('tierwise_edge_outbox_parked_items_total{kind="feedback"}') == 1


async def test_an_item_about_which_there_is_only_silence_parks_and_holds_up_nobody(
    stack: AsyncExitStack, tmp_path: Path
) -> None:
    broker = MemoryBroker()
    cloud = await stack.enter_async_context(storing_cloud(broker, tmp_path))
    gateway = await stack.enter_async_context(storing_gateway(broker, tmp_path))
    edge = await stack.enter_async_context(storing_edge(broker, tmp_path))
    assert gateway.receiver is not None
    take_over = gateway.receiver._received.take_over

    async def crashes(item: OutboxItem, sender: str) -> str:
        if b"poison" in item.body:
            raise ZeroDivisionError
        return await take_over(item, sender)

    gateway.receiver._received.take_over = crashes  # type: ignore[method-assign,assignment]
    poison = json_item(ItemKind.FEEDBACK, {"poison": True}, edge.clock)
    await edge.storage.outbox.put(poison)

    async def parked() -> str:
        # Others go on coming, and are heard of.
        await edge.storage.outbox.put(feedback(edge))
        (item,) = [one for one in await edge.waiting() if one.id == poison.id]
        return item.parked

    await until(parked, bool)
    (left,) = await until(edge.waiting, lambda items: len(items) == 1)
    assert (left.id, left.parked) == (poison.id, SILENT)
    assert len(await cloud.received()) > 0


async def test_an_outage_of_everybody_parks_nothing(stack: AsyncExitStack, tmp_path: Path) -> None:
    broker = MemoryBroker()
    edge = await stack.enter_async_context(storing_edge(broker, tmp_path))
    assert edge.sender is not None
    # Somebody is said to be there, and hears nothing.
    edge.sender._way = dataclasses.replace(edge.sender._way, can_send=lambda: True)
    await edge.storage.outbox.put(feedback(edge))

    items = await until(edge.waiting, lambda items: items[0].attempts > 4)

    assert items[0].parked == ""


async def test_a_gateway_that_restarts_applies_nothing_again(
    stack: AsyncExitStack, tmp_path: Path
) -> None:
    broker = MemoryBroker()
    cloud = await stack.enter_async_context(storing_cloud(broker, tmp_path))
    edge = await stack.enter_async_context(storing_edge(broker, tmp_path))
    item = feedback(edge)
    async with storing_gateway(broker, tmp_path):
        await edge.storage.outbox.put(item)
        await until(edge.waiting, lambda items: not items)
        await until(cloud.received, bool)

    # The acknowledgement was lost, say: the same item comes once more, to the next life.
    await edge.storage.outbox.put(item)
    gateway = await stack.enter_async_context(storing_gateway(broker, tmp_path))
    await until(edge.waiting, lambda items: not items)

    known = 'tierwise_regional_received_items_total{kind="feedback",result="known"}'
    # Sent while the gateway was coming back, it may have come twice: both times it was known.
    assert gateway.counted(known) >= 1
    assert len(await cloud.received()) == 1


async def test_a_reply_that_is_late_is_a_correction_at_once(
    stack: AsyncExitStack, tmp_path: Path
) -> None:
    broker = MemoryBroker()
    backend = NumbersBackend(SURE, delay_s=0.6)
    gateway = await stack.enter_async_context(storing_gateway(broker, tmp_path, backend))
    edge = await stack.enter_async_context(storing_edge(broker, tmp_path, link=LinkFaults(0.3)))
    await eventually(lambda: edge.uplink is not None and edge.uplink.choose())

    answer, _ = await ask(edge, budget_ms=1000)
    (event,) = await until(edge.events, bool)
    waiting = await edge.waiting()

    assert answer.reason is Reason.UPSTREAM_TIMEOUT
    assert (event.now.tier, event.now.outcome) == (Tier.REGIONAL, Outcome.ANSWERED)
    assert waiting == []
    assert backend.num_runs == 1
    assert gateway.counted('tierwise_regional_refused_requests_total{code="cancelled"}') == 0


async def test_a_correction_waits_for_an_agent_that_is_away(
    stack: AsyncExitStack, tmp_path: Path
) -> None:
    broker = MemoryBroker()
    gateway = await stack.enter_async_context(
        storing_gateway(broker, tmp_path, NumbersBackend(SURE))
    )
    first = storing_edge(broker, tmp_path)
    async with first:
        await eventually(lambda: first.uplink is not None and first.uplink.choose())
        assert first.desk is not None
        # It hears no corrections, as if it went away in this moment.
        replies = topics.agent_replies("r", "edge-1")
        hearing = first.up_bus._subscriptions._by_filter[replies].handlers
        hearing.remove(first.desk._on_control)
        first.uplink.on_late = None  # type: ignore[union-attr]
        await ask(first, budget_ms=4)
        await until(gateway.waiting, bool)
        before = await first.events()

    second = await stack.enter_async_context(storing_edge(broker, tmp_path))
    (event,) = await until(second.events, bool)
    await until(gateway.waiting, lambda items: not items)

    assert before == []
    assert event.now.label == 0


@pytest.mark.parametrize(
    "asked",
    [
        {"inputs": {"x": np.zeros((2, 2), np.float32)}},
        {"audit": True},
        {"hop": 1},
        {"inputs": {"x": np.zeros((1, 3000), np.float32)}},
    ],
)
async def test_what_is_no_single_small_question_of_ours_is_not_asked_again(
    stack: AsyncExitStack, tmp_path: Path, asked: dict[str, Any]
) -> None:
    edge = await stack.enter_async_context(storing_edge(MemoryBroker(), tmp_path))
    assert edge.desk is not None

    assert edge.desk.wants(request())
    assert not edge.desk.wants(request(**asked))


async def test_one_request_id_is_corrected_once_however_often_it_is_asked(
    stack: AsyncExitStack, tmp_path: Path
) -> None:
    broker = MemoryBroker()
    edge = await stack.enter_async_context(storing_edge(broker, tmp_path))
    for _ in range(3):
        await ask(edge)
    waiting = await edge.waiting()
    await stack.enter_async_context(storing_gateway(broker, tmp_path, NumbersBackend(SURE)))
    await until(edge.events, bool)
    await ask(edge, budget_ms=3)

    assert len(waiting) == 1
    assert len(await edge.events()) == 1
    assert await edge.waiting() == []


async def test_what_is_known_of_corrections_is_bounded(tmp_path: Path) -> None:
    clock = FakeClock(wall_s=1_800_000_000.0)
    was = Said(Outcome.DEGRADED, Reason.NO_UPSTREAM, label=1)
    with open_storage(tmp_path, StateSettings(), clock, TierMetrics(Tier.EDGE)) as storage:
        table = SqliteCorrections(storage.outbox, clock, max_rows=3, max_age_s=100)

        async def corrected(name: str) -> None:
            item = OutboxItem(name, ItemKind.ESCALATION, clock.wall_s(), b"")
            table.expect(name, was, item)
            await table.apply(name, was)

        for number in range(5):
            await corrected(f"q{number}")
        by_number = [event.request_id for event in await table.after(0)]
        clock.advance(101)
        await corrected("later")
        by_age = [(event.seq, event.request_id) for event in await table.after(0)]

    assert by_number == ["q2", "q3", "q4"]
    assert by_age == [(6, "later")]


async def test_a_request_that_is_given_up_says_so(tmp_path: Path) -> None:
    clock = FakeClock(wall_s=1_800_000_000.0)
    was = Said(Outcome.DEGRADED, Reason.NO_UPSTREAM, label=1)
    settings = StateSettings(outbox_max_age_s=100)
    with open_storage(tmp_path, settings, clock, TierMetrics(Tier.EDGE)) as storage:
        table = SqliteCorrections(storage.outbox, clock, max_age_s=1000)
        table.expect("q1", was, OutboxItem("i1", ItemKind.ESCALATION, clock.wall_s(), b""))
        clock.advance(101)
        await storage.outbox.put(OutboxItem("i2", ItemKind.AUDIT, clock.wall_s(), b"{}"))
        known = await table.known("q1")

    assert known is not None
    assert known.state == "dropped"
