"""Tiers whose models run in processes of their own, as an operator sees them."""

from __future__ import annotations

import os
import signal
from typing import Any

import psutil
import pytest

from fakes.programs import UNSURE, Asker, TierProgram
from fakes.waiting import eventually

pytestmark = pytest.mark.timeout(120)


def models_of(program: TierProgram) -> list[psutil.Process]:
    """The processes of a tier's models."""
    found = psutil.Process(program.process.pid).children(recursive=True)
    return [one for one in found if "runtime.adapters.model_worker" in one.cmdline()]


async def test_a_gateway_outlives_its_model_and_leaves_nothing_behind(
    hierarchy: Any, asker: Asker
) -> None:
    hierarchy.broker()
    gateway, agent = hierarchy.tier("gateway", "gateway-1"), hierarchy.tier("edge", "a-1", UNSURE)
    await asker.ready(gateway, agent)
    (model,) = models_of(gateway)

    os.kill(model.pid, signal.SIGKILL)
    await eventually(lambda: not model.is_running())
    await eventually(lambda: "model.process_started" in gateway.log, 10)
    answer = await asker.answered_by(agent, "regional")
    (again,) = models_of(gateway)
    code = gateway.stop()

    assert answer["outcome"] in {"answered", "degraded"}
    assert "model.process_ended" in gateway.log
    assert code == 0
    assert not again.is_running()


async def test_a_tier_that_is_killed_takes_its_models_with_it(hierarchy: Any, asker: Asker) -> None:
    hierarchy.broker()
    cloud = hierarchy.tier("cloud", "cloud-1")
    await asker.ready(cloud)
    models = models_of(cloud)

    cloud.kill()

    assert len(models) == 3
    await eventually(lambda: not any(one.is_running() for one in models))


async def test_a_terminal_that_interrupts_all_lets_the_tier_drain(
    hierarchy: Any, asker: Asker
) -> None:
    hierarchy.broker()
    gateway, agent = hierarchy.tier("gateway", "gateway-1"), hierarchy.tier("edge", "a-1", UNSURE)
    await asker.ready(gateway, agent)

    for one in models_of(gateway):
        os.kill(one.pid, signal.SIGINT)
    await asker.answered_by(agent, "regional")

    assert gateway.stop() == 0
    assert "model.process_ended" not in gateway.log
