"""Traces of three real tiers reach a collector that was away while requests were answered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from fakes.collector import Collector, collecting
from fakes.ports import free_port
from fakes.programs import UNSURE, Asker
from fakes.waiting import eventually

pytestmark = pytest.mark.timeout(120)
# Of one climb: three requests, three inferences, two hops; and members of the ensemble, except one
# that was late and could not change the answer any more.
SPANS_OF_A_CLIMB = 8
NUM_REQUESTS = 5


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def climbed(asker: Asker, url: str, number: int, traceparent: str) -> str:
    """Asks about a grey picture as a caller who traces; the tier that answered."""
    tensor = {"name": "image", "shape": [1, 28, 28], "datatype": "FP32", "data": [0.5] * 784}
    body = {"id": f"q{number}", "inputs": [tensor], "parameters": {"remaining_ms": 3000}}
    async with asker._session.post(
        f"{url}/v2/models/fashion/infer", json=body, headers={"traceparent": traceparent}
    ) as response:
        said: dict[str, Any] = await response.json()
    return str(said["parameters"]["tier"])


async def test_spans_wait_for_the_collector_and_arrive_once_with_their_parents(
    hierarchy: Any, asker: Asker, stack: AsyncExitStack
) -> None:
    hierarchy.broker()
    port = free_port()
    traced = f"tracing.endpoint=http://127.0.0.1:{port}/v1/traces"
    cloud = hierarchy.tier("cloud", "cloud-1", traced)
    gateway = hierarchy.tier("gateway", "gateway-1", UNSURE, traced)
    agent = hierarchy.tier("edge", "agent-1", UNSURE, traced)
    for program in (cloud, gateway, agent):
        await asker.ready(program)
    traces: dict[str, str] = {}
    number = 0
    while len(traces) < NUM_REQUESTS:
        number += 1
        trace_id = f"{number:032x}"
        tier = await climbed(asker, agent.url, number, f"00-{trace_id}-{number:016x}-01")
        if tier == "cloud":
            traces[trace_id] = f"{number:016x}"

    tiers = (cloud, gateway, agent)
    await eventually(lambda: all("spans.not_sent" in tier.log for tier in tiers), 30.0)

    collector = Collector()
    await stack.enter_async_context(collecting(port, collector))

    def of(trace_id: str, *, members: bool = False) -> list[Any]:
        found = [one for one in collector.spans if one.trace_id == trace_id]
        return [one for one in found if (one.name == "member") is members]

    def is_here(trace_id: str) -> bool:
        # Spans of one climb may come in two batches.
        return len(of(trace_id)) >= SPANS_OF_A_CLIMB and len(of(trace_id, members=True)) > 1

    await eventually(lambda: all(map(is_here, traces)), 60.0)
    ids = [one.span_id for one in collector.spans]
    assert len(ids) == len(set(ids))
    for trace_id, parent_id in traces.items():
        spans = of(trace_id)
        assert len(spans) == SPANS_OF_A_CLIMB
        by_name = {(one.name, one.tier): one for one in spans}
        above = parent_id
        for tier in ("edge", "regional", "cloud"):
            request = by_name["request", tier]
            assert request.parent_id == above
            assert by_name["inference", tier].parent_id == request.span_id
            if tier != "cloud":
                hop = by_name["hop", tier]
                assert hop.parent_id == request.span_id
                assert hop.said["outcome"] == "answered"
                above = hop.span_id
        members = of(trace_id, members=True)
        assert 2 <= len(members) <= 3
        assert {one.parent_id for one in members} == {by_name["inference", "cloud"].span_id}
        assert all(one.end_ns >= one.start_ns > 0 for one in spans)
