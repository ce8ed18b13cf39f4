"""A request climbs, and whatever goes wrong above, the answer in hand comes back on time.

Several of these fail in other systems of this field: a refused or silent upper tier that blocks
for seconds, a local answer that is thrown away, failed escalations that are counted as answers.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import numpy as np
import pytest

from fakes.tiers import (
    SURE,
    UNSURE,
    FakeTier,
    NumbersBackend,
    request,
    tiers_that_worked,
)
from fakes.waiting import eventually
from runtime import topics
from runtime.adapters.memory_bus import MemoryBroker
from runtime.deadline import Deadline
from runtime.errors import InvalidTensorError, UnknownModelError
from runtime.exchange.ingress import IngressLimits
from runtime.exchange.uplink import Uplink
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


async def ask(tier: FakeTier, budget_ms: float = 1000, **fields: Any) -> tuple[Answer, float]:
    """The answer and the milliseconds that it took."""
    began_s = time.monotonic()
    question = request(remaining_ms=budget_ms, **fields)
    tier.flow.check(question)
    answer = await tier.flow.answer(question, Deadline.after(began_s, budget_ms))
    return answer, (time.monotonic() - began_s) * 1000


def edge(broker: MemoryBroker, *backends: NumbersBackend, **options: Any) -> FakeTier:
    backends = backends or (NumbersBackend(UNSURE),)
    return FakeTier(broker, Tier.EDGE, *backends, above=Tier.REGIONAL, **options)


def gateway(broker: MemoryBroker, *backends: NumbersBackend, **options: Any) -> FakeTier:
    backends = backends or (NumbersBackend(UNSURE),)
    return FakeTier(broker, Tier.REGIONAL, *backends, above=Tier.CLOUD, **options)


def cloud(broker: MemoryBroker, *backends: NumbersBackend) -> FakeTier:
    return FakeTier(broker, Tier.CLOUD, *(backends or (NumbersBackend(SURE),)))


def _has_gateway(uplink: Uplink) -> bool:
    return uplink.prospect(100).gateway is not None


async def _online(stack: AsyncExitStack, *tiers: FakeTier) -> None:
    """Enters the tiers and waits until each can ask the one above it."""
    for tier in tiers:
        await stack.enter_async_context(tier)
    for tier in tiers:
        uplink = tier.uplink
        has_above = any(
            other.identity.tier.height == tier.identity.tier.height + 1 for other in tiers
        )
        if uplink is not None and has_above:
            await eventually(partial(_has_gateway, uplink))


async def test_a_sure_device_answers_by_itself() -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device, region = edge(broker, NumbersBackend(SURE)), gateway(broker)
        await _online(stack, device, region)

        answer, _ = await ask(device)

    assert (answer.outcome, answer.tier, answer.label_name) == (Outcome.ANSWERED, Tier.EDGE, "cat")
    assert answer.reason is Reason.CONFIDENT
    assert region.backends[0].num_runs == 0


async def test_an_unsure_request_climbs_to_the_tier_that_is_sure() -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device, region, top = edge(broker), gateway(broker), cloud(broker)
        await _online(stack, device, region, top)

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
        await _online(stack, device, region, top)

        answer, _ = await ask(device)

    assert (answer.outcome, answer.tier) == (Outcome.ANSWERED, Tier.REGIONAL)
    assert top.backends[0].num_runs == 0


async def test_an_upper_tier_that_is_not_there_costs_no_time_and_no_answer() -> None:
    async with edge(MemoryBroker()) as device:
        answer, took_ms = await ask(device, budget_ms=2000)

    assert (answer.outcome, answer.reason) == (Outcome.DEGRADED, Reason.NO_UPSTREAM)
    assert answer.tier is Tier.EDGE
    assert answer.label == 0
    assert took_ms < 1000


async def test_an_upper_tier_that_never_replies_costs_the_budget_and_no_answer() -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device = edge(broker)
        region = gateway(broker, NumbersBackend(SURE))
        await _online(stack, device, region)
        device.up_bus.partition()

        answer, took_ms = await ask(device, budget_ms=200)

    assert (answer.outcome, answer.reason) == (Outcome.DEGRADED, Reason.UPSTREAM_TIMEOUT)
    assert (answer.tier, answer.label) == (Tier.EDGE, 0)
    assert 100 < took_ms < 1000


async def test_an_upper_tier_that_is_stuck_says_so_before_the_budget_ends() -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device = edge(broker)
        region = gateway(broker, NumbersBackend(SURE, release=threading.Event()))
        await _online(stack, device, region)

        answer, took_ms = await ask(device, budget_ms=200)

    assert (answer.outcome, answer.reason) == (Outcome.DEGRADED, Reason.UPSTREAM_TIMEOUT)
    assert [hop.reason for hop in answer.hops] == [Reason.UNSURE, Reason.DEADLINE]
    assert took_ms < 1000


async def test_an_upper_tier_that_fails_leaves_the_lower_answer() -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device, region = edge(broker), gateway(broker, NumbersBackend(is_broken=True))
        await _online(stack, device, region)

        answer, _ = await ask(device)

    assert (answer.outcome, answer.tier, answer.label) == (Outcome.DEGRADED, Tier.EDGE, 0)
    assert answer.reason is Reason.UPSTREAM_FAILED
    assert [hop.reason for hop in answer.hops] == [Reason.UNSURE, Reason.LOCAL_FAILED]


async def test_a_tier_whose_own_model_fails_still_passes_the_better_answer_down() -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device = edge(broker, NumbersBackend(is_broken=True))
        region = gateway(broker, NumbersBackend(SURE))
        await _online(stack, device, region)

        answer, _ = await ask(device)

    assert (answer.outcome, answer.tier) == (Outcome.ANSWERED, Tier.REGIONAL)


async def test_without_any_model_left_the_answer_says_failed_and_not_nothing_found() -> None:
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
        await _online(stack, device, region)

        answer, _ = await ask(device)
        alone, _ = await ask(device, request_id="q2", residency=Residency.DEVICE)

    assert (answer.outcome, answer.tier) == (Outcome.ANSWERED, Tier.REGIONAL)
    assert (alone.outcome, alone.reason) == (Outcome.ABSTAINED, Reason.NO_CONFIDENCE)
    assert not alone.outputs


async def test_a_cut_off_cloud_leaves_the_regional_answer_marked_degraded() -> None:
    broker = MemoryBroker()
    confident = NumbersBackend((1.0, 0.0, 0.0))
    async with AsyncExitStack() as stack:
        device, region, top = edge(broker), gateway(broker, confident, margin_ms=400), cloud(broker)
        await _online(stack, device, region, top)
        region.up_bus.partition()

        answer, took_ms = await ask(device, budget_ms=700)

    assert (answer.outcome, answer.tier) == (Outcome.DEGRADED, Tier.REGIONAL)
    assert answer.reason is Reason.UPSTREAM_TIMEOUT
    assert took_ms < 700


async def test_a_closed_gate_answers_at_once_and_a_probe_opens_it_again() -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device, region = edge(broker), gateway(broker, NumbersBackend(SURE))
        await _online(stack, device, region)
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


async def test_a_payload_that_must_stay_never_reaches_the_bus() -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device, region, top = edge(broker), gateway(broker), cloud(broker)
        await _online(stack, device, region, top)

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
        device, region = edge(broker, inline=True), gateway(broker)
        await _online(stack, device, region)

        answer, _ = await ask(device, budget_ms=1.5)

    assert (answer.outcome, answer.reason) == (Outcome.DEGRADED, Reason.NO_TIME)
    assert region.backends[0].num_runs == 0


async def test_a_model_that_is_not_done_by_the_deadline_is_a_failure_on_time() -> None:
    stuck = NumbersBackend(SURE, release=threading.Event())
    async with edge(MemoryBroker(), stuck) as device:
        answer, took_ms = await ask(device, budget_ms=50)

    assert (answer.outcome, answer.reason) == (Outcome.FAILED, Reason.DEADLINE)
    assert answer.error_code == "too_late"
    assert took_ms < 1000


async def test_a_failed_climb_is_counted_as_failed_and_once() -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device, region = edge(broker), gateway(broker, NumbersBackend(is_broken=True))
        await _online(stack, device, region)
        await ask(device)

    assert device.counted('tierwise_edge_escalations_total{result="answered"}') == 0
    assert device.counted("tierwise_edge_escalations_total{") == 1
    assert device.counted("tierwise_edge_answers_total{") == 1
    (record,) = device.log.records
    assert (record.action, record.answered_by, record.outcome) == ("escalate", "edge", "degraded")
    assert (record.hop, region.log.records[0].hop) == (0, 1)


async def test_an_ensemble_answers_with_the_members_that_are_there() -> None:
    broker = MemoryBroker()
    members = (
        NumbersBackend(SURE),
        NumbersBackend(is_broken=True),
        NumbersBackend(SURE, release=threading.Event()),
    )
    async with cloud(broker, *members) as top:
        answer, took_ms = await ask(top, budget_ms=200)

    assert (answer.outcome, answer.reason) == (Outcome.DEGRADED, Reason.PARTIAL_ENSEMBLE)
    assert (answer.tier, answer.label) == (Tier.CLOUD, 0)
    assert took_ms < 1000


async def test_a_stuck_member_holds_up_no_request_but_its_own_part() -> None:
    members = (NumbersBackend(SURE), NumbersBackend(SURE, release=threading.Event()))
    async with cloud(MemoryBroker(), *members) as top:
        answers = [(await ask(top, 50, request_id=f"q{number}"))[0] for number in range(5)]

    assert {answer.reason for answer in answers} == {Reason.PARTIAL_ENSEMBLE}
    assert members[0].num_runs == 5


async def test_a_large_batch_for_a_quick_model_does_not_hold_up_the_event_loop() -> None:
    slow = NumbersBackend(SURE, release=threading.Event())
    async with edge(MemoryBroker(), slow, inline=True) as device:
        large = np.zeros((1000, 2), np.float32)
        asked = asyncio.create_task(ask(device, 5000, inputs={"x": large}))
        await eventually(lambda: slow.num_runs == 1)
        was_done = asked.done()

        assert slow.release is not None
        slow.release.set()
        answer, _ = await asked

    assert not was_done
    assert answer.outputs["logits"].shape == (1000, 3)


async def test_a_request_whose_time_ran_out_before_its_turn_is_not_computed() -> None:
    async with edge(MemoryBroker(), inline=True) as device:
        answer = await device.flow.answer(request(), Deadline.after(time.monotonic(), -1))

    assert (answer.outcome, answer.reason) == (Outcome.FAILED, Reason.DEADLINE)
    assert device.backends[0].num_runs == 0


async def test_an_ensemble_of_all_members_answers() -> None:
    async with cloud(MemoryBroker(), NumbersBackend(SURE), NumbersBackend(SURE)) as top:
        answer, _ = await ask(top)

    assert (answer.outcome, answer.reason) == (Outcome.ANSWERED, Reason.CONFIDENT)
    assert answer.outputs["logits"].shape == (1, 3)


async def test_an_ensemble_without_a_usable_member_fails() -> None:
    broken = NumbersBackend((float("nan"),) * 3)
    async with cloud(MemoryBroker(), broken, NumbersBackend(is_broken=True)) as top:
        answer, _ = await ask(top)

    assert (answer.outcome, answer.reason) == (Outcome.FAILED, Reason.LOCAL_FAILED)


async def test_a_caller_that_goes_away_takes_queued_work_off_every_tier() -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device, region = edge(broker), gateway(broker)
        top = cloud(broker, NumbersBackend(SURE, release=threading.Event()))
        await _online(stack, device, region, top)
        waiting = asyncio.create_task(ask(device, budget_ms=9000))
        await eventually(lambda: top.ingress.queue_len == 1)

        waiting.cancel()

        await eventually(lambda: region.ingress.queue_len == 0 and top.ingress.queue_len == 0)
        assert device.uplink is not None
        assert device.uplink.num_pending == 0
        assert region.counted('tierwise_regional_refused_requests_total{code="cancelled"}') == 1
        assert top.counted('tierwise_cloud_refused_requests_total{code="cancelled"}') == 1


async def test_a_full_gateway_refuses_and_the_device_keeps_its_answer() -> None:
    broker = MemoryBroker()
    limits = IngressLimits(1000, 60_000, 2, 1, 10_000, 64)
    async with AsyncExitStack() as stack:
        device = edge(broker)
        region = gateway(broker, NumbersBackend(SURE, release=threading.Event()), limits=limits)
        await _online(stack, device, region)
        first = asyncio.create_task(ask(device, budget_ms=5000, request_id="first"))
        await eventually(lambda: region.ingress.queue_len == 1)

        second, took_ms = await ask(device, budget_ms=5000, request_id="second")

        first.cancel()

    assert (second.outcome, second.reason) == (Outcome.DEGRADED, Reason.UPSTREAM_REFUSED)
    assert took_ms < 2000


async def test_a_draining_gateway_takes_nothing_new() -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device, region = edge(broker), gateway(broker, NumbersBackend(SURE))
        await _online(stack, device, region)
        await region.ingress.drain(1.0)

        answer, _ = await ask(device)

    assert (answer.outcome, answer.reason) == (Outcome.DEGRADED, Reason.UPSTREAM_FAILED)


async def test_a_lost_connection_in_the_middle_ends_in_the_local_answer() -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device = edge(broker)
        region = gateway(broker, NumbersBackend(SURE, release=threading.Event()))
        await _online(stack, device, region)
        asked = asyncio.create_task(ask(device, budget_ms=400))
        await eventually(lambda: region.ingress.queue_len == 1)

        broker.stop()
        answer, took_ms = await asked

    assert (answer.outcome, answer.tier) == (Outcome.DEGRADED, Tier.EDGE)
    assert took_ms < 2000


async def test_an_agent_that_stops_gives_the_answer_in_hand_to_whoever_waits() -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device = edge(broker)
        region = gateway(broker, NumbersBackend(SURE, release=threading.Event()))
        await _online(stack, device, region)
        asked = asyncio.create_task(ask(device, budget_ms=9000))
        await eventually(lambda: region.ingress.queue_len == 1)
        assert device.uplink is not None

        await device.uplink.close()
        answer, took_ms = await asked

    assert (answer.outcome, answer.reason) == (Outcome.DEGRADED, Reason.NO_UPSTREAM)
    assert (answer.tier, took_ms < 5000) == (Tier.EDGE, True)


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
        await _online(stack, device, region)
        said = Message(topics.gateway_state("r", topic), encode_control(state))
        region.bus.publish(said)
        ignored = 'tierwise_edge_ignored_messages_total{kind="undecodable"}'
        await eventually(lambda: device.counted(ignored) == 1)

        answer, _ = await ask(device)

    assert (answer.outcome, answer.tier) == (Outcome.ANSWERED, Tier.REGIONAL)


async def test_without_time_for_the_way_up_nothing_is_sent_not_even_a_probe() -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device, region = edge(broker, inline=True, margin_ms=100), gateway(broker)
        await _online(stack, device, region)

        # 101 ms less 100 for the hand-over leave less than the 2 that are reserved for the way.
        answer, _ = await ask(device, budget_ms=101)

    assert answer.outcome is Outcome.DEGRADED
    assert device.log.records[0].action == "answer"
    assert device.counted("tierwise_edge_escalations_total{") == 0
    assert region.backends[0].num_runs == 0


async def test_the_requests_in_progress_of_a_gateway_are_not_those_of_its_uplink() -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        region = gateway(broker)
        top = cloud(broker, NumbersBackend(SURE, release=threading.Event()))
        await _online(stack, region, top)
        region.metrics.set_pending(7)

        await ask(region, budget_ms=50)

    assert region.counted("tierwise_regional_pending_requests") == 7


async def test_a_model_or_version_that_is_not_served_is_refused() -> None:
    device = edge(MemoryBroker())

    with pytest.raises(UnknownModelError):
        await ask(device, model_version="99")
    with pytest.raises(InvalidTensorError):
        await ask(device, outputs=("probabilities",))
