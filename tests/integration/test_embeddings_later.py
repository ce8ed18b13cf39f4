"""Where requests go up beside the usual way, the embedding goes too: audits, outboxes, races."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes.embeddings import OTHER, PASSED, asked, head_backend, head_of, tail, tail_of, top
from fakes.hierarchy import ask, edge, online
from fakes.storing import StoringTier, storing_gateway
from fakes.tiers import SURE, UNSURE, NumbersBackend
from fakes.waiting import eventually, until
from runtime.adapters.memory_bus import MemoryBroker
from runtime.codec import decode_request
from runtime.core.audit import AuditSettings
from runtime.exchange.wire import parse_request
from runtime.messages import Outcome, Residency, Tier
from runtime.ports import Message, OutboxItem

ALWAYS = AuditSettings(rate=2.0)


def _storing(
    broker: MemoryBroker, folder: Path, backend: NumbersBackend | None = None, **more: Any
) -> StoringTier:
    backend = backend or head_backend(UNSURE)
    above = Tier.REGIONAL
    said = head_of()
    return StoringTier(broker, Tier.EDGE, folder, backend, above=above, described_as=said, **more)


def _kept(item: OutboxItem) -> dict[str, Any]:
    properties = dict(item.properties)
    body = decode_request(item.body, int(properties["header-length"]), max_bytes=10_000)
    return {**body.inputs, "forwarded-by": properties.get("forwarded-by", "")}


async def test_an_audit_sends_the_embedding_up_to_every_tier() -> None:
    broker = MemoryBroker()
    device = edge(broker, head_backend(SURE), described_as=head_of(), audits=ALWAYS)
    middle, highest = tail(broker, backend=NumbersBackend(UNSURE)), top(broker)
    async with AsyncExitStack() as stack:
        await online(stack, device, middle, highest)
        answer, _ = await ask(device)
        await eventually(lambda: device.log.audits)

    assert answer.tier is Tier.EDGE
    for one in (middle, highest):
        np.testing.assert_array_equal(asked(one)["embedding"], [PASSED])
    assert device.log.audits[0].agrees is True


@pytest.mark.parametrize("passed", [np.zeros(0, np.float32), np.full(4, np.nan, np.float32)])
async def test_an_audit_of_an_answer_without_an_embedding_does_not_come_back(
    passed: np.ndarray,
) -> None:
    broker = MemoryBroker()
    device = edge(broker, head_backend(SURE, passed), described_as=head_of(), audits=ALWAYS)
    above = tail(broker)
    async with AsyncExitStack() as stack:
        await online(stack, device, above)
        await ask(device)
        await eventually(lambda: device.log.audits)

    assert device.log.audits[0].agrees is None
    assert not above.backends[0].asked
    assert device.counted('tierwise_edge_audits_total{result="failed"}') == 1


async def test_what_waits_for_a_link_is_the_embedding_and_it_is_answered_later(
    tmp_path: Path,
) -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device = await stack.enter_async_context(_storing(broker, tmp_path))
        answer, _ = await ask(device)
        (item,) = await until(device.waiting, bool)
        above = storing_gateway(broker, tmp_path, NumbersBackend(SURE), described_as=tail_of())
        await stack.enter_async_context(above)
        (event,) = await until(device.events, bool)

    kept = _kept(item)
    assert answer.outcome is Outcome.DEGRADED
    assert set(kept) == {"embedding", "forwarded-by"}
    np.testing.assert_array_equal(kept["embedding"], [PASSED])
    assert event.now.tier is Tier.REGIONAL
    np.testing.assert_array_equal(asked(above)["embedding"], [PASSED])


async def test_what_waited_too_long_for_its_partner_is_refused_and_set_aside(
    tmp_path: Path,
) -> None:
    """The tail was updated meanwhile; its answer would mean nothing."""
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device = await stack.enter_async_context(_storing(broker, tmp_path))
        await ask(device)
        await until(device.waiting, bool)
        above = storing_gateway(broker, tmp_path, NumbersBackend(SURE), described_as=tail_of(OTHER))
        await stack.enter_async_context(above)
        refused = 'tierwise_regional_received_items_total{kind="unknown",result="refused"}'
        await eventually(lambda: above.counted(refused) >= 1)

    assert not above.backends[0].asked


@pytest.mark.parametrize(
    "backend",
    [NumbersBackend(UNSURE, is_broken=True), NumbersBackend(UNSURE)],
    ids=["broken", "without its embedding"],
)
async def test_inputs_of_a_model_that_forwards_are_never_kept(
    tmp_path: Path, backend: NumbersBackend
) -> None:
    broker = MemoryBroker()
    async with _storing(broker, tmp_path, backend) as device:
        answer, _ = await ask(device)
        # Whatever is offered is written in the order in which it came.
        assert device.desk is not None
        await device.desk.known("q1", 0.2)
        kept = await device.waiting()

    assert answer.outcome in (Outcome.FAILED, Outcome.DEGRADED)
    assert kept == []


async def test_what_may_not_leave_the_device_is_not_kept_for_later_either(tmp_path: Path) -> None:
    broker = MemoryBroker()
    async with _storing(broker, tmp_path) as device:
        await ask(device, residency=Residency.DEVICE)
        assert device.desk is not None
        await device.desk.known("q1", 0.2)

        assert await device.waiting() == []


async def test_a_second_gateway_is_asked_with_the_same_embedding() -> None:
    broker = MemoryBroker()
    heard: list[Message] = []
    device = edge(broker, head_backend(UNSURE), described_as=head_of(), hedge_share=1.0)
    broken = [
        tail(broker, backend=NumbersBackend(is_broken=True), site=f"regional-{number}")
        for number in (1, 2)
    ]
    for one in broken:
        original = one.ingress._on_message

        def listen(message: Message, then: object = original) -> None:
            heard.append(message)
            then(message)  # type: ignore[operator]

        one.ingress._on_message = listen  # type: ignore[method-assign]
    async with AsyncExitStack() as stack:
        await online(stack, device, *broken)
        uplink = device.uplink
        assert uplink is not None
        await eventually(lambda: len(uplink.upstreams._book.online) == 2)
        await ask(device)

    asked_for = [
        parse_request(one, default_model="m", remaining_ms=1, max_bytes=10_000)[0]
        for one in heard
        if one.payload and b"cancel" not in one.payload
    ]
    assert len(asked_for) == 2
    assert len({one.forwarded_by for one in asked_for}) == 1
    for each in asked_for:
        np.testing.assert_array_equal(each.inputs["embedding"], [PASSED])
