"""A gateway takes a version of its own model over the air, as devices do, and brings it back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import numpy as np
import pytest

from edge_agent.agent import Agent
from edge_agent.settings import EdgeSettings
from fakes.brokers import launch
from fakes.waiting import rollout_is
from model_zoo.catalog import bundled_model
from runtime.adapters.paho_bus import BrokerAddress, PahoBus
from runtime.common_settings import (
    BrokerSettings,
    EscalationSettings,
    ModelSettings,
    StateSettings,
)
from runtime.messages import Outcome, Tier
from tierwise.demo import plan, rollout_plan
from tierwise.demo.processes import Children, Roster
from tierwise.demo.rollout_stage import run_tierwise, start
from tierwise.demo.variations import AS_GOOD, write_variation
from tierwise.operator_access import client_in

pytestmark = pytest.mark.timeout(180)
MODEL = "fashion-regional"
READY_S = 60.0
# One gateway: nothing to compare with, so that an operator decides.
PLAN = rollout_plan.ROLLOUT | {"shares": [1.0], "baseline_s": 2.0}


@dataclass
class Region:
    """Cloud and gateway as processes, and a device that is never sure."""

    cloud_state: Path
    gateway_url: str
    agent: Agent
    session: aiohttp.ClientSession
    asked: int = 0
    failed: int = 0
    by_gateway: int = 0

    async def ask(self) -> None:
        """Asks for as long as it is not cancelled."""
        pictures = np.random.default_rng(1).random((8, 1, 28, 28), np.float32)
        while True:
            answer = await self.agent.infer({"image": pictures[self.asked % 8]}, budget_ms=500)
            self.asked += 1
            self.failed += answer.outcome is Outcome.FAILED
            self.by_gateway += any(hop.tier is Tier.REGIONAL for hop in answer.hops)
            await asyncio.sleep(0.02)

    async def serving(self) -> str:
        """Which version the gateway answers with."""
        async with self.session.get(f"{self.gateway_url}/updates") as response:
            version: str = (await response.json())["serving"]["version"]
            return version


async def publish(folder: Path, repository: Path) -> Path:
    """A version of the gateway's model in a new repository; the key that assigns it."""
    keys, model = folder / "keys", folder / "model"
    at = ("--repository", str(repository))
    await run_tierwise("keys", "init", "--folder", str(keys), "--unencrypted", *at)
    await asyncio.to_thread(write_variation, AS_GOOD, model, Tier.REGIONAL)
    await run_tierwise(
        *("models", "publish", str(model), "--model", MODEL, "--version", str(AS_GOOD.version)),
        *("--keys", str(keys), "--without-policy", *at),
    )
    (key,) = keys.glob("rollout-*.pem")
    return key


@asynccontextmanager
async def region(folder: Path) -> AsyncIterator[Region]:
    repository = folder / "repository"
    key = await publish(folder, repository)
    async with AsyncExitStack() as stack:
        running = await asyncio.to_thread(launch, folder / "broker", "auto")
        stack.callback(running.stop)
        address = plan.Address(running.address.host, running.address.port)
        children = Children(folder)
        stack.push_async_callback(children.stop)
        bus = PahoBus(BrokerAddress(address.host, address.port), client_id="test")
        roster = Roster(bus, (plan.REGION, plan.CLOUD_REGION))
        await bus.start()
        stack.push_async_callback(bus.close)
        text = rollout_plan.cloud_settings(folder, address, repository, key)
        await start(children, folder, plan.CLOUD, "cloud_tier", text)
        await roster.wait_for({plan.CLOUD}, children, READY_S)
        cloud_url = roster.http_base(plan.CLOUD)
        text = rollout_plan.gateway_settings(folder, address, cloud_url) + (
            f'\n[model]\nfolder = "{bundled_model(Tier.REGIONAL)}"\n'
            f'[own_updates]\nurl = "{cloud_url}"\n'
            f'root = "{repository / "metadata" / "1.root.json"}"\n{rollout_plan.UPDATES}'
        )
        await start(children, folder, plan.GATEWAY, "regional_gateway", text)
        await roster.wait_for({plan.GATEWAY}, children, READY_S)
        settings = EdgeSettings(
            agent="camera-1",
            region=plan.REGION,
            broker=BrokerSettings(host=address.host, port=address.port),
            state=StateSettings(folder=str(folder / "camera-1")),
            model=ModelSettings(folder=str(bundled_model(Tier.EDGE)), accept_at=1.0),
            escalation=EscalationSettings(audit_rate=0.0),
        )
        agent = await stack.enter_async_context(Agent(settings))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        yield Region(folder / plan.CLOUD, roster.http_base(plan.GATEWAY), agent, session)


async def test_a_gateway_takes_a_version_and_brings_it_back_without_a_failed_request(
    tmp_path: Path,
) -> None:
    async with region(tmp_path) as here, client_in(here.cloud_state) as client:
        asking = asyncio.create_task(here.ask())
        before = await here.serving()
        # So long it is watched before anything changes.
        await asyncio.sleep(PLAN["baseline_s"])
        await client.post(
            "/rollouts",
            {
                "model": MODEL,
                "version": AS_GOOD.version,
                "id": "r",
                "by": "a test",
                "why": "to see it",
                "settings": PLAN,
            },
        )
        confirmed = await rollout_is(client, "r", confirmed=1)
        served = await here.serving()
        await client.post("/rollouts/r/rollback", {"by": "a test", "why": "enough"})
        await rollout_is(client, "r", phase="rolled_back")
        after = await here.serving()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    assert (before, served, after) == ("2", str(AS_GOOD.version), "2")
    assert confirmed["blast_radius"]["num"] == 1
    assert here.by_gateway > 50
    assert here.failed == 0
