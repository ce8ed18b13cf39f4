"""A request of a device whose log the cloud does not have is found there, with its whole story."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser

from fakes.browser import access, screen
from fakes.programs import UNSURE, Asker, TierProgram
from fakes.waiting import until
from tierwise.cli import main
from tierwise.cloud_client import CloudClient
from tierwise.operator_access import access_in

pytestmark = pytest.mark.timeout(120)
SOON = "state.rollup_interval_s=0.3"
Tiers = tuple[TierProgram, TierProgram, TierProgram]


@pytest.fixture
async def tiers(hierarchy: Any, asker: Asker) -> Tiers:
    """An agent and a gateway that are never sure, and a cloud that reads its own log alone."""
    hierarchy.broker()
    cloud = hierarchy.tier("cloud", "cloud-1", SOON)
    gateway = hierarchy.tier("gateway", "gateway-1", UNSURE, SOON)
    agent = hierarchy.tier("edge", "agent-1", UNSURE, SOON)
    await asker.ready(cloud, gateway, agent)
    return agent, gateway, cloud


async def ask(asker: Asker, agent: TierProgram, request_id: str, **parameters: Any) -> Any:
    """The answer to a request with an id of its caller's."""
    tensor = {"name": "image", "shape": [1, 28, 28], "datatype": "FP32", "data": [0.5] * 784}
    body = {
        "id": request_id,
        "inputs": [tensor],
        "parameters": {"remaining_ms": 2000, **parameters},
    }
    url = f"{agent.url}/v2/models/fashion/infer"
    async with asker._session.post(url, json=body) as response:
        return (await response.json())["parameters"]


async def listed(client: CloudClient, request_id: str) -> list[dict[str, Any]]:
    """The lines about a request."""
    found = await client.get("/api/v1/requests", limit=100)
    return [one for one in found["requests"] if one["request_id"] == request_id]


async def test_a_climbed_request_of_a_device_is_found_and_told_by_the_cloud(
    tiers: Tiers, asker: Asker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agent, _, cloud = tiers
    await asker.answered_by(agent, "cloud")
    answer = await ask(asker, agent, "from-afar")
    kept = await ask(asker, agent, "stays-here", residency="device")
    opened = access_in(cloud.operator_file)
    async with CloudClient(opened.url, opened.token) as client:

        async def seen() -> list[dict[str, Any]]:
            return await listed(client, "from-afar")

        (line,) = await until(
            seen, lambda lines: [one["tier"] for one in lines] == ["edge"], timeout_s=40
        )

        async def told() -> dict[str, Any]:
            return await client.get("/api/v1/requests/from-afar")

        story = await until(told, lambda said: len(said["hops"]) == 3, timeout_s=40)
        counted = await client.get("/api/v1/requests/facets")
        page = await client.get("/api/v1/requests", site="agent-1", action="escalate")
        secret = await listed(client, "stays-here")
    words = ["explain", "from-afar", "--state", str(tmp_path / "nothing"), "--json"]
    code = await asyncio.to_thread(main, [*words, "--operator", cloud.operator_file])
    explained = json.loads(capsys.readouterr().out)

    assert (answer["tier"], kept["tier"]) == ("cloud", "edge")
    assert (line["site"], line["region"], line["answered_by"]) == ("agent-1", "plant", "cloud")
    assert [(one["tier"], one["site"]) for one in story["hops"]] == [
        ("edge", "agent-1"), ("regional", "gateway-1"), ("cloud", "cloud-1"),
    ]  # fmt: skip
    assert story["label"] == answer["label"]
    assert "notes" not in story or not any("not among" in one for one in story["notes"])
    assert counted["from"] == "telemetry"
    assert {one["value"] for one in counted["facets"]["tier"]} >= {"edge", "regional"}
    assert "from-afar" in {one["request_id"] for one in page["requests"]}
    assert secret == []
    assert code == 0
    assert [one["site"] for one in explained["tiers"]] == ["agent-1", "gateway-1", "cloud-1"]


async def test_it_is_opened_from_the_page(browser: Browser, tiers: Tiers, asker: Asker) -> None:
    agent, _, cloud = tiers
    await asker.answered_by(agent, "cloud")
    await ask(asker, agent, "seen-afar")
    opened = access_in(cloud.operator_file)
    async with CloudClient(opened.url, opened.token) as client:

        async def seen() -> list[dict[str, Any]]:
            return await listed(client, "seen-afar")

        await until(seen, lambda lines: [one["tier"] for one in lines] == ["edge"], timeout_s=40)
    async with screen(browser, *access(cloud)) as shown:
        await shown.go("/escalations?site=agent-1")
        await shown.says("A sample of ")
        await shown.says("every decision counts here")
        await shown.page.locator("table a[href*='id=seen-afar']").click()
        await shown.page.wait_for_selector(".hops")
        hops = await shown.page.locator(".hop h3").all_inner_texts()
        text = await shown.text()

        assert [one.split()[0] for one in hops] == ["edge", "regional", "cloud"]
        assert "agent-1, plant" in text
        assert "In the end: " in text
        assert await shown.overhang() == 0
        assert shown.problems == []
