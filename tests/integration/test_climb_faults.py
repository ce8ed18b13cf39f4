"""Whatever goes wrong above, the answer in hand comes back on time.

Several of these fail in other systems of this field: a refused or silent upper tier that blocks
for seconds, a local answer that is thrown away, failed escalations that are counted as answers.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import AsyncExitStack

import pytest

from fakes.hierarchy import ask, cloud, edge, gateway, online
from fakes.tiers import (
    SURE,
    NumbersBackend,
)
from fakes.waiting import eventually
from runtime import topics
from runtime.adapters.memory_bus import MemoryBroker
from runtime.exchange.ingress import IngressLimits
from runtime.messages import (
    Answer,
    Birth,
    ControlMessage,
    Offline,
    Outcome,
    Reason,
    Residency,
    Tier,
    encode_control,
)
from runtime.ports import Message


async def test_an_upper_tier_that_is_not_there_costs_no_time_and_no_answer() -> None:
    # Peer that fails: Sedna, which blocks for 12 s on a refused connection.
    async with edge(MemoryBroker()) as device:
        answer, took_ms = await ask(device, budget_ms=60_000)

    assert (answer.outcome, answer.reason) == (Outcome.DEGRADED, Reason.NO_UPSTREAM)
    assert answer.tier is Tier.EDGE
    assert answer.label == 0
    assert took_ms < 10_000


async def test_an_upper_tier_that_never_replies_costs_the_budget_and_no_answer() -> None:
    # Peers that fail: Sedna and the Roboflow SDK, which wait for ever.
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device = edge(broker)
        region = gateway(broker, NumbersBackend(SURE))
        await online(stack, device, region)
        device.up_bus.partition()

        answer, took_ms = await ask(device, budget_ms=500)

    assert (answer.outcome, answer.reason) == (Outcome.DEGRADED, Reason.UPSTREAM_TIMEOUT)
    assert (answer.tier, answer.label) == (Tier.EDGE, 0)
    assert took_ms > 250


async def test_an_upper_tier_that_is_stuck_says_so_before_the_budget_ends() -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device = edge(broker)
        stuck = NumbersBackend(SURE, release=threading.Event())
        # Enough before the device's own timer, also on a busy machine.
        region = gateway(broker, stuck, margin_ms=700)
        await online(stack, device, region)

        answer, _ = await ask(device, budget_ms=1000)

    assert (answer.outcome, answer.reason) == (Outcome.DEGRADED, Reason.UPSTREAM_TIMEOUT)
    assert [hop.reason for hop in answer.hops] == [Reason.UNSURE, Reason.DEADLINE]


async def test_an_upper_tier_that_fails_leaves_the_lower_answer() -> None:
    # Peers that fail: KServe and Groundlight, which throw the first answer away.
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device, region = edge(broker), gateway(broker, NumbersBackend(is_broken=True))
        await online(stack, device, region)

        answer, _ = await ask(device)

    assert (answer.outcome, answer.tier, answer.label) == (Outcome.DEGRADED, Tier.EDGE, 0)
    assert answer.reason is Reason.UPSTREAM_FAILED
    assert [hop.reason for hop in answer.hops] == [Reason.UNSURE, Reason.LOCAL_FAILED]


async def test_a_tier_whose_own_model_fails_still_passes_the_better_answer_down() -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device = edge(broker, NumbersBackend(is_broken=True))
        region = gateway(broker, NumbersBackend(SURE))
        await online(stack, device, region)

        answer, _ = await ask(device)

    assert (answer.outcome, answer.tier) == (Outcome.ANSWERED, Tier.REGIONAL)


async def test_without_any_model_left_the_answer_says_failed_and_not_nothing_found() -> None:
    # Peer that fails: Frigate, which returns zeros.
    async with edge(MemoryBroker(), NumbersBackend(is_broken=True)) as device:
        answer, _ = await ask(device)

    assert (answer.outcome, answer.reason) == (Outcome.FAILED, Reason.LOCAL_FAILED)
    assert answer.error_code == "backend_failed"
    assert not answer.outputs
    assert answer.tier is None


@pytest.mark.parametrize("scores", [(float("nan"),) * 3, (float("inf"), 0.0, 0.0)])
async def test_an_output_that_is_no_number_is_never_confident(scores: tuple[float, ...]) -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device = edge(broker, NumbersBackend(scores))
        region = gateway(broker, NumbersBackend(SURE))
        await online(stack, device, region)

        answer, _ = await ask(device)
        alone, _ = await ask(device, request_id="q2", residency=Residency.DEVICE)

    assert (answer.outcome, answer.tier) == (Outcome.ANSWERED, Tier.REGIONAL)
    assert (alone.outcome, alone.reason) == (Outcome.ABSTAINED, Reason.NO_CONFIDENCE)
    assert not alone.outputs


async def test_a_cut_off_cloud_leaves_the_regional_answer_marked_degraded() -> None:
    broker = MemoryBroker()
    confident = NumbersBackend((1.0, 0.0, 0.0))
    async with AsyncExitStack() as stack:
        device, region, top = edge(broker), gateway(broker, confident, margin_ms=700), cloud(broker)
        await online(stack, device, region, top)
        region.up_bus.partition()

        answer, _ = await ask(device, budget_ms=1400)

    assert (answer.outcome, answer.tier) == (Outcome.DEGRADED, Tier.REGIONAL)
    assert answer.reason is Reason.UPSTREAM_TIMEOUT


async def test_a_closed_gate_answers_at_once_and_a_probe_opens_it_again() -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device, region = edge(broker), gateway(broker, NumbersBackend(SURE))
        await online(stack, device, region)
        device.up_bus.partition()
        reasons = []
        for number in range(30):
            answer, _ = await ask(device, budget_ms=30, request_id=f"cut-{number}")
            reasons.append(answer.reason)
        assert Reason.UNLIKELY_IN_TIME in reasons

        device.up_bus.heal()
        answers: list[Answer] = []

        async def asks_again() -> bool:
            answers.append((await ask(device, 200, request_id=f"healed-{len(answers)}"))[0])
            return answers[-1].outcome is Outcome.ANSWERED

        deadline_s = time.monotonic() + 10
        while not await asks_again():
            assert time.monotonic() < deadline_s
            await asyncio.sleep(0.01)

    assert answers[-1].tier is Tier.REGIONAL


async def test_a_model_that_is_not_done_by_the_deadline_is_a_failure_on_time() -> None:
    stuck = NumbersBackend(SURE, release=threading.Event())
    async with edge(MemoryBroker(), stuck) as device:
        answer, _ = await ask(device, budget_ms=50)

    assert (answer.outcome, answer.reason) == (Outcome.FAILED, Reason.DEADLINE)
    assert answer.error_code == "too_late"


async def test_a_caller_that_goes_away_takes_queued_work_off_every_tier() -> None:
    # Peers that fail: MLServer, Triton #7532: the work goes on for nobody.
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device, region = edge(broker), gateway(broker)
        top = cloud(broker, NumbersBackend(SURE, release=threading.Event()))
        await online(stack, device, region, top)
        waiting = asyncio.create_task(ask(device, budget_ms=9000))
        await eventually(lambda: top.ingress.queue_len == 1)

        waiting.cancel()

        await eventually(lambda: region.ingress.queue_len == 0 and top.ingress.queue_len == 0)
        assert device.uplink is not None
        assert device.uplink.num_pending == 0
        cancelled = 'refused_requests_total{code="cancelled"}'
        await eventually(lambda: region.counted(f"tierwise_regional_{cancelled}") == 1)
        await eventually(lambda: top.counted(f"tierwise_cloud_{cancelled}") == 1)


async def test_a_full_gateway_refuses_and_the_device_keeps_its_answer() -> None:
    broker = MemoryBroker()
    limits = IngressLimits(1000, 60_000, 2, 1, 10_000, 64)
    async with AsyncExitStack() as stack:
        device = edge(broker)
        region = gateway(broker, NumbersBackend(SURE, release=threading.Event()), limits=limits)
        await online(stack, device, region)
        first = asyncio.create_task(ask(device, budget_ms=60_000, request_id="first"))
        await eventually(lambda: region.ingress.queue_len == 1)

        second, took_ms = await ask(device, budget_ms=60_000, request_id="second")

        first.cancel()

    assert (second.outcome, second.reason) == (Outcome.DEGRADED, Reason.UPSTREAM_REFUSED)
    assert took_ms < 10_000


async def test_a_draining_gateway_takes_nothing_new() -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device, region = edge(broker), gateway(broker, NumbersBackend(SURE))
        await online(stack, device, region)
        await region.ingress.drain(1.0)

        answer, _ = await ask(device)

    assert (answer.outcome, answer.reason) == (Outcome.DEGRADED, Reason.UPSTREAM_FAILED)


async def test_a_lost_connection_in_the_middle_ends_in_the_local_answer() -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device = edge(broker)
        region = gateway(broker, NumbersBackend(SURE, release=threading.Event()))
        await online(stack, device, region)
        asked = asyncio.create_task(ask(device, budget_ms=1500))
        await eventually(lambda: region.ingress.queue_len == 1)

        broker.stop()
        answer, _ = await asked

    assert (answer.outcome, answer.tier) == (Outcome.DEGRADED, Tier.EDGE)


async def test_an_agent_that_stops_gives_the_answer_in_hand_to_whoever_waits() -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device = edge(broker)
        region = gateway(broker, NumbersBackend(SURE, release=threading.Event()))
        await online(stack, device, region)
        asked = asyncio.create_task(ask(device, budget_ms=60_000))
        await eventually(lambda: region.ingress.queue_len == 1)
        assert device.uplink is not None

        await device.uplink.close()
        answer, took_ms = await asked

    assert (answer.outcome, answer.reason) == (Outcome.DEGRADED, Reason.NO_UPSTREAM)
    assert (answer.tier, took_ms < 10_000) == (Tier.EDGE, True)


@pytest.mark.parametrize(
    ("topic", "state"),
    [
        ("evil", Offline(Tier.REGIONAL, "regional-1", "r", 2**62)),
        ("evil", Birth(Tier.REGIONAL, "regional-1", "r", 2**62, capacity=9)),
        ("evil", Birth(Tier.REGIONAL, "a/+/#", "r", 1, capacity=9)),
        ("regional-1", Offline(Tier.CLOUD, "regional-1", "r", 2**62)),
    ],
)
async def test_no_gateway_speaks_for_another(topic: str, state: ControlMessage) -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device, region = edge(broker), gateway(broker, NumbersBackend(SURE))
        await online(stack, device, region)
        said = Message(topics.gateway_state("r", topic), encode_control(state))
        region.bus.publish(said)
        ignored = 'tierwise_edge_ignored_messages_total{kind="undecodable"}'
        await eventually(lambda: device.counted(ignored) == 1)

        answer, _ = await ask(device)

    assert (answer.outcome, answer.tier) == (Outcome.ANSWERED, Tier.REGIONAL)
