"""The counters and logs of real processes add up, also when callers go away and time is short."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fakes.programs import Asker
from fakes.waiting import until

pytestmark = pytest.mark.timeout(120)


def reconcile(*words: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "tierwise", "audit", "reconcile", *words, "--json"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


async def test_every_request_has_ended_in_exactly_one_way(
    hierarchy: Any, asker: Asker, tmp_path: Path
) -> None:
    hierarchy.broker()
    agent, gateway, cloud = hierarchy.all_tiers()
    await asker.ready(agent, gateway, cloud)
    await asker.answered_by(agent, "cloud")

    async def leave(number: int) -> None:
        asked = asyncio.create_task(asker.infer(agent, budget_ms=500))
        await asyncio.sleep(0.001 * number)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)

    async def ask(budget_ms: float) -> int:
        """The status of the reply: what cannot be on time is refused."""
        tensor = {"name": "image", "shape": [1, 28, 28], "datatype": "FP32", "data": [0.5] * 784}
        body = {"inputs": [tensor], "parameters": {"remaining_ms": budget_ms}}
        url = f"{agent.url}/v2/models/fashion/infer"
        async with asker._session.post(url, json=body) as response:
            return response.status

    statuses = [
        status
        for budget_ms in (10, 30, 300)
        for status in await asyncio.gather(*(ask(budget_ms) for _ in range(20)))
    ]
    await asyncio.gather(*(leave(number) for number in range(20)))
    urls = [word for tier in (agent, gateway, cloud) for word in ("--url", tier.url)]
    # Those who have left are noticed a moment later.
    code, told = await until(
        lambda: asyncio.to_thread(reconcile, *urls), lambda found: found[1]["adds_up"], 30
    )
    for program in (agent, gateway, cloud):
        await asyncio.to_thread(program.stop)
    log_code, of_logs = await asyncio.to_thread(reconcile, "--state", str(tmp_path))

    assert len(statuses) == 60
    assert 200 in statuses
    assert (code, told["adds_up"]) == (0, True), told
    assert len(told["findings"]) >= 6
    assert (log_code, of_logs["adds_up"]) == (0, True), of_logs
    assert any(one["where"] == "edge to cloud" and one["found"] for one in of_logs["findings"])
