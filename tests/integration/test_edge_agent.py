"""The agent in an application: always an answer with provenance, or an error that says why."""

from __future__ import annotations

import asyncio
import math
import sqlite3
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from edge_agent.agent import Agent
from edge_agent.settings import EdgeSettings
from model_zoo.catalog import LABELS, bundled_model, bundled_pictures
from runtime.adapters.artifacts import open_model
from runtime.adapters.engines import load_members
from runtime.adapters.memory_bus import MemoryBroker, MemoryBus
from runtime.common_settings import EscalationSettings, ModelSettings, RequestSettings
from runtime.core.audit import AuditSettings
from runtime.errors import (
    ArtifactError,
    InvalidBudgetError,
    InvalidTensorError,
    MalformedBodyError,
    OverloadedError,
    UnknownModelError,
)
from runtime.messages import Outcome, Reason, Residency, Tier


def picture(index: int = 0) -> npt.NDArray[np.float32]:
    chosen = bundled_pictures("test").pictures[index : index + 1]
    return chosen.astype(np.float32) / np.float32(255)


async def test_an_answer_says_what_it_is_and_how_it_came_about(agent: Agent) -> None:
    answer = await agent.infer({"image": picture()}, budget_ms=5000, residency=Residency.DEVICE)

    assert answer.has_answer
    assert answer.tier is Tier.EDGE
    assert answer.label_name in LABELS
    assert answer.outputs["logits"].argmax() == answer.label
    assert [hop.site for hop in answer.hops] == ["agent-1"]
    assert answer.hops[0].service_us > 0
    assert answer.latency_ms > 0


async def test_the_numbers_are_those_of_the_engine_itself(agent: Agent) -> None:
    (backend,) = load_members(open_model(bundled_model("edge")))

    answer = await agent.infer({"image": picture(3)}, budget_ms=5000, residency=Residency.DEVICE)

    expected = backend.run({"image": picture(3)})["logits"]
    assert np.array_equal(answer.outputs["logits"], expected)


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"picture": np.zeros((1, 28, 28), np.float32)},
        {"image": np.zeros((1, 28, 28), np.float64)},
        {"image": np.zeros((28, 28), np.float32)},
        {"image": np.full((1, 28, 28), np.nan, np.float32)},
    ],
)
async def test_inputs_that_do_not_fit_are_refused(
    agent: Agent, inputs: dict[str, npt.NDArray[np.generic]]
) -> None:
    with pytest.raises(InvalidTensorError):
        await agent.infer(inputs)


@pytest.mark.parametrize("budget_ms", [0, -1, math.nan, math.inf, 10_001, 1e9, 10**400])
async def test_a_budget_that_is_not_usable_is_refused(agent: Agent, budget_ms: float) -> None:
    with pytest.raises(InvalidBudgetError):
        await agent.infer({"image": picture()}, budget_ms=budget_ms)


async def test_an_unknown_model_and_an_endless_id_are_refused(agent: Agent) -> None:
    with pytest.raises(UnknownModelError):
        await agent.infer({"image": picture()}, model="plants")
    with pytest.raises(MalformedBodyError):
        await agent.infer({"image": picture()}, request_id="x" * 1000)


async def test_a_batch_is_answered_as_one(agent: Agent) -> None:
    batch = np.concatenate([picture(0), picture(1)])

    answer = await agent.infer({"image": batch}, budget_ms=5000, residency=Residency.DEVICE)

    assert answer.outputs["logits"].shape == (2, 10)
    assert answer.label is None


async def test_nobody_above_means_degraded_and_never_an_error(
    edge_settings: EdgeSettings,
) -> None:
    doubtful = msgspec.structs.replace(edge_settings, model=ModelSettings(accept_at=1.0))
    bus = MemoryBus(MemoryBroker(), client_id="agent-1")
    async with Agent(doubtful, bus=bus) as agent:
        answer = await agent.infer({"image": picture()}, budget_ms=5000)

    assert (answer.outcome, answer.reason) == (Outcome.DEGRADED, Reason.NO_UPSTREAM)


async def test_without_escalation_the_device_is_its_own_top(edge_settings: EdgeSettings) -> None:
    alone = msgspec.structs.replace(
        edge_settings,
        model=ModelSettings(accept_at=1.0),
        escalation=EscalationSettings(enabled=False),
    )
    async with Agent(alone, bus=MemoryBus(MemoryBroker(), client_id="agent-1")) as agent:
        answer = await agent.infer({"image": picture()}, budget_ms=5000)

    assert (answer.outcome, answer.reason) == (Outcome.ANSWERED, Reason.TOP_TIER)


