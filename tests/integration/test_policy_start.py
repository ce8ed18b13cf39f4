"""A tier starts with a policy for its model, or does not start."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import model_zoo.catalog
from edge_agent.agent import Agent
from edge_agent.settings import EdgeSettings
from fakes.gears import choice, gear, policy
from model_zoo.catalog import LABELS, bundled_model
from runtime.adapters.artifacts import read_manifest
from runtime.adapters.memory_bus import MemoryBroker, MemoryBus
from runtime.common_settings import EscalationSettings, ModelSettings, StateSettings
from runtime.errors import PolicyError
from runtime.manifest import model_digest
from runtime.messages import Answer, Guarantee, Reason, Tensors
from runtime.policy import DecisionTable, encode_policy

PICTURE: Tensors = {"image": np.full((1, 28, 28), 0.5, np.float32)}


def written(folder: Path, *, digest: str = "") -> Path:
    """A policy that lets every answer of the bundled models stand."""
    stands = choice(2, to=("regional",), gain=-1.0)
    table = DecisionTable(("edge",), (0,) * len(LABELS), ((0.8,),) * 2, (stands,))
    digest = digest or model_digest(read_manifest(bundled_model("edge")))
    followed = policy(gear(table), labels=LABELS, models={"edge": digest})
    path = folder / "policy.json"
    path.write_bytes(encode_policy(followed))
    return path


def agent_of(
    folder: Path, *, policy: str = "", accept_at: float | None = None, model: str = ""
) -> Agent:
    settings = EdgeSettings(
        agent="a",
        region="r",
        state=StateSettings(folder=str(folder / "state")),
        model=ModelSettings(accept_at=accept_at, folder=model),
        escalation=EscalationSettings(policy=policy),
    )
    return Agent(settings, bus=MemoryBus(MemoryBroker(), client_id="a"))


async def grey(agent: Agent) -> Answer:
    async with agent:
        return await agent.infer(PICTURE, budget_ms=5000)


async def test_an_agent_follows_the_policy_of_its_settings(tmp_path: Path) -> None:
    answer = await grey(agent_of(tmp_path, policy=str(written(tmp_path))))

    assert (answer.reason, answer.guarantee) == (Reason.CONFIDENT, Guarantee.CERTIFIED)


async def test_a_policy_for_another_model_refuses_the_start(tmp_path: Path) -> None:
    path = written(tmp_path, digest="f" * 64)

    with pytest.raises(PolicyError, match="fit again"):
        await grey(agent_of(tmp_path, policy=str(path)))


async def test_a_policy_that_is_not_there_refuses_the_start(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"nowhere\.json cannot be read"):
        await grey(agent_of(tmp_path, policy=str(tmp_path / "nowhere.json")))


async def test_the_bundled_policy_is_for_the_bundled_model_without_a_threshold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path)
    monkeypatch.setattr(model_zoo.catalog, "bundled_policy", lambda: path)

    bundled = await grey(agent_of(tmp_path))
    by_threshold = await grey(agent_of(tmp_path, accept_at=0.99))
    of_a_folder = await grey(agent_of(tmp_path, model=str(bundled_model("edge"))))

    assert bundled.guarantee is Guarantee.CERTIFIED
    assert by_threshold.guarantee is of_a_folder.guarantee is Guarantee.NONE


async def test_without_a_bundled_policy_the_threshold_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_zoo.catalog, "bundled_policy", lambda: None)

    answer = await grey(agent_of(tmp_path))

    assert answer.guarantee is Guarantee.NONE
