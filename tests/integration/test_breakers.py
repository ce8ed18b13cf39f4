"""Members and gateways that often fail are not asked for a while, and then are tried again."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AsyncExitStack

import numpy as np
import pytest
import structlog

from fakes.hierarchy import ask, cloud, edge, gateway, online
from fakes.tiers import SURE, UNSURE, FakeTier, NumbersBackend
from fakes.waiting import eventually
from runtime.adapters.memory_bus import MemoryBroker
from runtime.core.collapse import MIN_WINDOWS, WINDOW
from runtime.messages import Outcome, Reason, Tier

OPEN = 'tierwise_{}_breakers{{of="{}",state="open"}}'


async def ask_often(
    tier: FakeTier, num: int, name: str = "q", budget_ms: float = 1000
) -> list[Reason]:
    """So many questions, one after the other."""
    answers = [(await ask(tier, budget_ms, request_id=f"{name}-{n}"))[0] for n in range(num)]
    return [answer.reason for answer in answers]


@pytest.mark.parametrize("scores", [None, (float("nan"),) * 3], ids=["fails", "no numbers"])
async def test_a_member_that_keeps_failing_is_left_out_without_being_run(
    scores: tuple[float, ...] | None,
) -> None:
    broken = NumbersBackend(scores or SURE, is_broken=scores is None)
    async with cloud(MemoryBroker(), NumbersBackend(SURE), broken) as top:
        with structlog.testing.capture_logs() as lines:
            reasons = await ask_often(top, 30)

        assert top.counted(OPEN.format("cloud", "member")) == 1
    assert set(reasons) == {Reason.PARTIAL_ENSEMBLE}
    assert broken.num_runs == 10
    told = [line for line in lines if line["event"] == "breaker.opened"]
    assert [(line["of"], line["name"], line["why"]) for line in told] == [
        ("member", "member-1", "10 of the latest 10 failed")
    ]


async def test_a_member_that_is_well_again_is_taken_back() -> None:
    flaky = NumbersBackend(SURE, is_broken=True)
    async with cloud(MemoryBroker(), NumbersBackend(SURE), flaky) as top:
        await ask_often(top, 12)
        flaky.is_broken = False
        await asyncio.sleep(1.05)

        with structlog.testing.capture_logs() as lines:
            reasons = await ask_often(top, 4)

        assert top.counted(OPEN.format("cloud", "member")) == 0
    assert reasons[-1] is Reason.CONFIDENT
    assert "breaker.closed" in {line["event"] for line in lines}


@pytest.mark.parametrize("inline", [True, False])
async def test_a_model_without_a_member_left_fails_at_once_and_requests_climb(
    inline: bool,
) -> None:
    broker = MemoryBroker()
    broken = NumbersBackend(is_broken=True)
    async with AsyncExitStack() as stack:
        device = edge(broker, broken, inline=inline)
        await online(stack, device, gateway(broker, NumbersBackend(SURE)))

        answers = [(await ask(device, request_id=f"q{n}"))[0] for n in range(20)]
    assert {(one.outcome, one.tier) for one in answers} == {(Outcome.ANSWERED, Tier.REGIONAL)}
    assert answers[-1].hops[0].reason is Reason.LOCAL_FAILED
    assert broken.num_runs == 10


async def test_a_member_that_is_stuck_is_not_waited_for_by_later_requests() -> None:
    stuck = NumbersBackend(SURE, release=threading.Event())
    # They disagree, so the third one would decide.
    members = (NumbersBackend((1.0, 0.0, 0.0)), NumbersBackend((0.0, 1.0, 0.0)), stuck)
    async with cloud(MemoryBroker(), *members) as top:
        await ask(top, 300)

        answer, took_ms = await ask(top, 10_000, request_id="later")

    assert answer.reason is Reason.PARTIAL_ENSEMBLE
    assert took_ms < 8000


async def test_a_model_that_is_stuck_in_one_run_fails_at_once_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("runtime.member_guard.STUCK_S", 0.15)
    stuck = NumbersBackend(SURE, release=threading.Event())
    async with cloud(MemoryBroker(), stuck) as top:
        waited, _ = await ask(top, 400)

        answer, took_ms = await ask(top, 10_000, request_id="later")
        assert top.counted(OPEN.format("cloud", "member")) == 1

    assert waited.reason is Reason.DEADLINE
    assert answer.reason is Reason.LOCAL_FAILED
    assert took_ms < 8000


async def test_a_model_whose_confidence_does_not_move_any_more_is_left_out() -> None:
    model = NumbersBackend(SURE)
    draw = np.random.default_rng(1)

    async with edge(MemoryBroker(), model, inline=True) as device:
        with structlog.testing.capture_logs() as lines:
            for number in range((MIN_WINDOWS + 2) * WINDOW):
                is_well = number < MIN_WINDOWS * WINDOW
                model.scores = tuple(draw.normal(size=3)) if is_well else SURE
                picture = draw.normal(size=(1, 2)).astype(np.float32)
                await ask(device, request_id=f"q{number}", inputs={"x": picture})

    told = [line for line in lines if line["event"] == "breaker.opened"]
    assert told[0]["why"] == "200 of 200 different inputs got the confidence 1"


async def test_a_gateway_that_keeps_failing_quickly_is_not_asked() -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device = edge(broker)
        bad = gateway(broker, NumbersBackend(is_broken=True))
        await online(stack, device, bad)

        reasons = await ask_often(device, 15)
        num_asked = device.counted("tierwise_edge_escalations_total")

        assert device.counted(OPEN.format("edge", "upstream")) == 1
    assert reasons[:10] == [Reason.UPSTREAM_FAILED] * 10
    assert set(reasons[10:]) == {Reason.NO_UPSTREAM}
    assert num_asked == 10


async def test_while_one_gateway_fails_another_one_is_asked() -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device = edge(broker)
        bad = gateway(broker, NumbersBackend(is_broken=True), site="bad")
        good = gateway(broker, NumbersBackend(SURE), site="good")
        await online(stack, device, bad, good)
        uplink = device.uplink
        assert uplink is not None
        await eventually(lambda: {uplink.choose() for _ in range(20)} == {"bad", "good"})

        await ask_often(device, 60)
        reasons = await ask_often(device, 20, "later")

    assert set(reasons) == {Reason.CONFIDENT}


async def test_a_gateway_that_is_well_again_is_found_by_probes() -> None:
    broker = MemoryBroker()
    flaky = NumbersBackend(SURE, is_broken=True)
    async with AsyncExitStack() as stack:
        device, region = edge(broker), gateway(broker, flaky)
        await online(stack, device, region)
        await ask_often(device, 12)
        flaky.is_broken = False
        # The gateway's own model has a breaker, too.
        await asyncio.sleep(1.1)

        await ask_often(device, 3, "probe")
        answer, _ = await ask(device, request_id="last")

    assert (answer.outcome, answer.tier) == (Outcome.ANSWERED, Tier.REGIONAL)


async def test_silence_and_refusals_open_no_breaker() -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device = edge(broker)
        region = gateway(broker, NumbersBackend(UNSURE))
        await online(stack, device, region)
        device.up_bus.partition()
        await ask_often(device, 15, "silent", budget_ms=30)
        device.up_bus.heal()
        await region.ingress.drain(0.1)
        reasons = await ask_often(device, 15, "refused", budget_ms=300)

        assert device.counted("tierwise_edge_breaker_changes_total") == 0
    assert Reason.NO_UPSTREAM not in reasons
