"""What HTTP says of a stop: answers, readiness and ``/v2/control``, with the bundled models."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import numpy as np
import pytest

from edge_agent.agent import Agent
from edge_agent.http_api import InferenceApi
from edge_agent.settings import EdgeSettings
from fakes.stops import state, stated, stop
from fakes.waiting import eventually
from runtime.adapters.http_server import serving
from runtime.adapters.memory_bus import MemoryBroker, MemoryBus
from runtime.messages import Outcome

BODY = {
    "inputs": [{"name": "image", "shape": [1, 28, 28], "datatype": "FP32", "data": [0.5] * 784}]
}


@pytest.fixture
async def agent(edge_settings: EdgeSettings, broker: MemoryBroker) -> AsyncIterator[Agent]:
    async with Agent(edge_settings, bus=MemoryBus(broker, client_id="agent-1")) as agent:
        yield agent


async def get(url: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        body = await response.read()
        return response.status, await response.json() if body else None


@pytest.mark.parametrize(
    ("mode", "outcome", "num_outputs"), [("stop", "abstained", 0), ("fallback", "degraded", 1)]
)
async def test_a_stop_is_in_the_answer_in_readiness_and_in_the_control_page(
    agent: Agent, desk: MemoryBus, mode: str, outcome: str, num_outputs: int
) -> None:
    async with serving(InferenceApi(agent).app(), "127.0.0.1", 0) as url:
        ready_before = await get(f"{url}/v2/health/ready")
        _, before = await get(f"{url}/v2/control")
        desk.publish(stated(state(4, stop("model", "fashion", mode, "recall 7"))))
        await eventually(lambda: agent.control()["mode"])
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{url}/v2/models/fashion/infer", json=BODY) as response,
        ):
            status, said = response.status, await response.json()
        ready = await get(f"{url}/v2/health/ready")
        await eventually(lambda: agent.control()["is_latched"])
        _, after = await get(f"{url}/v2/control")

    assert ready_before == (200, None)
    assert (before["mode"], before["states"], before["is_known"]) == (None, [], True)
    assert status == 200
    assert said["parameters"]["outcome"] == outcome
    assert said["parameters"]["notice"].endswith("recall 7")
    assert len(said["outputs"]) == num_outputs
    assert ready[0] == 200
    assert (ready[1]["mode"], ready[1]["is_known"]) == (mode, True)
    assert (after["mode"], after["states"][0]["sequence"]) == (mode, 4)
    assert after["states"][0]["stops"][0]["by"] == "kim@desk"


async def test_an_application_hears_of_a_stop_as_of_any_answer(
    agent: Agent, desk: MemoryBus
) -> None:
    desk.publish(stated(state(4, stop())))
    await eventually(lambda: agent.control()["mode"])

    answer = await agent.infer({"image": np.zeros((1, 28, 28), np.float32)}, explain=True)

    assert answer.outcome is Outcome.ABSTAINED
    assert not answer.has_answer
    assert "What an operator has said: stop of all by kim@desk" in answer.explanation


def test_an_agent_that_has_not_started_knows_of_no_stop(edge_settings: EdgeSettings) -> None:
    assert Agent(edge_settings).control() == {}
