"""People look at an answer of a device, and the device hears of it: real processes."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fakes.programs import Asker
from runtime.adapters.feedback_reader import feedback_in
from tierwise.cloud_client import CloudClient
from tierwise.operator_access import access_in

pytestmark = pytest.mark.timeout(120)
REVIEWS = "/api/v1/reviews"


async def waits(client: CloudClient) -> dict[str, Any]:
    """The first item that has arrived."""
    async with asyncio.timeout(40):
        while True:
            found: dict[str, Any] = await client.post(f"{REVIEWS}/next", {"who": "ann"})
            if found["item"] is not None:
                item: dict[str, Any] = found["item"]
                return item
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("num_gateways", [1, 2])
async def test_what_a_person_says_comes_home_over_all_gateways(
    hierarchy: Any, asker: Asker, num_gateways: int
) -> None:
    hierarchy.broker()
    # Nothing but the word of the gateway tells the cloud that it is there.
    cloud = hierarchy.tier("cloud", "cloud-1")
    quiet = "state.rollup_interval_s=600"
    flags: tuple[str, ...] = (quiet,)
    between = []
    if num_gateways > 1:
        of_country = ("region=country", "tier=regional-2")
        between.append(hierarchy.tier("gateway", "country-1", quiet, *of_country))
        flags = (quiet, "upstream.tier=regional-2", "upstream.region=country")
    gateway = hierarchy.tier("gateway", "gateway-1", *flags)
    agent = hierarchy.tier("edge", "agent-1", "review.random_share=1.0")
    await asker.ready(cloud, *between, gateway, agent)
    tensor = {"name": "image", "shape": [1, 28, 28], "datatype": "FP32", "data": [0.5] * 784}
    body = {"id": "q1", "inputs": [tensor], "parameters": {"remaining_ms": 1000}}
    async with asker._session.post(f"{agent.url}/v2/models/fashion/infer", json=body) as response:
        answer = (await response.json())["parameters"]
    access = access_in(Path(cloud.operator_file))
    async with CloudClient(access.url, access.token) as client:
        item = await waits(client)
        label = (answer["label"] + 1) % 10
        said = await client.post(f"{REVIEWS}/{item['item']}/label", {"who": "ann", "label": label})
        # Killed before it is told: what is settled is in the database.
        await asyncio.to_thread(cloud.kill)
    cloud.restart()
    await asker.ready(cloud)
    status, event = 0, {}
    async with asyncio.timeout(60):
        while status != 200:
            url = f"{agent.url}/v2/corrections/q1"
            async with asker._session.get(url) as response:
                status, event = response.status, await response.json()
            await asyncio.sleep(0.1)

    assert (item["request_id"], item["source"], item["site"]) == ("q1", "random", "agent-1")
    assert item["inputs"][0]["kind"] == "picture"
    assert said["outcome"] == "counted"
    assert (event["now"]["label"], event["now"]["reason"]) == (label, "review")
    assert event["was"]["label"] == item.get("label", answer["label"])
    assert event["confirmed"] is False
    feedback, num_unreadable = feedback_in(cloud.state)
    assert (feedback["q1"].label, num_unreadable) == (label, 0)
    with closing(sqlite3.connect(cloud.state / "telemetry.sqlite")) as store:
        rows = store.execute("SELECT label, is_correct FROM feedback").fetchall()
    assert rows == [(str(label), 0)]
