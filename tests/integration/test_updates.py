"""A device takes a new model: every stage, under load, and without one request failing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from fakes.models import WEIGHTS
from fakes.updating import (
    Load,
    Plant,
    comes_to,
    counted,
    example,
    plant_in,
    reports_of,
    serves,
)
from runtime.assignments import Do
from runtime.core.rollout_states import Execution
from runtime.messages import Outcome


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
        "trial",
        "confirmed",
    ]
    assert reports[-1].serving == plant.release(path).name


async def test_a_model_that_was_assigned_to_shadow_goes_on_trial_at_once(plant: Plant) -> None:
    path = plant.publish(1)
    # By itself this device would keep it in shadow for ever.
    async with plant.agent(plant.settings(min_shadowed=1_000_000)) as agent, Load(agent) as load:
        plant.assign(1, path, do=Do.SHADOW)
        await comes_to(agent, Execution.SHADOW)
        await load.goes_on()
        plant.assign(2, path)
        await comes_to(agent, Execution.TRIAL)
        await load.goes_on()

        assert load.failed == []
        assert serves(agent) == "v1"


async def test_what_a_model_on_trial_cannot_answer_the_one_before_it_does(plant: Plant) -> None:
    path = plant.publish(1, np.full_like(WEIGHTS, np.nan), golden=False)
    settings = plant.settings(min_shadowed=0, max_invalid=1000, soak_s=50.0)
    async with plant.agent(settings) as agent:
        plant.assign(1, path)
        await comes_to(agent, Execution.TRIAL)
        answers = [await agent.infer(example(), budget_ms=5000) for _ in range(20)]

    assert {one.outcome for one in answers} == {Outcome.ANSWERED}
    assert {one.model_version for one in answers} == {"factory"}
    assert {one.hops[0].model_version for one in answers} == {"factory"}
