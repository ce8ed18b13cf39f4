"""New models over HTTP: how they stand, and the way back; and what goes up to the cloud."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from edge_agent.agent import Agent
from edge_agent.http_api import InferenceApi
from fakes.models import WEIGHTS
from fakes.updating import Load, Plant, comes_to, plant_in, reports_of
from fakes.waiting import eventually
from runtime import topics
from runtime.adapters.http_server import serving
from runtime.core.rollout_states import Execution
from runtime.messages import Birth, decode_control
from runtime.ports import Message


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    async with plant_in(tmp_path) as plant:
        yield plant


async def call(agent: Agent, method: str, path: str, **more: Any) -> tuple[int, Any]:
    async with (
        serving(InferenceApi(agent).app(), "127.0.0.1", 0) as base,
        aiohttp.ClientSession() as session,
        session.request(method, f"{base}{path}", **more) as response,
    ):
        is_json = response.content_type == "application/json"
        return response.status, await (response.json() if is_json else response.text())


async def test_people_see_what_serves_and_can_go_back(plant: Plant) -> None:
    path = plant.publish(1)
    async with plant.agent() as agent, Load(agent) as load:
        plant.assign(1, path)
        await comes_to(agent, Execution.CONFIRMED)
        status, shown = await call(agent, "GET", "/updates")
        assert (status, shown["serving"]["version"]) == (200, "v1")
        assert shown["assignment"]["state"] == "confirmed"
        assert shown["slot"]["current"] == {"release": plant.release(path).name, "version": 1}
        assert shown["counted"][0]["requests"] > 0

        why = {"why": "cats are called dogs"}
        status, shown = await call(agent, "POST", "/updates/rollback", json=why)
        assert (status, shown["serving"]["version"]) == (200, "factory")
        assert shown["assignment"]["reason"] == "operator: cats are called dogs"
        assert shown["bad"] == [{"release": plant.release(path).name, "fault": "operator"}]
        await load.goes_on()
        assert load.failed == []

        status, _ = await call(agent, "POST", "/updates/rollback", json=why)
        assert status == 409


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"why": ""}', b'{"why": 3}', b"\xff", b'{"why": "a\\n"x}', b"[" * 9999]
)
async def test_nobody_goes_back_without_saying_why(plant: Plant, body: bytes) -> None:
    async with plant.agent() as agent:
        typed = {"Content-Type": "application/json"}
        status, said = await call(agent, "POST", "/updates/rollback", data=body, headers=typed)

    assert status == 400
    assert "why" in str(said)


async def test_no_page_in_a_browser_can_go_back(plant: Plant) -> None:
    async with plant.agent() as agent:
        typed = {"Content-Type": "text/plain"}
        status, said = await call(
            agent, "POST", "/updates/rollback", data=b'{"why": "fun"}', headers=typed
        )

    assert (status, "Content-Type" in str(said)) == (400, True)


async def test_without_updates_there_is_no_such_route(agent: Agent) -> None:
    assert agent.updater is None
    assert (await call(agent, "GET", "/updates"))[0] == 404


async def test_reports_add_up_to_what_every_model_has_done(plant: Plant) -> None:
    path = plant.publish(1)
    async with plant.agent(plant.settings(report_interval_s=0.05)) as agent, Load(agent) as load:
        plant.assign(1, path)
        await comes_to(agent, Execution.CONFIRMED)
        await load.goes_on(50)
        assert agent.updater is not None
        agent.updater.teller.report()
        reports = await reports_of(agent)
        asked = len(load.answers)

    assert [one.number for one in reports] == list(range(1, len(reports) + 1))
    assert len({one.epoch for one in reports}) == 1
    counts = [count for one in reports for count in one.counted]
    answered = [one for one in counts if not one.shadowed and one.requests]
    assert {one.release for one in counts} == {reports[0].serving, plant.release(path).name}
    assert sum(one.requests for one in answered) <= asked + 2
    assert sum(one.shadowed for one in counts) >= 5
    assert sum(one.disagreed + one.invalid + one.errors for one in counts) == 0
    assert all(one.over_s >= 0 for one in counts)


async def test_the_birth_names_what_serves_now(plant: Plant) -> None:
    births: list[Birth] = []

    def heard(message: Message) -> None:
        state = decode_control(message.payload)
        if isinstance(state, Birth):
            births.append(state)

    plant.bus.subscribe(topics.agent_state("r"), heard, qos=1)
    path = plant.publish(1)
    async with plant.agent() as agent, Load(agent):
        plant.assign(1, path)
        await comes_to(agent, Execution.CONFIRMED)
        await eventually(lambda: births and births[-1].models[0].version == "v1")

    assert births[0].models[0].version == "factory"


async def test_only_what_has_changed_is_downloaded_again(plant: Plant) -> None:
    """Files are kept by their digest: the same weights come once."""
    one, two = plant.publish(1, 2 * WEIGHTS), plant.publish(2, 2 * WEIGHTS)
    async with plant.agent() as agent, Load(agent):
        plant.assign(1, one)
        await comes_to(agent, Execution.CONFIRMED)
        plant.assign(2, two)
        await eventually(lambda: agent.flow.model.manifest.version == "v2")

    weights = plant.release(one).files["tiny.onnx"].sha256
    assert plant.gateway.requests.count(f"GET /updates/blobs/{weights}") == 1
