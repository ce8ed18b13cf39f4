"""What a gateway says about items, and what an agent makes of it, whatever goes wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from fakes.hierarchy import ask
from fakes.storing import StoringTier, storing_cloud, storing_edge, storing_gateway
from fakes.tiers import SURE, NumbersBackend, request
from fakes.waiting import eventually, until
from runtime import topics
from runtime.adapters.memory_bus import MemoryBroker, MemoryBus
from runtime.errors import PayloadTooLargeError, StorageError
from runtime.exchange.items import control, json_item
from runtime.exchange.receiving import MAX_WAITING
from runtime.exchange.wire import request_message
from runtime.messages import (
    Applied,
    ControlMessage,
    Correction,
    Deferred,
    ItemKind,
    Outcome,
    Reason,
    Refused,
    Said,
    Tier,
    decode_control,
)
from runtime.ports import Message, OutboxItem


@dataclass
class Visitor:
    """Somebody who publishes what it likes, and hears what is said to it."""

    bus: MemoryBus
    words: list[ControlMessage | None] = field(default_factory=list)

    def send(self, body: bytes = b"{}", item: str = "i1", kind: str = "feedback") -> None:
        user = ((topics.ITEM, item), (topics.KIND, kind))
        self.bus.publish(Message(topics.up("r", "visitor"), body, qos=1, user=user))

    def send_escalation(self, item: str = "e1", model: str = "animals") -> None:
        asked = request(item, inputs={"x": np.zeros((1, 2), np.float32)})
        made = request_message(
            asked, topic="", response_topic="", correlation=b"", remaining_ms=1000
        )
        said = [(name, value) for name, value in made.user if name != topics.MODEL]
        user = (
            (topics.ITEM, item),
            (topics.KIND, "escalation"),
            (topics.MODEL, model),
            *said,
        )
        self.bus.publish(Message(topics.up("r", "visitor"), made.payload, qos=1, user=user))

    async def hears(self, *words: ControlMessage) -> None:
        await eventually(lambda: [one for one in self.words if one in words])


@pytest.fixture
async def broker() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
async def visitor(broker: MemoryBroker) -> AsyncIterator[Visitor]:
    visitor = Visitor(MemoryBus(broker, client_id="visitor"))
    visitor.bus.subscribe(
        topics.agent_replies("r", "visitor"),
        lambda message: visitor.words.append(decode_control(message.payload)),
        qos=1,
    )
    await visitor.bus.start()
    await visitor.bus.wait_connected(10)
    yield visitor
    await visitor.bus.close()


@pytest.fixture
async def gateway(broker: MemoryBroker, tmp_path: Path) -> AsyncIterator[StoringTier]:
    backend = NumbersBackend(SURE)
    async with storing_gateway(broker, tmp_path, backend) as gateway:
        await gateway.bus.wait_connected(10)
        yield gateway


async def test_an_item_is_acknowledged_when_it_is_kept(
    visitor: Visitor, gateway: StoringTier
) -> None:
    visitor.send()
    await visitor.hears(Applied(("i1",)))
    visitor.send()
    await eventually(lambda: len(visitor.words) == 2)

    assert visitor.words == [Applied(("i1",))] * 2
    assert len(await gateway.waiting()) == 1


async def test_what_is_no_item_is_refused_or_counted(
    visitor: Visitor, gateway: StoringTier
) -> None:
    visitor.send(b"no JSON")
    await visitor.hears(Refused("i1", "malformed_body"))
    visitor.send(item="")
    sample = 'tierwise_regional_received_items_total{kind="unknown",result="undecodable"}'
    await eventually(lambda: gateway.counted(sample) == 1)

    assert await gateway.waiting() == []


@pytest.mark.parametrize(("model", "code"), [("plants", "unknown_model"), ("animals", "")])
async def test_an_escalation_that_can_never_be_answered_is_refused(
    visitor: Visitor, gateway: StoringTier, model: str, code: str
) -> None:
    visitor.send_escalation(model=model)

    await visitor.hears(Refused("e1", code), Applied(("e1",)))
    assert gateway.backends[0].num_runs == (0 if code else 1)


async def test_a_correction_is_made_once_and_retried_until_it_is_acknowledged(
    visitor: Visitor, gateway: StoringTier
) -> None:
    visitor.send_escalation()
    await visitor.hears(Applied(("e1",)))
    await eventually(lambda: [one for one in visitor.words if isinstance(one, Correction)])
    visitor.send_escalation()
    await eventually(lambda: visitor.words.count(Applied(("e1",))) == 2)

    (correction, *_) = [one for one in visitor.words if isinstance(one, Correction)]
    waiting = await gateway.waiting()
    topic = topics.gateway_requests("r", correction.gateway, "visitor")
    visitor.bus.publish(control(Applied((correction.item,)), topic))
    await until(gateway.waiting, lambda items: not items)

    assert (correction.request_id, correction.said.tier) == ("e1", Tier.REGIONAL)
    assert [item.kind for item in waiting] == [ItemKind.CORRECTION]
    assert gateway.backends[0].num_runs == 1


async def test_a_gateway_with_a_full_disk_puts_items_off(
    visitor: Visitor, gateway: StoringTier
) -> None:
    async def fails(*_: object) -> NoReturn:
        raise StorageError("no space left on device")

    assert gateway.receiver is not None
    received = gateway.receiver._received
    received.take_over = received.answer = fails  # type: ignore[method-assign,assignment]
    visitor.send(item="f1")
    visitor.send_escalation()

    await visitor.hears(Deferred("f1", 100.0))
    await visitor.hears(Deferred("e1", 100.0))
    assert await gateway.waiting() == []


async def test_a_gateway_with_a_full_outbox_puts_items_off(
    visitor: Visitor, gateway: StoringTier
) -> None:
    async def full(*_: object) -> str:
        return "full"

    assert gateway.receiver is not None
    received = gateway.receiver._received
    received.take_over = received.answer = full  # type: ignore[method-assign,assignment]
    visitor.send(item="f1")
    visitor.send_escalation()

    await visitor.hears(Deferred("f1", 100.0))
    await visitor.hears(Deferred("e1", 100.0))


async def test_late_escalations_wait_while_requests_do_and_are_bounded(
    visitor: Visitor, gateway: StoringTier
) -> None:
    assert gateway.receiver is not None
    is_busy = True
    gateway.receiver.is_busy = lambda: is_busy
    for number in range(MAX_WAITING + 3):
        visitor.send_escalation(f"e{number}")
    visitor.send_escalation("e0")
    await eventually(lambda: visitor.words)
    runs_before = gateway.backends[0].num_runs
    is_busy = False
    await visitor.hears(Applied(("e0",)))

    # Two are in hand, the others wait; what finds no place comes again.
    assert isinstance(visitor.words[0], Deferred)
    assert runs_before == 0
    duplicate = 'tierwise_regional_received_items_total{kind="escalation",result="duplicate"}'
    assert gateway.counted(duplicate) == 1


async def test_a_crash_over_one_escalation_costs_no_other(
    visitor: Visitor, gateway: StoringTier
) -> None:
    assert gateway.receiver is not None
    answer = gateway.flow.answer

    async def crashes(asked: object, deadline: object) -> object:
        if getattr(asked, "request_id", "") == "e1":
            raise ZeroDivisionError
        return await answer(asked, deadline)  # type: ignore[arg-type]

    gateway.flow.answer = crashes  # type: ignore[method-assign,assignment]
    visitor.send_escalation("e1")
    visitor.send_escalation("e2")

    await visitor.hears(Applied(("e2",)))
    assert Applied(("e1",)) not in visitor.words


async def test_a_cloud_keeps_what_arrives_within_its_quota(
    broker: MemoryBroker, tmp_path: Path
) -> None:
    async with storing_cloud(broker, tmp_path) as cloud:
        assert cloud.receiver is not None
        cloud.receiver._received._max_bytes = 10 * 2048
        for number in range(30):
            item = OutboxItem(f"i{number}", ItemKind.AUDIT, 1.0, bytes(1024), origin="r/a")
            await cloud.receiver._received.take_over(item, "gateway-1")
        rows = await cloud.received()

    assert 8 <= len(rows) <= 10


async def test_the_way_back_is_known_after_a_restart_and_ways_are_bounded(
    broker: MemoryBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.adapters.received.MAX_WAYS", 3)
    async with storing_gateway(broker, tmp_path) as gateway:
        received = gateway.storage.received(sends_on=True)
        for number in range(5):
            await received.note_way(f"r{number}", "gateway-1")
        await received.note_way("r2", "gateway-2")
        await received.note_way("r2", "gateway-2")
    async with storing_gateway(broker, tmp_path) as gateway:
        received = gateway.storage.received(sends_on=True)
        ways = [await received.way_to(f"r{number}") for number in range(5)]

    assert ways == ["", "", "gateway-2", "gateway-1", "gateway-1"]


async def test_what_is_refused_does_not_turn_the_way_back(
    broker: MemoryBroker, tmp_path: Path
) -> None:
    async with storing_cloud(broker, tmp_path) as cloud, AsyncExitStack() as stack:
        assert cloud.receiver is not None
        region = cloud.identity.region
        bus = MemoryBus(broker, client_id="stranger")
        words: list[ControlMessage | None] = []
        bus.subscribe(
            topics.agent_replies(region, "stranger"),
            lambda message: words.append(decode_control(message.payload)),
            qos=1,
        )
        await bus.start()
        stack.push_async_callback(bus.close)
        await bus.wait_connected(10)
        for kind in ("metrics", "feedback"):
            user = ((topics.ITEM, kind), (topics.KIND, kind), (topics.ORIGIN, f"of-{kind}/cam-1"))
            bus.publish(Message(topics.up(region, "stranger"), b"{}", qos=1, user=user))
        await eventually(lambda: len(words) == 2)
        received = cloud.receiver._received
        ways = [await received.way_to(f"of-{kind}") for kind in ("metrics", "feedback")]

    assert {type(word) for word in words} == {Refused, Applied}
    assert ways == ["", "stranger"]


async def test_an_item_that_no_broker_takes_is_parked(broker: MemoryBroker, tmp_path: Path) -> None:
    async with (
        storing_cloud(broker, tmp_path),
        storing_gateway(broker, tmp_path),
        storing_edge(broker, tmp_path) as edge,
    ):
        publish = edge.up_bus.publish

        def refuses(message: Message) -> int:
            if message.property(topics.ITEM):
                raise PayloadTooLargeError("over the limit of the broker")
            return publish(message)

        edge.up_bus.publish = refuses  # type: ignore[method-assign]
        await edge.storage.outbox.put(json_item(ItemKind.FEEDBACK, {}, edge.clock))
        items = await until(edge.waiting, lambda items: items[0].parked)

    assert [item.parked for item in items] == ["payload_too_large"]


async def test_an_outbox_that_cannot_be_read_is_read_again_later(
    broker: MemoryBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.exchange.sending._AFTER_TROUBLE_S", 0.01)
    async with (
        storing_cloud(broker, tmp_path) as cloud,
        storing_gateway(broker, tmp_path),
        storing_edge(broker, tmp_path) as edge,
    ):
        take, failures = edge.storage.outbox.take, iter(range(2))

        async def fails(order: object) -> list[OutboxItem]:
            if next(failures, None) is not None:
                raise StorageError("the disk is away")
            return await take(order)  # type: ignore[arg-type]

        edge.storage.outbox.take = fails  # type: ignore[method-assign]
        await edge.storage.outbox.put(json_item(ItemKind.FEEDBACK, {}, edge.clock))
        await until(cloud.received, bool)

    assert next(failures, None) is None


async def test_while_requests_go_on_items_go_one_by_one(
    broker: MemoryBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.exchange.sending.MAX_PAUSE_S", 0.05)
    async with (
        storing_cloud(broker, tmp_path) as cloud,
        storing_gateway(broker, tmp_path),
        storing_edge(broker, tmp_path) as edge,
    ):
        assert edge.sender is not None
        object.__setattr__(edge.sender._way, "is_busy", lambda: True)
        for _ in range(3):
            await edge.storage.outbox.put(json_item(ItemKind.FEEDBACK, {}, edge.clock))
        await until(cloud.received, lambda rows: len(rows) == 3)


async def test_strange_words_to_an_agent_change_nothing(
    broker: MemoryBroker, tmp_path: Path
) -> None:
    said = Said(Outcome.ANSWERED, Reason.TOP_TIER, Tier.CLOUD, 1)
    async with storing_edge(broker, tmp_path) as edge:
        await ask(edge)
        assert edge.desk is not None
        reply = topics.agent_replies("r", "edge-1")
        words: list[ControlMessage] = [
            Correction("never asked", said, item="c1", gateway="gateway-1"),
            Correction("q1", said, item="c2", gateway="no/such gateway"),
            Correction("q1", said, item="c3", gateway="gateway-1"),
        ]
        for word in words:
            edge.up_bus.publish(control(word, reply))
        edge.up_bus.publish(Message(reply, b"{", content_type=control(words[0], "x").content_type))
        edge.up_bus.publish(Message(topics.agent_corrections("r", "edge-1"), b"no event"))
        unknown = 'tierwise_edge_corrections_total{result="ignored"}'
        await eventually(lambda: edge.counted(unknown) == 2)
        ignored = 'tierwise_edge_ignored_messages_total{kind="undecodable"}'
        await eventually(lambda: edge.counted(ignored) == 1)
        events = await edge.events()

    assert [event.request_id for event in events] == ["q1"]
    assert edge.counted('tierwise_edge_ignored_messages_total{kind="late_reply"}') == 0
