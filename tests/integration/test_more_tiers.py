"""Gateways of gateways: the same flow at every tier, however many there are."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from fakes.gears import gear, gearbox, policy, table
from fakes.hierarchy import ask, cloud, edge, gateway, online
from fakes.tiers import SURE, UNSURE, FakeTier, NumbersBackend, tiers_that_worked
from fakes.waiting import eventually
from runtime.adapters.memory_bus import MemoryBroker
from runtime.core.audit import AuditSettings
from runtime.core.seen import parse_seen
from runtime.messages import Guarantee, Outcome, Reason, Residency, Tier
from runtime.policy import Policy

ALL = tuple(tier.value for tier in Tier)
PRICES = (0.0, 0.1, 0.2, 0.3, 0.5, 1.0)


def chain(*names: str) -> Policy:
    """Every tier asks the next one where it is unsure."""
    tables = [table(*names[: n + 1], to=(names[n + 1],)) for n in range(len(names) - 1)]
    return policy(gear(*tables), tiers=names, prices=PRICES[-len(names) :])


def hierarchy(*names: str, followed: Policy | None = None, **options: Any) -> list[FakeTier]:
    """Tiers of these names, all unsure but the cloud."""
    broker = MemoryBroker()
    found = []
    for name, above in zip(names, (*names[1:], None), strict=True):
        fields: dict[str, Any] = {"gearbox": gearbox(Tier(name), followed)} if followed else {}
        if name == Tier.EDGE:
            found.append(edge(broker, **fields, **options))
        elif above is None:
            found.append(cloud(broker, **fields))
        else:
            found.append(gateway(broker, tier=Tier(name), above=Tier(above), **fields))
    return found


async def answers(tiers: Sequence[FakeTier], **fields: Any) -> Any:
    async with AsyncExitStack() as stack:
        await online(stack, *tiers)
        answer, _ = await ask(tiers[0], 2000, **fields)
    return answer


async def test_six_tiers_climb_as_they_were_fitted_and_are_certified() -> None:
    tiers = hierarchy(*ALL, followed=chain(*ALL))

    answer = await answers(tiers)

    assert tiers_that_worked(answer) == list(ALL)
    assert (answer.outcome, answer.tier, answer.guarantee) == (
        Outcome.ANSWERED, Tier.CLOUD, Guarantee.CERTIFIED,
    )  # fmt: skip
    assert list(parse_seen(tiers[0].log.records[0].seen)) == list(ALL)
    assert [tier.log.records[0].tier for tier in tiers] == list(ALL)


async def test_without_a_policy_thresholds_climb_a_gateway_of_gateways() -> None:
    names = ("edge", "regional", "regional-2", "cloud")

    answer = await answers(hierarchy(*names))

    assert tiers_that_worked(answer) == list(names)


async def test_a_sure_gateway_of_gateways_ends_the_climb() -> None:
    tiers = hierarchy("edge", "regional", "regional-2", "cloud")
    tiers[2].backends[0].scores = SURE

    answer = await answers(tiers)

    assert (answer.tier, answer.reason) == (Tier.REGIONAL_2, Reason.CONFIDENT)
    assert tiers[3].backends[0].num_runs == 0
    assert tiers[2].counted("tierwise_regional_answers_total") == 1


async def test_tiers_that_the_policy_leaves_out_pass_the_request_on() -> None:
    names = ("edge", "regional", "regional-2", "cloud")
    tiers = hierarchy(*names, followed=chain("edge", "cloud"))

    answer = await answers(tiers)

    assert [tier.backends[0].num_runs for tier in tiers] == [1, 0, 0, 1]
    assert (answer.tier, answer.guarantee) == (Tier.CLOUD, Guarantee.CERTIFIED)


async def test_a_race_reaches_over_a_gateway_of_gateways() -> None:
    names = ("edge", "regional", "regional-2", "cloud")
    raced = policy(gear(table("edge", to=("regional-2", "cloud"))), tiers=names, prices=PRICES[-4:])
    tiers = hierarchy(*names, followed=raced)

    answer = await answers(tiers)

    assert (answer.tier, answer.guarantee) == (Tier.CLOUD, Guarantee.CERTIFIED)
    assert tiers[1].backends[0].num_runs == 0


async def test_a_device_may_ask_the_cloud_without_a_gateway() -> None:
    broker = MemoryBroker()
    followed = chain("edge", "cloud")
    device = FakeTier(
        broker,
        Tier.EDGE,
        NumbersBackend(UNSURE),
        above=Tier.CLOUD,
        gearbox=gearbox(Tier.EDGE, followed),
    )
    top = cloud(broker, gearbox=gearbox(Tier.CLOUD, followed))

    answer = await answers([device, top])

    assert tiers_that_worked(answer) == ["edge", "cloud"]
    assert answer.guarantee is Guarantee.CERTIFIED


@pytest.mark.parametrize(
    ("residency", "reached"), [(Residency.REGION, 2), (Residency.DEVICE, 1), (Residency.CLOUD, 4)]
)
async def test_a_payload_of_the_region_never_reaches_a_gateway_of_gateways(
    residency: Residency, reached: int
) -> None:
    tiers = hierarchy("edge", "regional", "regional-2", "cloud")

    answer = await answers(tiers, residency=residency)

    assert [tier.backends[0].num_runs for tier in tiers] == [1] * reached + [0] * (4 - reached)
    assert len(answer.hops) == reached


async def test_an_audit_asks_all_tiers_of_the_policy() -> None:
    names = ("edge", "regional", "regional-2", "cloud")
    tiers = hierarchy(*names, followed=chain(*names), audits=AuditSettings(rate=2.0))
    tiers[0].backends[0].scores = SURE

    async with AsyncExitStack() as stack:
        await online(stack, *tiers)
        await ask(tiers[0])
        await eventually(lambda: tiers[0].log.audits)

    assert list(parse_seen(tiers[0].log.audits[0].seen)) == list(names)
