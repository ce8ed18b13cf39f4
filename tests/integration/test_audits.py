"""Audits over three tiers: after the answer, by all tiers, written down, and never in the way."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fakes.decisions import write_log
from fakes.gears import CHAIN, gear, gearbox, policy
from fakes.hierarchy import ask, cloud, edge, gateway, online
from fakes.tiers import SURE, UNSURE, FakeTier, NumbersBackend
from fakes.waiting import eventually
from runtime.adapters.decision_query import query_escalations
from runtime.adapters.memory_bus import MemoryBroker
from runtime.adapters.replay_log import read_recorded
from runtime.core.audit import AuditSettings
from runtime.core.confidence import confidence_of_batch
from runtime.core.seen import parse_seen
from runtime.deadline import Deadline
from runtime.exchange.uplink import UpstreamReply
from runtime.messages import Answer, InferenceRequest, Outcome, Reason, Residency, Tier
from runtime.policy import Policy

# A rate of 2 is no setting; it makes every chance 1.
ALWAYS = AuditSettings(rate=2.0)
DOG = (0.0, 9.0, 0.0)


def hierarchy(
    *, top: NumbersBackend | None = None, audits: AuditSettings = ALWAYS, **options: Any
) -> tuple[FakeTier, FakeTier, FakeTier]:
    """A sure device that audits, an unsure gateway, and a cloud."""
    broker = MemoryBroker()
    return (
        edge(broker, NumbersBackend(SURE), audits=audits, **options),
        gateway(broker),
        cloud(broker, top or NumbersBackend(SURE)),
    )


def audits_of(tier: FakeTier, result: str) -> float:
    return tier.counted(f'tierwise_edge_audits_total{{result="{result}"}}')


async def test_an_audit_happens_after_the_answer_and_reaches_all_tiers(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        tiers = device, region, top = hierarchy()
        await online(stack, *tiers)

        answer, _ = await ask(device)
        asked_before = region.backends[0].num_runs + top.backends[0].num_runs
        await eventually(lambda: device.log.audits)

    assert (answer.outcome, answer.tier) == (Outcome.ANSWERED, Tier.EDGE)
    assert asked_before == 0
    assert (region.backends[0].num_runs, top.backends[0].num_runs) == (1, 1)
    (record,), (audit,) = device.log.records, device.log.audits
    assert record.audit_chance == 1.0
    assert (audit.request_id, audit.wall_s, audit.site, audit.chance, audit.agrees) == (
        record.request_id, record.wall_s, record.site, 1.0, True,
    )  # fmt: skip
    seen = parse_seen(audit.seen)
    assert [(tier, one.label) for tier, one in seen.items()] == [
        ("edge", 0), ("regional", 0), ("cloud", 0),
    ]  # fmt: skip
    assert list(parse_seen(record.seen)) == ["edge"]
    (recorded,) = read_recorded([write_log(tmp_path, record, audit)], since_s=0).requests
    assert recorded.audit == seen


async def test_an_audit_is_no_escalation_anywhere(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        tiers = device, region, top = hierarchy()
        await online(stack, *tiers)

        await ask(device)
        await eventually(lambda: device.log.audits)

    records = [record for tier in tiers for record in tier.log.records]
    path = write_log(tmp_path, *records, *device.log.audits)
    (row,) = query_escalations([path], by=("tier",)).rows
    assert (row.group, row.requests, row.escalated) == (("edge",), 1, 0)
    for tier, name in ((device, "edge"), (region, "regional"), (top, "cloud")):
        assert tier.counted(f"tierwise_{name}_escalations_total") == 0
        assert tier.counted(f"tierwise_{name}_routes_total") == 0
    assert device.counted("tierwise_edge_answers_total") == 1
    for tier, name in ((region, "regional"), (top, "cloud")):
        assert tier.counted(f"tierwise_{name}_answers_total") == 0
        assert tier.counted(f'tierwise_{name}_served_audits_total{{result="answered"}}') == 1


async def test_what_the_top_disagrees_with_is_a_loss() -> None:
    async with AsyncExitStack() as stack:
        tiers = device, _, _ = hierarchy(top=NumbersBackend(DOG))
        await online(stack, *tiers)
        assert "tierwise_edge_audit_loss_ratio NaN" in device.metrics.render()[0].decode()

        await ask(device)
        await eventually(lambda: device.log.audits)

    assert device.log.audits[0].agrees is False
    assert audits_of(device, "disagreed") == 1
    assert device.counted("tierwise_edge_audit_loss_ratio") == 1.0


@pytest.mark.parametrize("kind", ["probability", "margin"])
async def test_an_audit_carries_the_scores_that_tables_look_up(kind: Any) -> None:
    tables = [msgspec.structs.replace(one, score=kind) for one in CHAIN.gears[0].tables]
    followed = policy(gear(*tables))
    async with AsyncExitStack() as stack:
        tiers = device, _, _ = under(followed)
        await online(stack, *tiers)

        await ask(device)
        await eventually(lambda: device.log.audits)

    (audit,) = device.log.audits
    assert (audit.policy, audit.gear) == (device.flow.gearbox.digest, "g")
    confidence = confidence_of_batch(np.array([UNSURE], np.float32))
    assert parse_seen(audit.seen)["regional"].score == confidence.score(kind)
    assert list(parse_seen(audit.seen)) == ["edge", "regional", "cloud"]


def under(followed: Policy) -> tuple[FakeTier, FakeTier, FakeTier]:
    broker = MemoryBroker()
    return (
        edge(broker, NumbersBackend(SURE), audits=ALWAYS, gearbox=gearbox(Tier.EDGE, followed)),
        gateway(broker, gearbox=gearbox(Tier.REGIONAL, followed)),
        cloud(broker, gearbox=gearbox(Tier.CLOUD, followed)),
    )


async def test_a_policy_without_the_cloud_audits_up_to_its_own_top() -> None:
    only_table = CHAIN.gears[0].tables[0]
    followed = policy(gear(only_table), tiers=("edge", "regional"), prices=(0.0, 1.0))
    async with AsyncExitStack() as stack:
        tiers = device, _, top = under(followed)
        await online(stack, *tiers)

        await ask(device, residency=Residency.REGION)
        await eventually(lambda: device.log.audits)

    assert device.log.audits[0].agrees is True
    assert list(parse_seen(device.log.audits[0].seen)) == ["edge", "regional"]
    assert top.backends[0].num_runs == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"residency": Residency.DEVICE},
        {"residency": Residency.REGION},
        {"inputs": {"x": np.zeros((4, 2), np.float32)}},
        {"hop": 1},
    ],
    ids=["device only", "region only", "a batch", "passed on"],
)
async def test_what_may_not_be_audited_is_not(fields: dict[str, Any]) -> None:
    async with AsyncExitStack() as stack:
        tiers = device, region, top = hierarchy()
        await online(stack, *tiers)

        await ask(device, **fields)
        await asyncio.sleep(0.05)

    assert device.log.records[0].audit_chance == 0.0
    assert not device.log.audits
    assert region.backends[0].num_runs + top.backends[0].num_runs == 0


async def test_what_climbed_is_not_audited() -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device = edge(broker, NumbersBackend(UNSURE), audits=ALWAYS)
        await online(stack, device, gateway(broker), cloud(broker))

        await ask(device)
        await asyncio.sleep(0.05)

    assert device.log.records[0].audit_chance == 0.0
    assert not device.log.audits


async def test_a_tier_that_is_not_the_lowest_of_its_policy_audits_nothing() -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        region = gateway(broker, NumbersBackend(SURE), audits=ALWAYS,
                         gearbox=gearbox(Tier.REGIONAL, CHAIN))  # fmt: skip
        await online(stack, region, cloud(broker))

        await ask(region)

    assert region.log.records[0].audit_chance == 0.0


async def test_nothing_is_audited_while_nobody_is_above() -> None:
    async with AsyncExitStack() as stack:
        device, _, _ = hierarchy()
        await online(stack, device)

        await ask(device)

    assert device.log.records[0].audit_chance == 0.0
    assert not device.log.audits


async def test_nothing_is_audited_while_the_gate_is_closed() -> None:
    async with AsyncExitStack() as stack:
        tiers = device, _, _ = hierarchy()
        await online(stack, *tiers)
        uplink = device.uplink
        assert uplink is not None
        link = uplink.upstreams.link("regional-1")
        for _ in range(60):
            link.note_lost(device.clock.monotonic_s(), 2000)

        await ask(device)

    assert 0 < (device.log.records[0].chance or 0) < 0.25
    assert device.log.records[0].audit_chance == 0.0
    assert not device.log.audits


async def test_an_audit_that_gets_no_reply_is_written_down_and_teaches_the_link_nothing() -> None:
    async with AsyncExitStack() as stack:
        tiers = device, _, _ = hierarchy(audits=AuditSettings(rate=2.0, budget_ms=80))
        await online(stack, *tiers)
        uplink = device.uplink
        assert uplink is not None
        before = uplink.prospect(100)
        device.up_bus.partition()

        await ask(device)
        await eventually(lambda: device.log.audits)
        after = uplink.prospect(100)

    assert device.log.audits[0].agrees is None
    assert list(parse_seen(device.log.audits[0].seen)) == ["edge"]
    assert device.log.records[0].audit_chance == 1.0
    assert audits_of(device, "failed") == 1
    assert (after.chance, after.gateway) == (before.chance, before.gateway)


async def test_an_audit_without_the_top_tier_has_failed() -> None:
    async with AsyncExitStack() as stack:
        device, region, _ = hierarchy()
        await online(stack, device, region)

        await ask(device)
        await eventually(lambda: device.log.audits)

    (audit,) = device.log.audits
    assert audit.agrees is None
    assert list(parse_seen(audit.seen)) == ["edge", "regional"]


async def test_without_a_place_nothing_is_drawn_and_requests_go_on() -> None:
    held_up = NumbersBackend(SURE, release=threading.Event())
    async with AsyncExitStack() as stack:
        one = AuditSettings(rate=2.0, budget_ms=5000, max_in_progress=1)
        tiers = device, _, _ = hierarchy(top=held_up, audits=one)
        await online(stack, *tiers)

        await ask(device, request_id="q1")
        answer, _ = await ask(device, request_id="q2")
        assert device.auditor is not None
        assert device.auditor.num_in_progress == 1

    assert answer.outcome is Outcome.ANSWERED
    assert [record.audit_chance for record in device.log.records] == [1.0, 0.0]
    assert audits_of(device, "skipped") == 1


@pytest.mark.parametrize("wait_s", [0.0, 0.05], ids=["not sent yet", "on its way"])
async def test_shutting_down_ends_an_audit_and_writes_it_down(wait_s: float) -> None:
    held_up = NumbersBackend(SURE, release=threading.Event())
    async with AsyncExitStack() as stack:
        audits = AuditSettings(rate=2.0, budget_ms=60_000)
        tiers = device, _, top = hierarchy(top=held_up, audits=audits)
        await online(stack, *tiers)
        await ask(device)
        await asyncio.sleep(wait_s)
        assert device.auditor is not None

        await device.auditor.close()

        assert device.auditor.num_in_progress == 0
        # Whoever worked on it is told.
        await eventually(lambda: not top.ingress._running)
        await ask(device, request_id="q2")

    assert [audit.agrees for audit in device.log.audits] == [None]
    assert [record.audit_chance for record in device.log.records] == [1.0, 0.0]


async def test_a_caller_may_use_its_arrays_again() -> None:
    async with AsyncExitStack() as stack:
        tiers = device, region, _ = hierarchy()
        await online(stack, *tiers)
        arrived: list[InferenceRequest] = []
        answer = region.flow.answer

        async def spying(request: InferenceRequest, deadline: Deadline) -> Answer:
            arrived.append(request)
            return await answer(request, deadline)

        region.flow.answer = spying  # type: ignore[method-assign]
        mine = np.ones((1, 2), np.float32)
        await ask(device, inputs={"x": mine})
        mine[:] = 7
        await eventually(lambda: device.log.audits)

    assert arrived[0].inputs["x"].tolist() == [[1.0, 1.0]]
    assert arrived[0].audit
    assert arrived[0].route == (Tier.REGIONAL, Tier.CLOUD)


async def test_a_gateway_that_is_half_full_sheds_audits_and_serves_requests() -> None:
    busy = NumbersBackend(UNSURE, release=threading.Event())
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        device = edge(broker, NumbersBackend(SURE), audits=ALWAYS)
        other = edge(broker, NumbersBackend(UNSURE), site="edge-2")
        region = gateway(broker, busy)
        await online(stack, device, other, region, cloud(broker))
        waiting = [
            asyncio.create_task(ask(other, budget_ms=9000, request_id=f"q{number}"))
            for number in range(5)
        ]
        await eventually(lambda: region.ingress.queue_len == 5)

        await ask(device, request_id="audited")
        await eventually(lambda: device.log.audits)
        assert busy.release is not None
        busy.release.set()
        answers = [answer for answer, _ in await asyncio.gather(*waiting)]

    assert device.log.audits[0].agrees is None
    assert region.counted('tierwise_regional_served_audits_total{result="overloaded"}') == 1
    assert region.counted("tierwise_regional_refused_requests_total") == 0
    assert {answer.outcome for answer in answers} == {Outcome.ANSWERED}


async def test_audits_have_few_places_and_take_none_from_requests() -> None:
    held_up = NumbersBackend(SURE, release=threading.Event())
    async with AsyncExitStack() as stack:
        many = AuditSettings(rate=2.0, budget_ms=5000, max_in_progress=8)
        tiers = device, region, top = hierarchy(top=held_up, audits=many)
        await online(stack, *tiers)

        for number in range(3):
            await ask(device, request_id=f"q{number}")
        refused = 'tierwise_regional_served_audits_total{result="overloaded"}'
        await eventually(lambda: region.counted(refused) == 2)

        assert region.ingress.queue_len == top.ingress.queue_len == 0
        assert region.uplink is not None
        assert region.uplink.num_pending == 0


async def test_a_crash_in_an_audit_reaches_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    async def crash(*_: object) -> UpstreamReply:
        raise ZeroDivisionError

    async with AsyncExitStack() as stack:
        tiers = device, _, _ = hierarchy()
        await online(stack, *tiers)
        monkeypatch.setattr(device.uplink, "ask", crash)

        answer, _ = await ask(device)
        await eventually(lambda: device.log.audits)

    assert answer.reason is Reason.CONFIDENT
    assert audits_of(device, "failed") == 1
