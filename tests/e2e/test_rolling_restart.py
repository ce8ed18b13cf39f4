"""A rolling restart of a region's gateways under load."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from fakes.programs import UNSURE, Asker

pytestmark = pytest.mark.timeout(120)
# Whatever comes is answered there.
SURE = "model.accept_at=0.0"


async def test_gateways_restarted_one_after_the_other_cost_no_answer_its_quality(
    hierarchy: Any, asker: Asker
) -> None:
    hierarchy.broker()
    gateways = [hierarchy.tier("gateway", f"gateway-{n}", SURE) for n in (1, 2)]
    agent = hierarchy.tier("edge", "agent-1", UNSURE)
    await asker.ready(agent, *gateways)
    await asker.answered_by(agent, "regional")
    answers: list[dict[str, Any]] = []

    async def ask() -> None:
        answers.append(await asker.infer(agent, budget_ms=500))

    async def load() -> None:
        async with asyncio.TaskGroup() as asking:
            while True:
                asking.create_task(ask())
                await asyncio.sleep(0.02)

    loading = asyncio.create_task(load())
    codes = []
    for gateway in gateways:
        so_far = len(answers)
        codes.append(await asyncio.to_thread(gateway.stop))
        gateway.restart()
        await asker.ready(gateway)
        # The other one is next only when this one answers again.
        await asker.answered_by(agent, "regional")
        assert len(answers) > so_far + 20
    loading.cancel()
    await asyncio.gather(loading, return_exceptions=True)

    assert codes == [0, 0]
    ended = Counter((one["tier"], one["outcome"], one["reason"]) for one in answers)
    assert ended == {("regional", "answered", "confident"): len(answers)}
    assert len(answers) > 100
