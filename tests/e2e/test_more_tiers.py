"""A gateway of gateways, by configuration alone."""

from __future__ import annotations

from typing import Any

import pytest

from fakes.programs import UNSURE, Asker

pytestmark = pytest.mark.timeout(120)


async def test_a_request_climbs_through_a_gateway_of_gateways(hierarchy: Any, asker: Asker) -> None:
    hierarchy.broker()
    cloud = hierarchy.tier("cloud", "cloud-1")
    country = hierarchy.tier("gateway", "country-1", UNSURE, "region=country", "tier=regional-2")
    plant = hierarchy.tier(
        "gateway", "gateway-1", UNSURE, "upstream.tier=regional-2", "upstream.region=country"
    )
    agent = hierarchy.tier("edge", "agent-1", UNSURE)
    await asker.ready(agent, plant, country, cloud)

    answer = await asker.answered_by(agent, "cloud")
    kept = await asker.infer(agent, residency="region")

    assert [(hop["tier"], hop["site"]) for hop in answer["provenance"]] == [
        ("edge", "agent-1"),
        ("regional", "gateway-1"),
        ("regional-2", "country-1"),
        ("cloud", "cloud-1"),
    ]
    assert [hop["tier"] for hop in kept["provenance"]] == ["edge", "regional"]
