"""Stops on real processes over a real broker, from the command line to the answer."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import aiohttp
import pytest

from fakes.programs import Asker, TierProgram

pytestmark = pytest.mark.timeout(120)


async def control(hierarchy: Any, *words: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of ``tierwise control``."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tierwise", "control", *words),
        *("--broker", str(hierarchy.address)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return await process.wait(), out.decode(), err.decode()


async def until_reason(asker: Asker, program: TierProgram, reason: str) -> None:
    """Asks until answers have this reason."""
    began_s = time.monotonic()
    while (answer := await asker.infer(program))["reason"] != reason:
        assert time.monotonic() - began_s < 20, answer
        await asyncio.sleep(0.02)


async def get(url: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        text = await response.text()
        return response.status, json.loads(text) if text.startswith("{") else text


async def test_a_kill_in_the_clouds_region_stops_everything_and_a_resume_ends_it(
    hierarchy: Any, asker: Asker
) -> None:
    hierarchy.broker()
    agent, gateway, cloud = hierarchy.all_tiers()
    await asker.ready(agent, gateway, cloud)
    await asker.answered_by(agent, "cloud")

    killing = asyncio.create_task(
        control(
            hierarchy,
            *("kill", "--region", "cloud", "--scope", "all", "--mode", "stop"),
            *("--why", "recall 7", "--by", "kim", "--json"),
        )
    )
    await until_reason(asker, agent, "stopped")
    code, out, _ = await killing
    stopped = await asker.infer(agent)
    ready, said = await get(f"{gateway.url}/v2/health/ready")
    _, shown = await get(f"{agent.url}/v2/control")
    _, metrics = await get(f"{agent.url}/metrics")
    status_code, status, _ = await control(hierarchy, "status", "--region", "cloud")
    resume_code, resumed, _ = await control(
        hierarchy, *("resume", "--region", "cloud", "--scope", "all", "--why", "all is well")
    )
    await asker.answered_by(agent, "cloud")

    assert (code, status_code, resume_code) == (0, 0, 0)
    (region,) = json.loads(out)["regions"]
    assert region["stops"][0]["why"] == "recall 7"
    assert region["missing"] == []
    assert "cloud/cloud-1" in region["online"]
    assert (stopped["outcome"], stopped["error_code"]) == ("abstained", "stopped")
    assert stopped["notice"].startswith("stop of all by kim since ")
    assert (ready, said["mode"]) == (200, "stop")
    assert (shown["mode"], shown["is_latched"]) == ("stop", True)
    assert 'tierwise_edge_stopped_ratio{mode="stop"} 1.0' in metrics
    assert "recall 7" in status
    assert "known to 3 of 3" in status
    assert "cloud: nothing is stopped" in resumed


async def test_a_stopped_device_that_starts_without_a_broker_is_still_stopped(
    hierarchy: Any, asker: Asker
) -> None:
    broker = hierarchy.broker()
    agent = hierarchy.tier("edge", "agent-1")
    await asker.ready(agent)
    await control(
        hierarchy,
        *("kill", "--region", "plant", "--scope", "device", "--target", "agent-1"),
        *("--mode", "fallback", "--why", "its camera is broken"),
    )
    await until_reason(asker, agent, "fallback")

    await asyncio.to_thread(agent.stop)
    await asyncio.to_thread(broker.stop)
    agent.restart()
    await asker.ready(agent)
    alone = await asker.infer(agent)

    assert (alone["outcome"], alone["reason"], alone["tier"]) == ("degraded", "fallback", "edge")
    assert "its camera is broken" in alone["notice"]


async def test_a_stop_is_known_within_two_seconds_and_by_whom_it_is_not(
    hierarchy: Any, asker: Asker
) -> None:
    hierarchy.broker()
    agent, gateway, cloud = hierarchy.all_tiers()
    await asker.ready(agent, gateway, cloud)
    kill = ("kill", "--region", "plant", "--scope", "region", "--target", "plant")

    code, out, err = await control(hierarchy, *kill, "--mode", "stop", "--why", "fire", "--json")
    first = await asker.infer(agent)
    agent.process.send_signal(19)
    late_code, _, late = await control(hierarchy, *kill, "--mode", "fallback", "--why", "fire")
    agent.process.send_signal(18)
    await until_reason(asker, agent, "fallback")

    assert (code, err) == (0, "")
    (region,) = json.loads(out)["regions"]
    assert region["online"] == ["plant/agent-1", "plant/gateway-1"]
    assert first["reason"] == "stopped"
    assert late_code == 1
    assert "tierwise: plant/agent-1 has not said that it knows" in late
