"""Tiers that follow a fitted gear: who is asked, whose answer stands, and what it promises."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import numpy as np
import pytest

from fakes.gears import CHAIN, LOWER, RACE, SKIP, STRAIGHT, gear, gearbox, policy, table
from fakes.hierarchy import ask, cloud, edge, gateway, online
from fakes.tiers import SURE, UNSURE, FakeTier, NumbersBackend, tiers_that_worked
from fakes.waiting import eventually
from runtime.adapters.memory_bus import MemoryBroker
from runtime.core.seen import parse_seen
from runtime.errors import MalformedBodyError
from runtime.messages import Answer, Guarantee, Outcome, Reason, Residency, Tier
from runtime.policy import Policy, Targets

DOG = (0.0, 0.9, 0.0)


def hierarchy(
    followed: Policy, *, region: NumbersBackend | None = None, **options: Any
) -> tuple[FakeTier, FakeTier, FakeTier]:
    """Three tiers of one policy, all unsure but the cloud."""
    broker = MemoryBroker()
    return (
        edge(broker, gearbox=gearbox(Tier.EDGE, followed), **options),
        gateway(
            broker,
            *([region] if region else []),
            gearbox=gearbox(Tier.REGIONAL, followed),
            **options,
        ),
        cloud(broker, gearbox=gearbox(Tier.CLOUD, followed), **options),
    )


def ended(answer: Answer) -> tuple[Outcome, Reason, Tier | None, Guarantee]:
    return answer.outcome, answer.reason, answer.tier, answer.guarantee


async def test_a_chain_climbs_as_it_was_fitted_and_is_certified() -> None:
    async with AsyncExitStack() as stack:
        tiers = device, region, top = hierarchy(CHAIN)
        await online(stack, *tiers)

        answer, _ = await ask(device)

    assert ended(answer)[2:] == (Tier.CLOUD, Guarantee.CERTIFIED)
    assert tiers_that_worked(answer) == ["edge", "regional", "cloud"]
    records = [tier.log.records[0] for tier in (device, region, top)]
    assert [one.route for one in records] == ["regional", "cloud", ""]
    assert {(one.policy, one.gear, one.guarantee) for one in records} == {
        (device.flow.gearbox.digest, "g", "certified")
    }
    assert device.counted('tierwise_edge_routes_total{route="regional"}') == 1
    assert device.counted('tierwise_edge_guarantees_total{guarantee="certified"}') == 1


async def test_the_log_says_what_the_tiers_from_here_on_answered() -> None:
    async with AsyncExitStack() as stack:
        device, region, top = tiers = hierarchy(CHAIN)
        await online(stack, *tiers)

        answer, _ = await ask(device)
        await ask(device, request_id="q2", inputs={"x": np.zeros((4, 2), np.float32)})

    single, batch = device.log.records
    found = parse_seen(single.seen)
    assert list(found) == ["edge", "regional", "cloud"]
    assert [one.score for one in found.values()] == [hop.confidence for hop in answer.hops]
    assert [one.label for one in found.values()] == [hop.label for hop in answer.hops]
    assert list(parse_seen(region.log.records[0].seen)) == ["regional", "cloud"]
    assert list(parse_seen(top.log.records[0].seen)) == ["cloud"]
    assert batch.seen == ""
    assert (single.budget_ms, single.residency) == (1000, "cloud")
    assert (region.log.records[0].budget_ms or 0) < 1000


async def test_a_tier_that_was_skipped_has_not_answered() -> None:
    async with AsyncExitStack() as stack:
        tiers = device, _, _ = hierarchy(SKIP)
        await online(stack, *tiers)

        await ask(device)

    assert list(parse_seen(device.log.records[0].seen)) == ["edge", "cloud"]


async def test_a_score_of_another_kind_travels_beside_the_confidence() -> None:
    by_margin = [msgspec.structs.replace(one, score="margin") for one in CHAIN.gears[0].tables]
    async with AsyncExitStack() as stack:
        tiers = device, _, _ = hierarchy(policy(gear(*by_margin)))
        await online(stack, *tiers)

        answer, _ = await ask(device)

    found = parse_seen(device.log.records[0].seen)
    assert found["edge"].score == device.log.records[0].score
    assert found["regional"].score == answer.hops[1].score
    assert answer.hops[1].score != answer.hops[1].confidence
    # No table is looked up at the top.
    assert answer.hops[2].score is None
    assert found["cloud"].score == answer.hops[2].confidence


async def test_what_the_table_lets_stand_is_answered_on_the_device() -> None:
    async with AsyncExitStack() as stack:
        broker = MemoryBroker()
        device = edge(broker, NumbersBackend(SURE), gearbox=gearbox(Tier.EDGE, CHAIN))
        region = gateway(broker)
        await online(stack, device, region)

        answer, _ = await ask(device)

    assert ended(answer) == (
        Outcome.ANSWERED,
        Reason.CONFIDENT,
        Tier.EDGE,
        Guarantee.CERTIFIED,
    )
    assert region.backends[0].num_runs == 0
    (record,) = device.log.records
    assert record.score == pytest.approx(answer.confidence)
    assert (record.gain, record.cost) == (0.0, 0.0)
    assert record.chance == pytest.approx(0.9)


async def test_a_skipped_gateway_relays_without_running_its_model() -> None:
    async with AsyncExitStack() as stack:
        tiers = device, region, _ = hierarchy(SKIP)
        await online(stack, *tiers)

        answer, _ = await ask(device)

    assert ended(answer)[2:] == (Tier.CLOUD, Guarantee.CERTIFIED)
    assert region.backends[0].num_runs == 0
    assert [hop.reason for hop in answer.hops][:2] == [Reason.UNSURE, Reason.ROUTED]
    assert answer.hops[1].confidence is None


async def test_a_gateway_that_cannot_relay_answers_itself_and_says_why() -> None:
    async with AsyncExitStack() as stack:
        device, region, _ = hierarchy(SKIP, region=NumbersBackend((1.0, 0.0, 0.0)))
        await online(stack, device, region)

        answer, _ = await ask(device)

    assert ended(answer) == (
        Outcome.DEGRADED,
        Reason.NO_UPSTREAM,
        Tier.REGIONAL,
        Guarantee.SUSPENDED,
    )


async def test_a_gateway_whose_relay_fails_still_answers_itself() -> None:
    async with AsyncExitStack() as stack:
        device, region, top = tiers = hierarchy(SKIP, region=NumbersBackend((1.0, 0.0, 0.0)))
        top.backends[0].is_broken = True
        await online(stack, *tiers)

        answer, _ = await ask(device)

    assert ended(answer) == (
        Outcome.DEGRADED,
        Reason.UPSTREAM_FAILED,
        Tier.REGIONAL,
        Guarantee.SUSPENDED,
    )
    assert region.backends[0].num_runs == 1


async def test_a_relay_without_an_answer_or_a_model_says_failed_and_the_device_keeps_its_own() -> (
    None
):
    async with AsyncExitStack() as stack:
        device, _, top = tiers = hierarchy(SKIP, region=NumbersBackend(is_broken=True))
        top.backends[0].is_broken = True
        await online(stack, *tiers)

        answer, _ = await ask(device)

    assert ended(answer) == (
        Outcome.DEGRADED,
        Reason.UPSTREAM_FAILED,
        Tier.EDGE,
        Guarantee.SUSPENDED,
    )


async def test_a_race_takes_the_upper_answer_when_it_comes_in_time() -> None:
    async with AsyncExitStack() as stack:
        # The region's own model is held up; nobody waits for it.
        held_up = NumbersBackend(UNSURE, release=threading.Event())
        tiers = device, region, _ = hierarchy(RACE, region=held_up)
        await online(stack, *tiers)

        answer, took_ms = await ask(device, budget_ms=60_000)

    assert ended(answer)[2:] == (Tier.CLOUD, Guarantee.CERTIFIED)
    assert region.backends[0].num_runs == 1
    assert took_ms < 10_000


async def test_a_race_that_the_upper_tier_loses_ends_with_the_gateways_answer() -> None:
    followed = policy(*RACE.gears, targets=Targets(max_loss=0.01, delta=0.05, max_late=0.5))
    async with AsyncExitStack() as stack:
        tiers = device, _, top = hierarchy(followed, region=NumbersBackend(DOG), margin_ms=500)
        top.backends[0].release = threading.Event()
        await online(stack, *tiers)

        answer, _ = await ask(device, budget_ms=1500)

    # The fit counted on answers that come late, so this one is as it was fitted.
    assert (answer.outcome, answer.tier, answer.label_name) == (
        Outcome.DEGRADED,
        Tier.REGIONAL,
        "dog",
    )
    assert answer.guarantee is Guarantee.CERTIFIED


async def test_a_race_without_an_upper_tier_is_the_gateways_answer() -> None:
    async with AsyncExitStack() as stack:
        device, region, _ = hierarchy(RACE, region=NumbersBackend((1.0, 0.0, 0.0)))
        await online(stack, device, region)

        answer, _ = await ask(device)

    assert ended(answer) == (
        Outcome.DEGRADED,
        Reason.NO_UPSTREAM,
        Tier.REGIONAL,
        Guarantee.SUSPENDED,
    )


async def test_a_race_keeps_the_gateways_answer_when_the_upper_tier_fails() -> None:
    async with AsyncExitStack() as stack:
        tiers = device, _, top = hierarchy(RACE, region=NumbersBackend((1.0, 0.0, 0.0)))
        top.backends[0].is_broken = True
        await online(stack, *tiers)

        answer, _ = await ask(device)

    assert ended(answer) == (
        Outcome.DEGRADED,
        Reason.UPSTREAM_FAILED,
        Tier.REGIONAL,
        Guarantee.SUSPENDED,
    )


async def test_a_caller_that_goes_away_ends_both_sides_of_a_race() -> None:
    async with AsyncExitStack() as stack:
        held_up = NumbersBackend(UNSURE, release=threading.Event())
        tiers = device, region, top = hierarchy(RACE, region=held_up)
        top.backends[0].release = threading.Event()
        await online(stack, *tiers)
        waiting = asyncio.create_task(ask(device, budget_ms=9000))
        await eventually(lambda: top.ingress.queue_len == 1)

        waiting.cancel()

        await eventually(lambda: region.ingress.queue_len == 0 and top.ingress.queue_len == 0)


async def test_the_answer_below_stands_where_the_gateway_finds_it_better() -> None:
    async with AsyncExitStack() as stack:
        tiers = device, region, top = hierarchy(LOWER, region=NumbersBackend((0.1, 0.3, 0.2)))
        await online(stack, *tiers)

        answer, _ = await ask(device)

    assert ended(answer) == (
        Outcome.ANSWERED,
        Reason.LOWER_STANDS,
        Tier.EDGE,
        Guarantee.CERTIFIED,
    )
    assert answer.label_name == "cat"
    assert tiers_that_worked(answer) == ["edge", "regional"]
    assert region.log.records[0].outcome == "abstained"
    assert top.backends[0].num_runs == 0
    assert device.counted('tierwise_edge_escalations_total{result="lower_stands"}') == 1


async def test_a_gear_without_tables_asks_the_top_at_once() -> None:
    async with AsyncExitStack() as stack:
        tiers = device, region, _ = hierarchy(STRAIGHT)
        await online(stack, *tiers)

        answer, _ = await ask(device)
        at_home, _ = await ask(device, request_id="q2", residency=Residency.REGION)

    assert ended(answer)[2:] == (Tier.CLOUD, Guarantee.CERTIFIED)
    assert region.backends[0].num_runs == 0
    assert ended(at_home) == (
        Outcome.DEGRADED,
        Reason.RESIDENCY,
        Tier.EDGE,
        Guarantee.SUSPENDED,
    )


@pytest.mark.parametrize("knows_another", [True, False])
async def test_a_gateway_of_another_policy_answers_and_promises_nothing(
    knows_another: bool,
) -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device = edge(broker, gearbox=gearbox(Tier.EDGE, CHAIN))
        region = gateway(broker, gearbox=gearbox(Tier.REGIONAL, LOWER) if knows_another else None)
        top = cloud(broker, gearbox=gearbox(Tier.CLOUD, CHAIN))
        await online(stack, device, region, top)

        answer, _ = await ask(device)

    # Its own gear, or its threshold, decides there; the device's gear still goes on upwards.
    tier = Tier.EDGE if knows_another else Tier.CLOUD
    assert (answer.outcome, answer.tier, answer.guarantee) == (
        Outcome.ANSWERED,
        tier,
        Guarantee.NONE,
    )
    assert region.log.records[0].policy == (region.flow.gearbox.digest if knows_another else "")
    assert region.counted("tierwise_regional_unknown_gears_total") == 1
    assert device.counted("tierwise_edge_unknown_gears_total") == 0


async def test_a_gear_that_the_gateway_does_not_have_is_replaced_by_its_own() -> None:
    named = policy(gear(*CHAIN.gears[0].tables, name="unheard-of"))
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device = edge(broker, gearbox=gearbox(Tier.EDGE, named))
        region = gateway(broker, gearbox=gearbox(Tier.REGIONAL, CHAIN))
        region.flow.gearbox.digest = device.flow.gearbox.digest
        top = cloud(broker)
        await online(stack, device, region, top)

        answer, _ = await ask(device)

    assert (answer.tier, answer.guarantee) == (Tier.CLOUD, Guarantee.NONE)
    assert region.log.records[0].gear == "g"


async def test_a_closed_gate_suspends_the_guarantee_and_a_probe_goes_through() -> None:
    async with AsyncExitStack() as stack:
        tiers = device, _, _ = hierarchy(CHAIN, inline=True)
        await online(stack, *tiers)
        device.up_bus.partition()
        answers = [
            (await ask(device, budget_ms=200, request_id=f"cut-{number}"))[0]
            for number in range(30)
        ]

    assert {answer.guarantee for answer in answers} == {Guarantee.SUSPENDED}
    assert {answer.outcome for answer in answers} == {Outcome.DEGRADED}
    assert {Reason.UNLIKELY_IN_TIME, Reason.UPSTREAM_TIMEOUT} <= {a.reason for a in answers}


async def test_an_outage_that_the_fit_knew_of_suspends_nothing() -> None:
    followed = policy(*CHAIN.gears, targets=Targets(max_loss=0.01, delta=0.05, max_late=0.5))
    async with AsyncExitStack() as stack:
        tiers = device, _, _ = hierarchy(followed)
        await online(stack, *tiers)
        device.up_bus.partition()

        answer, _ = await ask(device, budget_ms=500)

    assert ended(answer) == (
        Outcome.DEGRADED,
        Reason.UPSTREAM_TIMEOUT,
        Tier.EDGE,
        Guarantee.CERTIFIED,
    )


async def test_residency_comes_before_the_gear() -> None:
    async with AsyncExitStack() as stack:
        tiers = device, region, top = hierarchy(CHAIN)
        await online(stack, *tiers)

        kept, _ = await ask(device, request_id="q1", residency=Residency.DEVICE)
        regional, _ = await ask(device, request_id="q2", residency=Residency.REGION)

    assert ended(kept) == (Outcome.DEGRADED, Reason.RESIDENCY, Tier.EDGE, Guarantee.SUSPENDED)
    assert (regional.tier, regional.guarantee) == (Tier.REGIONAL, Guarantee.SUSPENDED)
    assert region.backends[0].num_runs == 1
    assert top.backends[0].num_runs == 0


async def test_an_ensemble_with_a_member_missing_suspends_the_guarantee() -> None:
    broker = MemoryBroker()
    members = NumbersBackend(SURE), NumbersBackend(is_broken=True)
    async with AsyncExitStack() as stack:
        device = edge(broker, gearbox=gearbox(Tier.EDGE, SKIP))
        region = gateway(broker, gearbox=gearbox(Tier.REGIONAL, SKIP))
        top = cloud(broker, *members, gearbox=gearbox(Tier.CLOUD, SKIP))
        await online(stack, device, region, top)

        answer, _ = await ask(device)

    assert ended(answer) == (
        Outcome.DEGRADED,
        Reason.PARTIAL_ENSEMBLE,
        Tier.CLOUD,
        Guarantee.SUSPENDED,
    )


async def test_an_output_that_is_no_number_never_asks_the_table() -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device = edge(broker, NumbersBackend((float("nan"),) * 3), gearbox=gearbox(Tier.EDGE, RACE))
        region = gateway(broker, NumbersBackend(SURE), gearbox=gearbox(Tier.REGIONAL, RACE))
        await online(stack, device, region)

        answer, _ = await ask(device)

    # The next tier above by its threshold: no table is for it alone.
    assert (answer.tier, answer.guarantee) == (Tier.REGIONAL, Guarantee.SUSPENDED)
    assert answer.hops[0].reason is Reason.NO_CONFIDENCE
    assert device.log.records[0].route == ""


async def test_a_batch_follows_the_gear_without_a_promise() -> None:
    async with AsyncExitStack() as stack:
        tiers = device, region, _ = hierarchy(SKIP)
        await online(stack, *tiers)

        answer, _ = await ask(device, inputs={"x": np.zeros((4, 2), np.float32)})

    assert (answer.tier, answer.guarantee) == (Tier.CLOUD, Guarantee.NONE)
    assert region.backends[0].num_runs == 0


async def test_a_budget_below_every_gears_is_decided_by_thresholds_everywhere() -> None:
    followed = policy(gear(*SKIP.gears[0].tables, budget_ms=2000))
    async with AsyncExitStack() as stack:
        tiers = device, region, _ = hierarchy(followed)
        await online(stack, *tiers)

        answer, _ = await ask(device, budget_ms=1999)
        enough, _ = await ask(device, budget_ms=2000, request_id="q2")

    assert (answer.tier, answer.guarantee) == (Tier.CLOUD, Guarantee.NONE)
    assert region.backends[0].num_runs == 1
    assert enough.guarantee is Guarantee.CERTIFIED


async def test_a_journey_does_not_begin_at_a_tier_that_others_pass_requests_to() -> None:
    followed = policy(gear(table("regional", to=("cloud",))), tiers=("regional", "cloud"),
                      prices=(0.1, 1.0))  # fmt: skip
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device = edge(broker)
        region = gateway(broker, gearbox=gearbox(Tier.REGIONAL, followed))
        top = cloud(broker, gearbox=gearbox(Tier.CLOUD, followed))
        await online(stack, device, region, top)

        passed_on, _ = await ask(device)
        direct, _ = await ask(region, request_id="q2")

    # What a device let through is not what the policy was fitted on.
    assert (passed_on.tier, passed_on.guarantee) == (Tier.CLOUD, Guarantee.NONE)
    assert (direct.tier, direct.guarantee) == (Tier.CLOUD, Guarantee.CERTIFIED)
    assert region.log.records[0].gear == ""


async def test_a_top_tier_of_the_policy_asks_nobody_above_it() -> None:
    followed = policy(gear(table("edge", to=("regional",))), tiers=("edge", "regional"),
                      prices=(0.0, 1.0))  # fmt: skip
    async with AsyncExitStack() as stack:
        tiers = device, _, top = hierarchy(followed)
        await online(stack, *tiers)

        answer, _ = await ask(device)

    assert ended(answer) == (
        Outcome.ANSWERED,
        Reason.TOP_TIER,
        Tier.REGIONAL,
        Guarantee.CERTIFIED,
    )
    assert top.backends[0].num_runs == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"route": (Tier.EDGE,)},
        {"earlier": ((Tier.REGIONAL, 1),)},
        {"earlier": ((Tier.CLOUD, 1),)},
    ],
)
def test_directions_that_lead_down_are_refused(fields: dict[str, Any]) -> None:
    region = gateway(MemoryBroker())
    question = fields | {"request_id": "q"}

    with pytest.raises(MalformedBodyError):
        asyncio.run(ask(region, **question))
