"""What the rollout demo starts is a hierarchy whose devices really take a model over the air."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import psutil
import pytest

from fakes.brokers import launch
from fakes.waiting import rollout_is
from tierwise.demo import plan, rollout_plan
from tierwise.demo.rollout import Load
from tierwise.demo.rollout_stage import rollout_stage
from tierwise.demo.variations import AS_GOOD
from tierwise.operator_access import client_in

pytestmark = pytest.mark.timeout(180)
# Too few devices to compare: the gate asks, and an operator goes on.
PLAN = rollout_plan.ROLLOUT | {"shares": [1.0], "baseline_s": 3.0}


async def test_devices_take_a_version_over_the_air_and_bring_it_back_without_a_failed_request(
    tmp_path: Path,
) -> None:
    launch(tmp_path / "probe", "auto").stop()
    said: list[str] = []
    async with rollout_stage(
        tmp_path, plan.agent_names(3), prefer="auto", budget_ms=500.0, note=said.append
    ) as stage:
        load = Load(stage, 500.0, 40.0)
        asking = asyncio.create_task(load.run())
        await asyncio.sleep(PLAN["baseline_s"])
        async with client_in(stage.cloud_state) as client, aiohttp.ClientSession() as session:
            before = [await _serving(session, url) for url in stage.agent_urls]
            await client.post(
                "/rollouts",
                {
                    "model": rollout_plan.MODEL,
                    "version": AS_GOOD.version,
                    "id": "r",
                    "by": "a test",
                    "why": "to see it",
                    "settings": PLAN,
                },
            )
            confirmed = await rollout_is(client, "r", confirmed=3)
            served = [await _serving(session, url) for url in stage.agent_urls]
            await client.post("/rollouts/r/rollback", {"by": "a test", "why": "enough"})
            back = await rollout_is(client, "r", phase="rolled_back")
            returned = [await _serving(session, url) for url in stage.agent_urls]
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    assert {version for _, version in served} == {str(AS_GOOD.version)}
    assert len(set(served)) == 1
    assert returned == before != served
    assert confirmed["blast_radius"]["num"] == back["blast_radius"]["num"] == 3
    assert load.requests > 100
    assert load.failed == 0
    assert said[-1].startswith("starting")
    assert not [
        one.pid
        for one in psutil.process_iter(["cmdline"])
        if any(str(tmp_path) in part for part in one.info["cmdline"] or ())
    ]


async def _serving(session: aiohttp.ClientSession, url: str) -> tuple[str, str]:
    """What answers on a device: the digest of its manifest, and its version."""
    async with session.get(f"{url}/updates") as response:
        said = (await response.json())["serving"]
    return said["release"], said["version"]
