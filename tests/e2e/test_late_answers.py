"""Late answers come home: real processes, a broker that is away, and an agent that is killed."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from fakes.programs import Asker, TierProgram
from fakes.waiting import eventually
from runtime import topics
from runtime.adapters.paho_bus import PahoBus
from runtime.ports import Message

pytestmark = pytest.mark.timeout(120)


async def asked(asker: Asker, program: TierProgram, request_id: str) -> dict[str, Any]:
    """The answer to a grey picture under an id of ours."""
    tensor = {"name": "image", "shape": [1, 28, 28], "datatype": "FP32", "data": [0.5] * 784}
    body = {"id": request_id, "inputs": [tensor], "parameters": {"remaining_ms": 1000}}
    url = f"{program.url}/v2/models/fashion/infer"
    async with asker._session.post(url, json=body) as response:
        said: dict[str, Any] = (await response.json())["parameters"]
    return said


async def correction(
    asker: Asker, program: TierProgram, request_id: str, wait_s: float = 0
) -> tuple[int, dict[str, Any]]:
    url = f"{program.url}/v2/corrections/{request_id}"
    async with asker._session.get(url, params={"wait_s": str(wait_s)}) as response:
        return response.status, await response.json()


async def events(asker: Asker, program: TierProgram) -> list[dict[str, Any]]:
    """All events that the agent has for a new listener."""
    found: list[dict[str, Any]] = []
    async with asker._session.get(f"{program.url}/v2/corrections") as response:
        try:
            # For a second one nobody waits long: there is to be none.
            async with asyncio.timeout(20.0) as patience:
                while line := await response.content.readline():
                    if line.startswith(b"data: "):
                        found.append(json.loads(line.removeprefix(b"data: ")))
                        patience.reschedule(asyncio.get_running_loop().time() + 1.0)
        except TimeoutError:
            pass
    return found


def num_published(program: TierProgram) -> int:
    """Corrections of which the agent knows that the broker has them."""
    path = program.state / "outbox.sqlite"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        query = "SELECT count(*) FROM corrections WHERE is_published"
        return int(connection.execute(query).fetchone()[0])


async def test_an_answer_without_a_network_is_corrected_once_though_the_agent_was_killed(
    hierarchy: Any, asker: Asker
) -> None:
    agent = hierarchy.tier("edge", "agent-1", "model.accept_at=1.0")
    await asker.ready(agent)

    answer = await asked(asker, agent, "q1")
    before = await correction(asker, agent, "q1")
    await asyncio.to_thread(agent.kill)
    agent.restart()
    await asker.ready(agent)
    between = await correction(asker, agent, "q1")

    hierarchy.broker()
    observer = PahoBus(hierarchy.address, client_id="observer")
    heard: list[Message] = []
    observer.subscribe(topics.agent_corrections("plant", "agent-1"), heard.append, qos=1)
    await observer.start()
    assert await observer.wait_connected(20)
    cloud = hierarchy.tier("cloud", "cloud-1")
    gateway = hierarchy.tier("gateway", "gateway-1", "model.accept_at=1.0")
    await asker.ready(cloud, gateway)
    found: list[tuple[int, dict[str, Any]]] = []
    async with asyncio.timeout(60):
        while not found or found[-1][0] != 200:
            found.append(await correction(asker, agent, "q1", wait_s=10))
    status, event = found[-1]
    await eventually(lambda: heard, 20)
    # The agent hears its own words as well, a moment sooner or later.
    await eventually(lambda: num_published(agent) == 1, 20)
    first = await events(asker, agent)
    await asyncio.to_thread(agent.kill)
    agent.restart()
    await asker.ready(agent)
    again = await events(asker, agent)
    await observer.close()

    assert (answer["outcome"], answer["reason"]) == ("degraded", "no_upstream")
    assert before == between == (202, {"request_id": "q1", "state": "waiting"})
    assert status == 200
    assert event["was"]["label"] == answer["label"]
    assert event["now"]["tier"] == "cloud"
    assert event["confirmed"] is (event["now"]["label"] == answer["label"])
    assert first == again == [event]
    assert [json.loads(one.payload) for one in heard] == [event]
