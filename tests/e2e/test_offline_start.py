"""A device that starts with nobody to connect to, as after a power cut at a lonely site."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fakes.programs import Asker, TierProgram
from fakes.stops import state, stop
from model_zoo.catalog import bundled_policy
from runtime.adapters.control_latch import ControlLatch

pytestmark = pytest.mark.timeout(120)

# What it takes on a machine that is busy; benchmarks/offline_start.py measures it.
WITHIN_S = 15.0


async def first_answer(asker: Asker, program: TierProgram) -> tuple[dict[str, Any], float]:
    """The first answer over HTTP, and the seconds since now that it took."""
    began_s = time.monotonic()
    while True:
        try:
            answer = await asker.infer(program)
        except aiohttp.ClientError:
            assert time.monotonic() - began_s < WITHIN_S, program.log
            await asyncio.sleep(0.01)
        else:
            return answer, time.monotonic() - began_s


def logged(program: TierProgram) -> list[tuple[str, str, str]]:
    """Policy, reason and guarantee of every decision of all lives."""
    with closing(sqlite3.connect(program.state / "decisions.sqlite")) as log:
        return log.execute(
            "SELECT policy, reason, guarantee FROM decisions ORDER BY rowid"
        ).fetchall()


async def test_a_device_without_a_network_starts_with_all_that_it_had(
    hierarchy: Any, asker: Asker, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.toml"
    bundled = bundled_policy()
    assert bundled is not None
    policy.write_bytes(bundled.read_bytes())
    agent = hierarchy.tier("edge", "agent-1", f'escalation.policy="{policy}"')
    before, _ = await first_answer(asker, agent)
    await asyncio.to_thread(agent.kill)

    agent.restart()
    after, took_s = await first_answer(asker, agent)
    await asyncio.to_thread(agent.stop)

    sys.stdout.write(f"first answer after {took_s:.2f} s\n")
    told = "outcome", "reason", "guarantee", "label", "model_version"
    assert [after.get(name) for name in told] == [before.get(name) for name in told]
    assert after["guarantee"] == "certified"
    digests = {digest for digest, _, _ in logged(agent)}
    assert len(digests) == 1
    assert digests != {""}


@pytest.mark.parametrize(
    ("mode", "told"),
    [("stop", ("abstained", "stopped", "none")), ("fallback", ("degraded", "fallback", "none"))],
)
async def test_a_device_without_a_network_starts_as_stopped_as_it_was(
    hierarchy: Any, asker: Asker, tmp_path: Path, mode: str, told: tuple[str, ...]
) -> None:
    latch = ControlLatch(tmp_path / "agent-1", "plant")
    latch.write({"plant": state(7, stop("device", "agent-1", mode), region="plant")})

    agent = hierarchy.tier("edge", "agent-1")
    first, took_s = await first_answer(asker, agent)
    await asyncio.to_thread(agent.stop)

    sys.stdout.write(f"first answer after {took_s:.2f} s\n")
    assert (first["outcome"], first["reason"], first["guarantee"]) == told
    assert "by kim@desk since 2026" in first["notice"]
    assert [(reason, promised) for _, reason, promised in logged(agent)] == [told[1:]]


async def test_a_device_that_lost_its_latch_answers_nothing_and_says_so(
    hierarchy: Any, asker: Asker, tmp_path: Path
) -> None:
    state_folder = tmp_path / "agent-1"
    state_folder.mkdir()
    (state_folder / "control.json").write_bytes(b"\0" * 4096)
    agent = hierarchy.tier("edge", "agent-1")

    alone, _ = await first_answer(asker, agent)
    hierarchy.broker()
    heard = await asker.answered_by(agent, "edge")

    assert (alone["outcome"], alone["reason"]) == ("abstained", "stopped")
    assert "cannot be read from disk" in alone["notice"]
    assert "control.damaged" in agent.log
    assert heard["outcome"] == "answered"
