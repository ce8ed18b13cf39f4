"""A second gateway beside one that is slow or refuses: rarely, in time, and the loser is told."""

from __future__ import annotations

import random
import threading
from contextlib import AsyncExitStack

from fakes.hierarchy import ask, edge, gateway, online
from fakes.tiers import SURE, FakeTier, NumbersBackend
from fakes.waiting import eventually
from runtime.adapters.memory_bus import MemoryBroker
from runtime.messages import Outcome, Reason, Tier

WARM_UP = 12


class First(random.Random):
    """Chooses the first gateway by id."""

    def random(self) -> float:
        return 0.0


async def warm(stack: AsyncExitStack, hedge_share: float) -> tuple[FakeTier, FakeTier, FakeTier]:
    """A device that knows how quick one gateway is, and a second gateway that just came online."""
    broker = MemoryBroker()
    device = edge(broker, hedge_share=hedge_share, chooser=First())
    first = gateway(broker, NumbersBackend(SURE), site="a")
    second = gateway(broker, NumbersBackend(SURE), site="b")
    await online(stack, device, first)
    for number in range(WARM_UP):
        await ask(device, request_id=f"warm-{number}")
    await online(stack, second)
    upstreams = device.uplink.upstreams if device.uplink else None
    assert upstreams is not None
    await eventually(lambda: upstreams.choose(0.0, other_than="a") == "b")
    return device, first, second


async def test_a_slow_gateway_has_a_second_one_beside_it_and_is_told_when_it_lost() -> None:
    async with AsyncExitStack() as stack:
        device, first, second = await warm(stack, hedge_share=0.5)
        first.backends[0].release = threading.Event()

        answers = [await ask(device, 60_000, request_id=f"q-{n}") for n in range(4)]
        await eventually(lambda: first.ingress.queue_len == 0)

    assert {answer.tier for answer, _ in answers} == {Tier.REGIONAL}
    assert {answer.hops[-1].site for answer, _ in answers} == {"b"}
    assert all(took_ms < 10_000 for _, took_ms in answers)
    assert device.counted("tierwise_edge_hedges_total") == 4
    assert second.backends[0].num_runs == 4


async def test_hedges_are_few() -> None:
    async with AsyncExitStack() as stack:
        device, first, _ = await warm(stack, hedge_share=0.01)
        first.backends[0].delay_s = 0.1

        answers = [await ask(device, 2000, request_id=f"q-{n}") for n in range(6)]

    assert {answer.outcome for answer, _ in answers} == {Outcome.ANSWERED}
    assert device.counted("tierwise_edge_hedges_total") == 0


async def test_a_gateway_that_refuses_is_replaced_by_one_that_does_not() -> None:
    async with AsyncExitStack() as stack:
        device, first, _ = await warm(stack, hedge_share=0.5)
        await first.ingress.drain(0.1)

        answers = [await ask(device, 2000, request_id=f"q-{n}") for n in range(4)]

    assert {answer.tier for answer, _ in answers} == {Tier.REGIONAL}


async def test_when_both_fail_the_answer_in_hand_says_why() -> None:
    async with AsyncExitStack() as stack:
        device, first, second = await warm(stack, hedge_share=0.5)
        await first.ingress.drain(0.1)
        await second.ingress.drain(0.1)

        answer, _ = await ask(device, 2000)

    assert (answer.outcome, answer.reason) == (Outcome.DEGRADED, Reason.UPSTREAM_FAILED)
    assert answer.tier is Tier.EDGE


async def test_two_silent_gateways_cost_the_budget_and_no_answer() -> None:
    async with AsyncExitStack() as stack:
        device, first, second = await warm(stack, hedge_share=0.5)
        for silent in (first, second):
            silent.bus.partition()

        answer, _ = await ask(device, 500)

    assert (answer.outcome, answer.reason) == (Outcome.DEGRADED, Reason.UPSTREAM_TIMEOUT)
