"""A request climbs as far as it must and may, and the answer says how it came about."""

from __future__ import annotations

import threading
from contextlib import AsyncExitStack

import pytest

from fakes.hierarchy import ask, cloud, edge, gateway, online
from fakes.tiers import (
    SURE,
    NumbersBackend,
    tiers_that_worked,
)
from runtime.adapters.memory_bus import MemoryBroker
from runtime.errors import InvalidTensorError, UnknownModelError
from runtime.messages import (
    Outcome,
    Reason,
    Residency,
    Tier,
)


async def test_a_sure_device_answers_by_itself() -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device, region = edge(broker, NumbersBackend(SURE)), gateway(broker)
        await online(stack, device, region)

        answer, _ = await ask(device)

    assert (answer.outcome, answer.tier, answer.label_name) == (Outcome.ANSWERED, Tier.EDGE, "cat")
    assert answer.reason is Reason.CONFIDENT
    assert region.backends[0].num_runs == 0


async def test_an_unsure_request_climbs_to_the_tier_that_is_sure() -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device, region, top = edge(broker), gateway(broker), cloud(broker)
        await online(stack, device, region, top)

        answer, _ = await ask(device)

    assert (answer.outcome, answer.tier) == (Outcome.ANSWERED, Tier.CLOUD)
    assert tiers_that_worked(answer) == ["edge", "regional", "cloud"]
    assert [hop.escalated for hop in answer.hops] == [True, True, False]
    assert answer.outputs["logits"].tolist() == [list(SURE)]
    assert answer.model_version == "cloud-1"


async def test_the_region_answers_what_it_is_sure_of() -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device, region, top = edge(broker), gateway(broker, NumbersBackend(SURE)), cloud(broker)
        await online(stack, device, region, top)

        answer, _ = await ask(device)

    assert (answer.outcome, answer.tier) == (Outcome.ANSWERED, Tier.REGIONAL)
    assert top.backends[0].num_runs == 0


async def test_a_payload_that_must_stay_never_reaches_the_bus() -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device, region, top = edge(broker), gateway(broker), cloud(broker)
        await online(stack, device, region, top)

        kept, _ = await ask(device, request_id="q1", residency=Residency.DEVICE)
        regional, _ = await ask(device, request_id="q2", residency=Residency.REGION)

    assert (kept.outcome, kept.reason, kept.tier) == (
        Outcome.DEGRADED,
        Reason.RESIDENCY,
        Tier.EDGE,
    )
    assert tiers_that_worked(regional) == ["edge", "regional"]
    assert region.backends[0].num_runs == 1
    assert top.backends[0].num_runs == 0


async def test_a_request_without_time_to_climb_is_answered_in_place() -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        # All of it is for the hand-over.
        device, region = edge(broker, inline=True, margin_ms=5000), gateway(broker)
        await online(stack, device, region)

        answer, _ = await ask(device, budget_ms=5000)

    assert (answer.outcome, answer.reason) == (Outcome.DEGRADED, Reason.NO_TIME)
    assert region.backends[0].num_runs == 0


async def test_a_failed_climb_is_counted_as_failed_and_once() -> None:
    # Peer that fails: Sedna, which counts it as an answer of the upper tier.
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device, region = edge(broker), gateway(broker, NumbersBackend(is_broken=True))
        await online(stack, device, region)
        await ask(device)

    assert device.counted('tierwise_edge_escalations_total{result="answered"}') == 0
    assert device.counted("tierwise_edge_escalations_total{") == 1
    assert device.counted("tierwise_edge_answers_total{") == 1
    (record,) = device.log.records
    assert (record.action, record.answered_by, record.outcome) == ("escalate", "edge", "degraded")
    assert (record.hop, region.log.records[0].hop) == (0, 1)


async def test_without_time_for_the_way_up_nothing_is_sent_not_even_a_probe() -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device, region = edge(broker, inline=True, margin_ms=5000), gateway(broker)
        await online(stack, device, region)

        # 5001 ms less 5000 for the hand-over leave less than the 2 that are reserved for the way.
        answer, _ = await ask(device, budget_ms=5001)

    assert answer.outcome is Outcome.DEGRADED
    assert device.log.records[0].action == "answer"
    assert device.counted("tierwise_edge_escalations_total{") == 0
    assert region.backends[0].num_runs == 0


async def test_the_requests_in_progress_of_a_gateway_are_not_those_of_its_uplink() -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        region = gateway(broker)
        top = cloud(broker, NumbersBackend(SURE, release=threading.Event()))
        await online(stack, region, top)
        region.metrics.set_pending(7)

        await ask(region, budget_ms=50)

    assert region.counted("tierwise_regional_pending_requests") == 7


async def test_a_model_or_version_that_is_not_served_is_refused() -> None:
    device = edge(MemoryBroker())

    with pytest.raises(UnknownModelError):
        await ask(device, model_version="99")
    with pytest.raises(InvalidTensorError):
        await ask(device, outputs=("probabilities",))
