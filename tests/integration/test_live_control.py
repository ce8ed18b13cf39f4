"""Live control over three tiers: traffic chooses the gear, and answers say what they promise."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import numpy as np
import structlog.testing

from fakes.gears import CHAIN, gear, gearbox, table, watched
from fakes.hierarchy import ask, cloud, edge, gateway, online
from fakes.tiers import SURE, UNSURE, FakeTier, NumbersBackend, tiers_that_worked
from fakes.waiting import eventually
from runtime.adapters.memory_bus import MemoryBroker
from runtime.core.audit import AuditSettings
from runtime.core.ladder import step_of
from runtime.core.seen import parse_seen
from runtime.messages import Guarantee, Residency, Tier
from runtime.policy import Policy

# A rate of 2 is no setting; it makes every chance 1.
ALWAYS = AuditSettings(rate=2.0, max_in_progress=64)
DOG = (0.0, 9.0, 0.0)
WINDOW = 500


def hierarchy(
    followed: Policy,
    *,
    device: NumbersBackend,
    region: NumbersBackend | None = None,
    top: NumbersBackend | None = None,
    audits: AuditSettings | None = None,
) -> tuple[FakeTier, FakeTier, FakeTier]:
    """Three tiers of one policy, the lowest under live control."""
    broker = MemoryBroker()
    boxes = {tier: gearbox(tier, followed) for tier in Tier}
    return (
        edge(broker, device, gearbox=boxes[Tier.EDGE], live=True, audits=audits, inline=True),
        gateway(
            broker,
            region or NumbersBackend(SURE),
            gearbox=boxes[Tier.REGIONAL],
            live=True,
            inline=True,
        ),
        cloud(broker, top or NumbersBackend(SURE), gearbox=boxes[Tier.CLOUD], inline=True),
    )


async def answers(device: FakeTier, count: int, **fields: Any) -> None:
    for number in range(count):
        await ask(device, request_id=f"r{number}", **fields)


async def test_shifted_scores_step_to_the_safer_gear_and_suspend_the_promise() -> None:
    backend = NumbersBackend(SURE)
    async with AsyncExitStack() as stack:
        tiers = device, region, top = hierarchy(watched(), device=backend)
        await online(stack, *tiers)
        with structlog.testing.capture_logs() as logs:
            await answers(device, WINDOW)
            before, _ = await ask(device)
            backend.scores = UNSURE
            await answers(device, WINDOW)
            after, _ = await ask(device, explain=True)

    assert (before.tier, before.guarantee) == (Tier.EDGE, Guarantee.CERTIFIED)
    # The gear asks the region, its safer step the cloud.
    assert (after.tier, after.guarantee) == (Tier.CLOUD, Guarantee.SUSPENDED)
    assert tiers_that_worked(after) == ["edge", "regional", "cloud"]
    assert {record.gear for record in top.log.records} >= {"g.safer-1"}
    assert top.log.records[-1].guarantee == "certified"
    assert device.log.records[-1].guarantee == "suspended"
    assert step_of(device.log.records[-1].gear) > 0
    assert "safer" in after.explanation
    found = [line for line in logs if line["event"] == "drift.found"]
    assert found
    assert device.counted('tierwise_edge_drift_alarms_total{sign="scores"}') == len(found)
    assert device.counted("tierwise_edge_safer_steps") >= 1
    assert device.counted("tierwise_edge_score_shift_p_ratio") < 1e-4
    # Scores of requests that come from below are not those of the device.
    assert region.counted('tierwise_regional_drift_alarms_total{sign="scores"}') == 0


async def test_when_traffic_is_as_before_the_promise_holds_again() -> None:
    backend = NumbersBackend(UNSURE)
    async with AsyncExitStack() as stack:
        tiers = device, _, _ = hierarchy(watched(), device=backend)
        await online(stack, *tiers)
        await answers(device, WINDOW)
        shifted, _ = await ask(device)
        backend.scores = SURE
        with structlog.testing.capture_logs() as logs:
            await answers(device, 3 * WINDOW)
        answer, _ = await ask(device)

    assert shifted.guarantee is Guarantee.SUSPENDED
    assert answer.guarantee is Guarantee.CERTIFIED
    assert device.log.records[-1].gear == "g"
    assert [line["event"] for line in logs].count("drift.ended") == 1


async def test_slow_replies_choose_the_gear_of_a_higher_load() -> None:
    followed = watched(
        gear(table("edge", to=("regional",)), name="x1"),
        gear(table("edge", to=("cloud",)), name="x9", load=9.0),
    )
    slow = NumbersBackend(SURE)
    async with AsyncExitStack() as stack:
        tiers = device, _, _ = hierarchy(followed, device=NumbersBackend(UNSURE), region=slow)
        await online(stack, *tiers)
        # The way there takes longer than in the trace, whatever the model takes.
        pilot = device.pilot
        assert pilot is not None
        first, _ = await ask(device)
        for _ in range(32):
            assert pilot.live is not None
            pilot.live.load.note_reply(device.clock.monotonic_s(), 8.0, first.hops[1:])
        second, _ = await ask(device)

    assert (first.tier, second.tier) == (Tier.REGIONAL, Tier.CLOUD)
    assert [record.gear for record in device.log.records] == ["x1", "x9"]
    assert second.guarantee is Guarantee.CERTIFIED
    assert device.counted("tierwise_edge_load_ratio") > 1


async def test_replies_and_their_absence_reach_the_estimate() -> None:
    async with AsyncExitStack() as stack:
        region = NumbersBackend(SURE)
        tiers = device, _, _ = hierarchy(watched(), device=NumbersBackend(UNSURE), region=region)
        await online(stack, *tiers)
        pilot = device.pilot
        assert pilot is not None
        assert pilot.live is not None

        await answers(device, 8)
        heard = pilot.live.load.ratio
        region.delay_s = 0.2
        for number in range(30):
            await ask(device, budget_ms=40, request_id=f"late-{number}")

    assert heard is not None
    assert pilot.live.load.ratio == float("inf")


async def test_audits_that_disagree_steer_and_then_ask_for_a_new_fit() -> None:
    async with AsyncExitStack() as stack:
        tiers = device, _, _ = hierarchy(
            watched(), device=NumbersBackend(SURE), top=NumbersBackend(DOG), audits=ALWAYS
        )
        await online(stack, *tiers)
        auditor = device.auditor
        assert auditor is not None
        with structlog.testing.capture_logs() as logs:
            for number in range(60):
                await ask(device, request_id=f"r{number}")
                await eventually(lambda: not auditor.num_in_progress)
        answer, _ = await ask(device)

    assert answer.guarantee is Guarantee.SUSPENDED
    assert device.log.records[-1].gear == "g.safer-2"
    assert answer.tier is Tier.CLOUD
    assert device.counted("tierwise_edge_steering_ratio") > 0.5
    assert [line["event"] for line in logs].count("policy.outdated") == 1
    assert device.counted('tierwise_edge_drift_alarms_total{sign="audits"}') == 1


async def test_what_may_not_leave_the_region_is_not_told_to_ask_the_cloud() -> None:
    async with AsyncExitStack() as stack:
        tiers = device, _, _ = hierarchy(watched(), device=NumbersBackend(UNSURE))
        await online(stack, *tiers)
        await answers(device, WINDOW)
        pilot = device.pilot
        assert pilot is not None
        assert pilot.live is not None
        assert pilot.live.drift is not None
        pilot.live.drift.depth = 5
        pilot.live.note_answer("g", disagrees=False, is_auditable=False)

        await ask(device, residency=Residency.REGION)
        await ask(device, residency=Residency.CLOUD)

    assert [record.gear for record in device.log.records[-2:]] == ["g.safer-1", "g.safer-2"]


async def test_a_batch_is_not_noted_and_promises_nothing() -> None:
    async with AsyncExitStack() as stack:
        tiers = device, _, _ = hierarchy(watched(), device=NumbersBackend(UNSURE))
        await online(stack, *tiers)

        for number in range(WINDOW):
            await ask(device, request_id=f"b{number}", inputs={"x": np.zeros((2, 2), np.float32)})
        answer, _ = await ask(device)

    assert answer.guarantee is Guarantee.CERTIFIED
    assert np.isnan(device.counted("tierwise_edge_score_shift_p_ratio"))


async def test_a_policy_without_facts_of_its_fit_is_followed_as_ever() -> None:
    async with AsyncExitStack() as stack:
        tiers = device, _, _ = hierarchy(CHAIN, device=NumbersBackend(UNSURE))
        await online(stack, *tiers)

        await answers(device, WINDOW + 1)

    assert {record.gear for record in device.log.records} == {"g"}
    assert {record.guarantee for record in device.log.records} == {"certified"}


async def test_what_the_top_tier_said_at_once_is_not_counted_again_by_its_audit() -> None:
    followed = watched(gear(table("edge", to=("cloud",))))
    async with AsyncExitStack() as stack:
        tiers = device, _, _ = hierarchy(followed, device=NumbersBackend(UNSURE), audits=ALWAYS)
        await online(stack, *tiers)
        pilot = device.pilot
        assert pilot is not None
        assert pilot.live is not None
        pilot.live.steering.tau = 0.1
        await ask(device)
        noted = pilot.live.steering.tau

        await eventually(lambda: device.log.audits)

    assert list(parse_seen(device.log.records[0].seen)) == ["edge", "cloud"]
    assert noted < 0.1
    assert pilot.live.steering.tau == noted
