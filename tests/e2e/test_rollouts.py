"""A cloud tier as a program that rolls out, is killed in the middle, and goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from fakes.programs import Asker, TierProgram
from fakes.rollout_cloud import Devices, rolling_cloud
from fakes.rollout_fleet import digest
from fakes.waiting import eventually, until
from runtime.assignments import Do
from tierwise.cli import main

pytestmark = pytest.mark.timeout(120)
PLAN = """
shares = [0.2, 1.0]
baseline_s = 4.0
fill_s = 60.0
[gate]
looks_s = [2.0, 4.0, 8.0]
"""


@pytest.fixture
async def cloud(
    hierarchy: Any, asker: Asker, tmp_path: Path
) -> AsyncIterator[tuple[TierProgram, Devices]]:
    async with rolling_cloud(hierarchy, asker, tmp_path) as parts:
        yield parts


async def said(
    capsys: pytest.CaptureFixture[str], program: TierProgram, *words: str, code: int = 0
) -> Any:
    capsys.readouterr()
    argv = ["rollout", *words, "--operator", program.operator_file, "--json"]
    assert await asyncio.to_thread(main, argv) == code, capsys.readouterr()
    return json.loads(capsys.readouterr().out)


async def test_a_rollout_outlives_the_tier_that_drives_it(
    cloud: tuple[TierProgram, Devices],
    asker: Asker,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    program, devices = cloud
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN)
    # A baseline to compare with.
    await eventually(lambda: devices.all[0].number >= 8, 60)
    words = ("--model", "m", "--no-shadow", "--plan", str(plan), "--why", "better", "--id", "r1")
    await said(capsys, program, "start", *words)
    await eventually(lambda: sum(bool(one.obeyed) for one in devices.all) == 4, 60)

    program.kill()
    program.restart()
    await asker.ready(program)
    status = await until(
        lambda: said(capsys, program, "status", "r1"),
        lambda status: status["is_ended"] or status["asked"],
        60,
    )

    # Judged by two looks of seconds, the second wave may ask; nobody has gone back.
    if not status["is_ended"]:
        status = await said(capsys, program, "promote", "r1", "--why", "seen")
    await eventually(lambda: all(one.serving == digest(2) for one in devices.all), 60)
    assert {len(one.obeyed) for one in devices.all} == {1}
    assert status["holder"].startswith("cloud-1-")
    assert status["blast_radius"]["num"] in (4, 16)
    assert program.stop() == 0


async def test_an_experiment_by_key_is_begun_and_withdrawn_over_the_broker(
    cloud: tuple[TierProgram, Devices], capsys: pytest.CaptureFixture[str]
) -> None:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    program, devices = cloud
    await eventually(lambda: devices.all[0].number >= 2, 60)

    async def experiment(*words: str) -> Any:
        capsys.readouterr()
        argv = ["experiment", *words, "--operator", program.operator_file, "--json"]
        assert await asyncio.to_thread(main, argv) == 0, capsys.readouterr()
        return json.loads(capsys.readouterr().out)

    await experiment(
        "start", "--model", "m", "--control", "1:3", "--arm", "2", "--split-by", "user",
        "--observe", "2s", "--min-devices", "10", "--id", "e1", "--why", "better?",
    )  # fmt: skip
    await eventually(lambda: all(one.state == "split" for one in devices.all), 60)
    assert {one.share for one in devices.all} == {0.25}
    assert {one.serving for one in devices.all} == {digest(1)}

    await experiment("stop", "e1", "--why", "seen enough")

    await eventually(lambda: all(one.obeyed[-1].do is Do.WITHDRAW for one in devices.all), 60)
    assert (await experiment("status", "e1"))["ended"] == "stopped: seen enough"
    assert program.stop() == 0
