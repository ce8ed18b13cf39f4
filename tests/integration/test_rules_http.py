"""Context over HTTP and in process: what callers may say, and that rules see it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import numpy as np
import pytest
import tritonclient.http as triton

from edge_agent.agent import Agent
from edge_agent.settings import EdgeSettings
from fakes.rules import rule, said, seen
from model_zoo.catalog import bundled_policy
from runtime.adapters.memory_bus import MemoryBroker, MemoryBus
from runtime.adapters.policy_file import read_policy
from runtime.common_settings import EscalationSettings
from runtime.errors import MalformedBodyError, PolicyError
from runtime.messages import Reason, Tensors
from runtime.policy import encode_policy
from runtime.policy_rules import Rule
from tierwise import infer_command
from tierwise.cli.parser import build_parser

PICTURE: Tensors = {"image": np.full((1, 28, 28), 0.5, np.float32)}
RULES = (
    rule(said("line", "==", 3.0), said("spare", "==", True), name="line-3", answer="Bag"),
    rule(seen("max", "<", 0.1, "image"), name="lens-cap", answer="Coat"),
)


def ruled(folder: Path, settings: EdgeSettings, *rules: Rule) -> Agent:
    """An agent whose policy is the bundled one with rules."""
    bundled = bundled_policy()
    assert bundled is not None
    path = folder / "policy.json"
    followed = msgspec.structs.replace(read_policy(bundled).policy, rules=rules)
    path.write_bytes(encode_policy(followed))
    escalation = EscalationSettings(policy=str(path))
    changed = msgspec.structs.replace(settings, escalation=escalation)
    return Agent(changed, bus=MemoryBus(MemoryBroker(), client_id="a"))


@pytest.fixture
async def agent(tmp_path: Path, edge_settings: EdgeSettings) -> AsyncIterator[Agent]:
    async with ruled(tmp_path, edge_settings, *RULES) as agent:
        yield agent


async def test_in_process_a_context_is_an_argument(agent: Agent) -> None:
    context: dict[str, Any] = {"line": 3, "spare": True}

    by_rule = await agent.infer(PICTURE, context=context)
    by_input = await agent.infer({"image": np.zeros((1, 28, 28), np.float32)})
    other = await agent.infer(PICTURE, context={"line": 4})

    assert (by_rule.reason, by_rule.label_name) == (Reason.RULE, "Bag")
    assert (by_input.reason, by_input.label_name) == (Reason.RULE, "Coat")
    assert other.reason is not Reason.RULE


async def test_the_neutral_client_says_it_in_parameters(agent_url: str) -> None:
    def use() -> Any:
        client = triton.InferenceServerClient(agent_url.removeprefix("http://"))
        tensor = triton.InferInput("image", [1, 28, 28], "FP32")
        tensor.set_data_from_numpy(PICTURE["image"])
        parameters = {"context.line": 3, "context.spare": True}
        try:
            return client.infer("fashion", [tensor], parameters=parameters)
        finally:
            client.close()

    result = await asyncio.to_thread(use)

    said_so = result.get_response()["parameters"]
    assert (said_so["reason"], said_so["label_name"]) == ("rule", "Bag")
    assert json.loads(said_so["provenance"])[0]["rule"] == "line-3"
    assert result.as_numpy("logits").argmax() == said_so["label"]


async def test_the_command_line_says_it_with_an_option(
    agent_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["infer", "--index", "7", "--json", "--url", agent_url]
    words += ["--context", "line=3", "--context", "spare=true", "--context", "shift=night"]

    await asyncio.to_thread(infer_command.run, build_parser().parse_args(words))

    assert json.loads(capsys.readouterr().out)["provenance"][0]["rule"] == "line-3"


@pytest.mark.parametrize(
    ("context", "text"),
    [
        ({f"k{n}": n for n in range(17)}, "at most 16"),
        ({"k" * 65: 1}, "1 to 64"),
        ({"": 1}, "1 to 64"),
        ({"a\n": 1}, "1 to 64"),
        ({"tierwise.priority": 9}, "not the caller's"),
        ({"k": "x" * 129}, "at most 128"),
        ({"k": None}, "is a finite number"),
        ({"k": [1]}, "is a finite number"),
        ({"k": 10**400}, "is a finite number"),
    ],
)
async def test_a_context_is_bounded(
    agent: Agent, agent_url: str, context: dict[str, Any], text: str
) -> None:
    tensor = {"name": "image", "shape": [1, 28, 28], "datatype": "FP32", "data": [0.5] * 784}
    parameters = {f"context.{key}": value for key, value in context.items()}
    async with aiohttp.ClientSession() as http:
        response = await http.post(
            f"{agent_url}/v2/models/fashion/infer",
            data=json.dumps({"inputs": [tensor], "parameters": parameters}),
        )
        refused = await response.json()

    assert response.status == 400
    assert text in refused["error"]
    with pytest.raises(MalformedBodyError, match=text):
        await agent.infer(PICTURE, context=context)


async def test_a_context_that_is_not_finite_is_refused_in_process(agent: Agent) -> None:
    with pytest.raises(MalformedBodyError, match="finite number"):
        await agent.infer(PICTURE, context={"k": float("nan")})


async def test_rules_about_another_models_inputs_are_refused_at_the_start(
    tmp_path: Path, edge_settings: EdgeSettings
) -> None:
    with pytest.raises(PolicyError, match="the rule r looks at the input 'sound'"):
        async with ruled(tmp_path, edge_settings, rule(seen("max", "<", 0.1, "sound"))):
            pass
