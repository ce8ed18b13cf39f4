"""A small model answers until the large one is loaded."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import psutil
import pytest
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper

from edge_agent.agent import Agent
from edge_agent.settings import EdgeSettings
from fakes.models import WEIGHTS, linear_model, manifest_of
from fakes.updating import example
from fakes.waiting import eventually
from runtime.adapters.artifacts import write_model
from runtime.adapters.memory_bus import MemoryBroker, MemoryBus
from runtime.common_settings import EscalationSettings, LogSettings, ModelSettings, StateSettings
from runtime.errors import ArtifactError, StartError
from runtime.messages import Outcome
from runtime.updating.settings import UpdateSettings

# So wide that verifying and loading it takes longer than an answer.
WIDE = 4096
MODULE = "runtime.adapters.model_worker"


def large_model() -> bytes:
    """Says what ``linear_model`` says, after a detour through a wide layer that changes nothing."""
    num_in, num_out = WEIGHTS.shape
    detour = np.zeros((num_out, WIDE), np.float32)
    detour[:, :num_out] = np.eye(num_out)
    around, back = np.eye(WIDE, dtype=np.float32), detour.T.copy()
    names = {"weights": WEIGHTS, "detour": detour, "around": around, "back": back}
    chain = ["x", "a", "b", "c", "logits"]
    nodes = [
        helper.make_node("MatMul", [start, name], [end])
        for start, name, end in zip(chain[:-1], names, chain[1:], strict=True)
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", num_in])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", num_out])],
        [numpy_helper.from_array(values, name) for name, values in names.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    contents: bytes = model.SerializeToString()
    return contents


def settings(folder: Path, **model: object) -> EdgeSettings:
    small, large = {"m.onnx": linear_model()}, {"m.onnx": large_model()}
    write_model(folder / "small", manifest_of(small, version="small"), small)
    write_model(folder / "large", manifest_of(large, version="large", accept_at=0.3), large)
    names = ModelSettings(folder=str(folder / "large"), early_folder=str(folder / "small"))
    return EdgeSettings(
        agent="camera-1",
        region="r",
        state=StateSettings(folder=str(folder / "state")),
        log=LogSettings(level="error"),
        model=replace(names, **model),
        escalation=EscalationSettings(audit_rate=0.0),
    )


def agent_of(settings: EdgeSettings) -> Agent:
    return Agent(settings, bus=MemoryBus(MemoryBroker(), client_id="camera-1"))


def model_processes() -> list[int]:
    """Processes of this one in which models run."""
    return [
        one.pid
        for one in psutil.process_iter(["ppid", "cmdline"])
        if one.info["ppid"] == os.getpid() and MODULE in (one.info["cmdline"] or ())
    ]


async def test_the_small_one_answers_at_once_and_the_large_one_takes_over(tmp_path: Path) -> None:
    async with agent_of(settings(tmp_path)) as agent:
        first = await agent.infer(example(), budget_ms=5000)
        await eventually(lambda: agent.flow.model.manifest.version == "large", 20)
        then = await agent.infer(example(), budget_ms=5000)

    assert (first.model_version, then.model_version) == ("small", "large")
    assert first.outcome is not Outcome.FAILED
    assert first.label == then.label


async def test_a_large_one_that_cannot_be_used_leaves_the_small_one(tmp_path: Path) -> None:
    stated = settings(tmp_path)
    (tmp_path / "large" / "m.onnx").write_bytes(b"no model")
    async with agent_of(stated) as agent:
        following = agent._models._following
        assert following is not None
        await eventually(following.done, 20)
        answer = await agent.infer(example(), budget_ms=5000)

    assert answer.model_version == "small"


async def test_without_its_policy_the_large_one_is_not_kept_in_memory(tmp_path: Path) -> None:
    stated = settings(tmp_path, isolation="process")
    policy = tmp_path / "policy.json"
    policy.write_text("{}")
    stated = replace(stated, escalation=replace(stated.escalation, policy=str(policy)))
    async with agent_of(stated) as agent:
        following = agent._models._following
        assert following is not None
        await eventually(following.done, 20)

        assert agent.flow.model.manifest.version == "small"
        assert model_processes() == []


async def test_an_agent_that_ends_meanwhile_ends_and_leaves_nothing(tmp_path: Path) -> None:
    async with agent_of(settings(tmp_path, isolation="process")) as agent:
        assert agent.flow.model.manifest.version == "small"
        await eventually(lambda: model_processes() != [], 20)
        assert agent.flow.model.manifest.version == "small"

    assert model_processes() == []


async def test_models_of_two_tasks_are_refused(tmp_path: Path) -> None:
    stated = settings(tmp_path)
    other = {"m.onnx": linear_model()}
    write_model(tmp_path / "other", manifest_of(other, name="other"), other)
    stated = replace(stated, model=replace(stated.model, early_folder=str(tmp_path / "other")))

    with pytest.raises(ArtifactError, match="has another name than the model"):
        async with agent_of(stated):
            pass


async def test_it_does_not_go_together_with_updates(tmp_path: Path) -> None:
    stated = settings(tmp_path)
    updates = UpdateSettings(url="http://127.0.0.1:1", root=str(tmp_path / "root.json"))

    with pytest.raises(StartError, match="does not go together"):
        async with agent_of(replace(stated, updates=updates)):
            pass