async def test_more_requests_than_allowed_are_refused_with_a_hint(
    edge_settings: EdgeSettings,
) -> None:
    narrow = msgspec.structs.replace(edge_settings, request=RequestSettings(max_pending=1))
    async with Agent(narrow, bus=MemoryBus(MemoryBroker(), client_id="agent-1")) as agent:
        agent._admission.enter(1)

        with pytest.raises(OverloadedError) as refused:
            await agent.infer({"image": picture()})

    assert refused.value.retry_after_ms > 0


async def test_every_request_is_one_row_of_the_decision_log(
    agent: Agent, edge_settings: EdgeSettings
) -> None:
    answers = [await agent.infer({"image": picture(index)}, budget_ms=5000) for index in range(5)]

    await agent.__aexit__(None, None, None)

    path = Path(edge_settings.state.folder) / "decisions.sqlite"
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT request_id, outcome FROM decisions").fetchall()
    connection.close()
    assert sorted(rows) == sorted((a.request_id, a.outcome.value) for a in answers)


async def test_an_agent_that_was_not_entered_says_so(edge_settings: EdgeSettings) -> None:
    agent = Agent(edge_settings)

    with pytest.raises(RuntimeError, match="async with"):
        await agent.infer({"image": picture()})
    assert not agent.is_connected
    assert not await agent.wait_connected(0.01)


@pytest.mark.parametrize("damage", ["truncated", "another digest", "gone", "no manifest"])
async def test_a_damaged_model_stops_the_start_with_its_name(
    edge_settings: EdgeSettings, tmp_path: Path, damage: str
) -> None:
    source = bundled_model("edge")
    folder = tmp_path / "model"
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    model = next(folder.glob("*.onnx"))
    damages: dict[str, Callable[[], object]] = {
        "truncated": lambda: model.write_bytes(model.read_bytes()[:1000]),
        "another digest": lambda: model.write_bytes(model.read_bytes()[:-1] + b"\0"),
        "gone": model.unlink,
        "no manifest": (folder / "manifest.json").unlink,
    }
    damages[damage]()
    damaged = msgspec.structs.replace(edge_settings, model=ModelSettings(folder=str(folder)))

    with pytest.raises(ArtifactError, match=str(folder)):
        await Agent(damaged, bus=MemoryBus(MemoryBroker(), client_id="a")).__aenter__()


@pytest.mark.parametrize("kind", [">f4", "<f4"])
async def test_the_byte_order_and_layout_of_an_array_do_not_change_its_answer(
    agent: Agent, kind: str
) -> None:
    pictures = np.concatenate([picture(0), picture(1)])
    other = np.asfortranarray(pictures.astype(kind))

    expected, answer = [
        await agent.infer({"image": x}, budget_ms=5000, residency=Residency.DEVICE)
        for x in (pictures, other)
    ]

    assert np.array_equal(answer.outputs["logits"], expected.outputs["logits"])


async def test_requests_in_progress_are_measured(agent: Agent) -> None:
    agent._admission.enter(1)

    await agent.infer({"image": picture()}, residency=Residency.DEVICE)

    assert "tierwise_edge_pending_requests 1.0" in agent.metrics.render()[0].decode()


async def test_requests_side_by_side_are_all_answered(agent: Agent) -> None:
    answers = await asyncio.gather(
        *(agent.infer({"image": picture(index)}, budget_ms=9000) for index in range(20))
    )

    assert all(answer.has_answer for answer in answers)
    assert len({answer.request_id for answer in answers}) == 20


async def test_audits_are_as_the_settings_say_and_none_without_a_way_up(
    edge_settings: EdgeSettings,
) -> None:
    escalation = EscalationSettings(audit_rate=0.5, audit_budget_ms=700, max_audits=3)
    audited = msgspec.structs.replace(edge_settings, escalation=escalation)
    alone = msgspec.structs.replace(edge_settings, escalation=EscalationSettings(enabled=False))

    async with Agent(audited, bus=MemoryBus(MemoryBroker(), client_id="a")) as agent:
        auditor = agent.flow._ledger._auditor
        await agent.infer({"image": picture()}, budget_ms=5000)
    async with Agent(alone, bus=MemoryBus(MemoryBroker(), client_id="a")) as agent:
        without = agent.flow._ledger._auditor

    assert auditor is not None
    assert auditor._settings == AuditSettings(rate=0.5, budget_ms=700, max_in_progress=3)
    assert without is None
    folder = Path(edge_settings.state.folder)
    with sqlite3.connect(folder / "decisions.sqlite") as connection:
        rows = connection.execute("SELECT audit_chance, budget_ms, seen FROM decisions").fetchall()
    connection.close()
    # Nobody is above, so nothing could be audited.
    assert [(chance, budget_ms) for chance, budget_ms, _ in rows] == [(0.0, 5000.0)]
    assert rows[0][2].startswith("edge=")
