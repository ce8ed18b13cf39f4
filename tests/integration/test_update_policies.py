"""Thresholds and policies travel with a model, and tiers of different ones go on together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.agent import Agent
from fakes.gears import CHAIN, LOWER, gearbox, policy
from fakes.tiers import INPUTS, LABELS, OUTPUTS, SURE, FakeTier, NumbersBackend
from fakes.updating import Load, Plant, comes_to, plant_in
from fakes.waiting import eventually
from runtime.core.gearbox import DIGEST_CHARACTERS
from runtime.core.rollout_states import Execution
from runtime.messages import Answer, Guarantee, Outcome, Tensors, Tier
from runtime.policy import Policy, digest_of, encode_policy

# As the fake tiers have it, and never sure.
ANIMALS: dict[str, Any] = {"inputs": INPUTS, "outputs": OUTPUTS, "labels": LABELS}
UNSURE = np.array([[0.3, 0.2, 0.1], [0.0, 0.0, 0.0]], np.float32)
SHORT = policy(*LOWER.gears, name="short")


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    async with plant_in(tmp_path) as plant:
        yield plant


def digest(followed: Policy) -> str:
    return digest_of(encode_policy(followed))[:DIGEST_CHARACTERS]


def animal() -> Tensors:
    return {"x": np.ones((1, 2), np.float32)}


async def ask(agent: Agent) -> Answer:
    return await agent.infer(animal(), budget_ms=5000)


async def test_a_threshold_comes_with_the_model(plant: Plant) -> None:
    path = plant.publish(1, accept_at=0.123)
    async with plant.agent() as agent, Load(agent):
        assert agent.flow.policy.accept_at == 0.8
        plant.assign(1, path)
        await comes_to(agent, Execution.CONFIRMED)
        assert agent.flow.policy.accept_at == 0.123
    async with plant.agent() as agent:
        assert agent.flow.policy.accept_at == 0.123
        assert agent.flow.model.manifest.version == "v1"


@pytest.mark.parametrize(
    ("written", "follows"),
    [
        (encode_policy(CHAIN), CHAIN),
        # For another model, or none at all: the threshold decides.
        (encode_policy(policy(*CHAIN.gears, models={"edge": "0" * 64})), None),
        (b"{}", None),
    ],
)
async def test_a_policy_that_comes_with_a_model_is_followed_if_it_names_it(
    plant: Plant, written: bytes, follows: Policy | None
) -> None:
    plant.model(plant.factory, UNSURE, "factory", **ANIMALS)
    path = plant.publish(1, UNSURE, policy=written, **ANIMALS)
    async with plant.agent() as agent, Load(agent, animal):
        plant.assign(1, path)
        await comes_to(agent, Execution.CONFIRMED)

        assert agent.flow.gearbox.policy == follows


@pytest.mark.parametrize("below", [None, CHAIN])
@pytest.mark.parametrize("above", [None, CHAIN, SHORT])
async def test_old_and_new_tiers_answer_together_and_promise_nothing_that_was_not_fitted(
    plant: Plant, below: Policy | None, above: Policy | None
) -> None:
    """The device has a new model, the gateway the same policy, an older or newer one, or none."""
    plant.model(plant.factory, UNSURE, "factory", **ANIMALS)
    written = encode_policy(below) if below else b""
    path = plant.publish(1, UNSURE, policy=written, **ANIMALS)
    gateway = FakeTier(
        plant.broker,
        Tier.REGIONAL,
        NumbersBackend(SURE),
        gearbox=gearbox(Tier.REGIONAL, above) if above else None,
    )
    async with gateway, plant.agent() as agent, Load(agent, animal) as load:
        await eventually(lambda: load.answers and load.answers[-1].tier is Tier.REGIONAL)
        plant.assign(1, path)
        await comes_to(agent, Execution.CONFIRMED)
        answer = await ask(agent)

        assert load.failed == []
        assert agent.flow.gearbox.digest == (digest(below) if below else "")

    assert (answer.outcome, answer.tier) == (Outcome.ANSWERED, Tier.REGIONAL)
    is_same = below is not None and below is above
    assert (answer.guarantee is not Guarantee.NONE) == is_same
    is_unknown = below is not None and not is_same
    assert bool(gateway.counted("tierwise_regional_unknown_gears_total")) == is_unknown
