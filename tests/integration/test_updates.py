"""A device takes a new model: every stage, under load, and without one request failing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.updating import (
    Load,
    Plant,
    comes_to,
    counted,
    plant_in,
    reports_of,
    serves,
)
from runtime.core.rollout_states import Execution


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    async with plant_in(tmp_path) as plant:
        yield plant


async def test_a_good_model_is_shadowed_tried_and_kept_under_load(plant: Plant) -> None:
    path = plant.publish(1)
    async with plant.agent() as agent, Load(agent) as load:
        plant.assign(1, path)
        await comes_to(agent, Execution.CONFIRMED)
        await load.goes_on()

        assert load.failed == []
        assert load.versions == {"factory", "v1"}
        assert serves(agent) == "v1"
        assert counted(agent, "tierwise_edge_update_exchanges_total") == 1
        reports = await reports_of(agent)

    states = [one.state for one in reports if one.state]
    assert [one for n, one in enumerate(states) if one not in states[:n]] == [
        "offered",
        "downloading",
        "verified",
        "shadow",
        "trial",
        "confirmed",
    ]
    assert reports[-1].serving == plant.release(path).name
