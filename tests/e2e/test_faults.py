"""Real processes over a real broker, and what an operator's bad day does to them."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fakes.programs import Asker
from model_zoo.catalog import bundled_model

pytestmark = pytest.mark.timeout(120)


async def test_a_broker_that_comes_late_is_found_and_nothing_waited_for_it(
    hierarchy: Any, asker: Asker
) -> None:
    agent, gateway, cloud = hierarchy.all_tiers()
    await asker.ready(agent)

    alone = await asker.infer(agent)
    hierarchy.broker()
    await asker.ready(gateway, cloud)
    together = await asker.answered_by(agent, "cloud")

    assert (alone["outcome"], alone["reason"]) == ("degraded", "no_upstream")
    assert alone["latency_ms"] < 1000
    assert [hop["tier"] for hop in together["provenance"]] == ["edge", "regional", "cloud"]


async def test_a_broker_restarted_under_load_loses_no_request(hierarchy: Any, asker: Asker) -> None:
    broker = hierarchy.broker()
    agent, gateway, cloud = hierarchy.all_tiers()
    await asker.ready(agent, gateway, cloud)
    await asker.answered_by(agent, "cloud")

    async def load() -> list[dict[str, Any]]:
        tasks = []
        for _ in range(100):
            tasks.append(asyncio.create_task(asker.infer(agent, budget_ms=500)))
            await asyncio.sleep(0.02)
        return await asyncio.gather(*tasks)

    loading = asyncio.create_task(load())
    await asyncio.to_thread(broker.stop)
    await asyncio.to_thread(hierarchy.broker)
    answers = await loading
    await asker.answered_by(agent, "cloud")

    outcomes = Counter(answer["outcome"] for answer in answers)
    assert sum(outcomes.values()) == 100
    assert set(outcomes) <= {"answered", "degraded"}
    assert max(answer["latency_ms"] for answer in answers) < 1500


@pytest.mark.parametrize("victim", ["gateway", "cloud"])
async def test_a_tier_killed_in_the_middle_of_requests_costs_no_answer(
    hierarchy: Any, asker: Asker, victim: str
) -> None:
    hierarchy.broker()
    agent, gateway, cloud = hierarchy.all_tiers()
    await asker.ready(agent, gateway, cloud)
    await asker.answered_by(agent, "cloud")
    asked = [asyncio.create_task(asker.infer(agent, budget_ms=800)) for _ in range(40)]

    killed = {"gateway": gateway, "cloud": cloud}[victim]
    await asyncio.to_thread(killed.kill)
    during = await asyncio.gather(*asked)
    killed.restart()
    after = await asker.answered_by(agent, "cloud")

    assert {answer["outcome"] for answer in during} <= {"answered", "degraded"}
    assert max(answer["latency_ms"] for answer in during) < 2500
    assert after["outcome"] == "answered"


async def test_tiers_stop_when_asked_and_say_so(hierarchy: Any, asker: Asker) -> None:
    hierarchy.broker()
    programs = hierarchy.all_tiers()
    await asker.ready(*programs)

    codes = [await asyncio.to_thread(program.stop) for program in programs]

    assert codes == [0, 0, 0]
    assert all("Traceback" not in program.log for program in programs)


async def test_a_port_in_use_is_one_line_and_an_exit_code(hierarchy: Any, asker: Asker) -> None:
    first = hierarchy.tier("edge", "agent-1")
    await asker.ready(first)

    second = hierarchy.tier("edge", "agent-2", f"http.port={first.port}")

    assert await asyncio.to_thread(second.wait_ended) == 3
    told = [line for line in second.log.splitlines() if line.startswith("tierwise:")]
    assert len(told) == 1
    assert str(first.port) in told[0]
    assert "Traceback" not in second.log


@pytest.mark.parametrize("kind", ["edge", "gateway", "cloud"])
async def test_a_damaged_model_file_is_one_line_and_an_exit_code(
    hierarchy: Any, tmp_path: Path, kind: str
) -> None:
    tier = {"edge": "edge", "gateway": "regional", "cloud": "cloud"}[kind]
    folder = tmp_path / "model"
    folder.mkdir()
    for file in bundled_model(tier).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    damaged = next(folder.glob("*.onnx"))
    damaged.write_bytes(damaged.read_bytes()[:2000])

    program = hierarchy.tier(kind, "broken-1", f'model.folder="{folder}"')

    assert await asyncio.to_thread(program.wait_ended) == 3
    assert f"tierwise: {damaged}" in program.log
    assert "Traceback" not in program.log


async def test_an_unknown_setting_is_refused_with_a_suggestion(hierarchy: Any) -> None:
    program = hierarchy.tier("edge", "agent-1", "broker.prot=1884")

    assert await asyncio.to_thread(program.wait_ended) == 2
    assert "did you mean 'broker.port'" in program.log
    assert "Traceback" not in program.log
