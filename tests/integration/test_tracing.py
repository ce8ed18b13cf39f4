"""Spans of requests over tiers: whose child each one is, and what it says."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from fakes.hierarchy import ask, cloud, edge, gateway, online
from fakes.spans import Recorder
from fakes.storing import storing_cloud, storing_edge, storing_gateway
from fakes.tiers import SURE, UNSURE, FakeTier, NumbersBackend
from fakes.waiting import eventually, until
from runtime.adapters.memory_bus import LinkFaults, MemoryBroker
from runtime.core.tracing import Span, parse_context
from runtime.messages import Outcome, Reason, Residency

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ALLOWED = {
    "tier", "site", "model", "version", "reason", "outcome", "remaining_ms", "member", "gateway",
    "attempt",
}  # fmt: skip


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def said(span: Span) -> dict[str, Any]:
    return {name.removeprefix("tierwise."): value for name, value in span.attributes.items()}


async def three_tiers(
    stack: AsyncExitStack, recorder: Recorder, **options: Any
) -> tuple[FakeTier, FakeTier, FakeTier]:
    broker = MemoryBroker()
    members = [NumbersBackend(SURE) for _ in range(3)]
    tiers = (
        cloud(broker, *members, recorder=recorder),
        gateway(broker, recorder=recorder),
        edge(broker, recorder=recorder, **options),
    )
    await online(stack, *tiers)
    return tiers


async def test_a_climb_is_one_trace_from_the_caller_to_the_members_of_the_ensemble(
    stack: AsyncExitStack, recorder: Recorder
) -> None:
    *_, below = await three_tiers(stack, recorder)

    answer, _ = await ask(below, traceparent=CALLER)

    caller = parse_context(CALLER)
    assert caller is not None
    assert answer.outcome is Outcome.ANSWERED
    assert {one.trace_id for one in recorder.spans} == {caller.trace_id}
    parent_id = caller.span_id
    for tier in ("edge", "regional", "cloud"):
        request = recorder.one("request", tier)
        assert request.parent_id == parent_id
        assert recorder.one("inference", tier).parent_id == request.span_id
        if tier != "cloud":
            hop = recorder.one("hop", tier)
            assert hop.parent_id == request.span_id
            parent_id = hop.span_id
    members = recorder.named("member", "cloud")
    assert {one.parent_id for one in members} == {recorder.one("inference", "cloud").span_id}
    assert sorted(said(one)["member"] for one in members) == ["member-0", "member-1", "member-2"]
    assert len({one.span_id for one in recorder.spans}) == len(recorder.spans) == 11


async def test_spans_say_who_and_why_and_nothing_of_what_was_asked(
    stack: AsyncExitStack, recorder: Recorder
) -> None:
    *_, below = await three_tiers(stack, recorder)

    await ask(below, traceparent=CALLER, request_id="secret-of-somebody")

    request = said(recorder.one("request", "edge"))
    assert 0 < request.pop("remaining_ms") <= 1000
    assert request == {
        "tier": "edge",
        "site": "edge-1",
        "model": "animals",
        "version": "edge-1",
        "outcome": "answered",
        "reason": "confident",
    } | {"reason": request["reason"]}
    assert {name for one in recorder.spans for name in said(one)} == ALLOWED
    assert "secret-of-somebody" not in repr(recorder.spans)
    assert all(one.duration_ns >= 0 and one.start_ns > 10**18 for one in recorder.spans)


async def test_what_the_caller_does_not_sample_is_traced_nowhere(
    stack: AsyncExitStack, recorder: Recorder
) -> None:
    *_, below = await three_tiers(stack, recorder)

    await ask(below, traceparent=CALLER.removesuffix("01") + "00")

    assert recorder.spans == []


async def test_what_the_entry_does_not_draw_no_tier_above_draws(
    stack: AsyncExitStack, recorder: Recorder
) -> None:
    above, _, below = await three_tiers(stack, recorder, share=0.0)

    await ask(below)

    assert above.backends[0].num_runs == 1
    assert recorder.spans == []


async def test_without_a_context_of_the_caller_the_entry_begins_a_trace(
    stack: AsyncExitStack, recorder: Recorder
) -> None:
    *_, below = await three_tiers(stack, recorder)

    await ask(below, traceparent="garbage")
    await ask(below, request_id="q2")

    assert len({one.trace_id for one in recorder.spans}) == 2
    assert [one.parent_id for one in recorder.named("request", "edge")] == ["", ""]


async def test_what_may_not_leave_the_device_has_spans_that_are_only_counted(
    stack: AsyncExitStack, recorder: Recorder
) -> None:
    *_, below = await three_tiers(stack, recorder)

    await ask(below, traceparent=CALLER, residency=Residency.DEVICE)

    assert recorder.spans == []
    assert below.counted('tierwise_edge_spans_total{result="kept_local"}') == 2
    exposed = below.metrics.render("application/openmetrics-text")[0].decode()
    assert "trace_id" not in exposed


async def test_the_latency_of_a_traced_request_is_an_exemplar(
    stack: AsyncExitStack, recorder: Recorder
) -> None:
    *_, below = await three_tiers(stack, recorder)

    await ask(below, traceparent=CALLER)

    exposed = below.metrics.render("application/openmetrics-text")[0].decode()
    assert '# {trace_id="4bf92f3577b34da6a3ce929d0e0e4736"}' in exposed


async def test_a_hedge_is_a_second_hop_of_the_same_request(
    stack: AsyncExitStack, recorder: Recorder
) -> None:
    broker = MemoryBroker()
    slow = NumbersBackend(SURE)
    first = gateway(broker, slow, site="g1", recorder=recorder)
    second = gateway(broker, NumbersBackend(SURE), site="g2", recorder=recorder)
    below = edge(broker, recorder=recorder, hedge_share=0.5)
    await online(stack, first, below)
    for number in range(20):
        await ask(below, request_id=f"warm-{number}")
    await stack.enter_async_context(second)
    assert below.uplink is not None
    upstreams = below.uplink.upstreams
    await eventually(lambda: upstreams.choose(0.0, other_than="g1") == "g2")
    recorder.spans.clear()
    slow.delay_s = 0.4

    answer, _ = await until_hedged(below, recorder)

    hops = [one for one in recorder.named("hop") if one.trace_id == answer]
    (request,) = [one for one in recorder.named("request", "edge") if one.trace_id == answer]
    assert {one.parent_id for one in hops} == {request.span_id}
    assert sorted(said(one)["gateway"] for one in hops) == ["g1", "g2"]
    assert {said(one)["gateway"]: said(one)["outcome"] for one in hops} == {
        "g1": "cancelled",
        "g2": "answered",
    }
    above = [one for one in recorder.named("request", "regional") if one.trace_id == answer]
    by_gateway = {said(one)["gateway"]: one.span_id for one in hops}
    assert by_gateway["g2"] in {one.parent_id for one in above}


async def until_hedged(below: FakeTier, recorder: Recorder) -> tuple[str, int]:
    """The trace of the first request that two gateways were asked about."""
    for number in range(20):
        await ask(below, request_id=f"q-{number}")
        traces = [one.trace_id for one in recorder.named("hop")]
        for trace in set(traces):
            if traces.count(trace) == 2:
                return trace, number
    raise AssertionError("no request was hedged")


async def test_a_late_answer_belongs_to_the_hop_that_was_given_up(
    stack: AsyncExitStack, recorder: Recorder
) -> None:
    broker = MemoryBroker()
    above = gateway(broker, NumbersBackend(SURE), recorder=recorder)
    below = edge(broker, recorder=recorder, link=LinkFaults(delay_s=0.6))
    await online(stack, above, below)
    assert below.uplink is not None
    below.uplink.wants_late = lambda _: True

    answer, _ = await ask(below, budget_ms=1000)
    await eventually(lambda: recorder.named("late_answer"))

    hop = recorder.one("hop")
    late = recorder.one("late_answer")
    assert answer.reason is Reason.UPSTREAM_TIMEOUT
    assert said(hop)["reason"] == "upstream_timeout"
    assert hop.is_failed
    assert late.parent_id == hop.span_id
    assert recorder.one("request", "regional").parent_id == hop.span_id


async def test_a_caller_that_goes_away_leaves_spans_that_say_so(
    stack: AsyncExitStack, recorder: Recorder
) -> None:
    broker = MemoryBroker()
    release = NumbersBackend(SURE, delay_s=0.2)
    above = gateway(broker, release, recorder=recorder)
    below = edge(broker, recorder=recorder)
    await online(stack, above, below)

    asking = asyncio.create_task(ask(below))
    await eventually(lambda: release.num_runs)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await eventually(lambda: len(recorder.spans) == 5)

    assert {said(one)["outcome"] for one in recorder.spans} == {"cancelled", "done"}


async def test_what_is_sent_from_the_outbox_goes_on_with_the_trace_of_its_request(
    stack: AsyncExitStack, recorder: Recorder, tmp_path: Path
) -> None:
    broker = MemoryBroker()
    below = await stack.enter_async_context(storing_edge(broker, tmp_path, recorder=recorder))

    await ask(below, traceparent=CALLER)
    await until(below.waiting, bool)
    first = recorder.one("request", "edge")
    # A gateway without a cloud puts the escalation off: it is sent more than once.
    middle = storing_gateway(broker, tmp_path, recorder=recorder)
    await stack.enter_async_context(middle)
    await eventually(lambda: len(recorder.named("delivery")) >= 2)
    await stack.enter_async_context(storing_cloud(broker, tmp_path, recorder=recorder))
    await until(below.events, bool)
    await until(below.waiting, lambda items: not items)
    await eventually(
        lambda: any(said(one)["outcome"] == "applied" for one in recorder.named("delivery"))
    )

    deliveries = recorder.named("delivery")
    assert {one.trace_id for one in recorder.spans} == {first.trace_id}
    assert {one.parent_id for one in deliveries} == {first.span_id}
    assert {said(one)["outcome"] for one in deliveries} >= {"deferred", "applied"}
    ids = {one.span_id for one in deliveries}
    assert {one.parent_id for one in recorder.named("request", "regional")} <= ids
    hops = {one.span_id for one in recorder.named("hop", "regional")}
    assert recorder.one("request", "cloud").parent_id in hops


async def test_two_tiers_are_traced_where_the_one_between_is_not(
    stack: AsyncExitStack, recorder: Recorder
) -> None:
    broker = MemoryBroker()
    tiers = (
        cloud(broker, recorder=recorder),
        gateway(broker, NumbersBackend(UNSURE)),
        edge(broker, recorder=recorder),
    )
    await online(stack, *tiers)

    await ask(tiers[2])

    assert recorder.one("request", "cloud").parent_id == recorder.one("hop", "edge").span_id
