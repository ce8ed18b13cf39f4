"""Killed or cut off at any stage: a device goes on from there, and answers all the while."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.agent import Agent
from fakes.blobs import Deed, Hostile, forbids, truncates
from fakes.models import WEIGHTS, slow_model
from fakes.updating import (
    Load,
    Plant,
    comes_to,
    counted,
    example,
    fault_of,
    place_of,
    plant_in,
    reason_of,
    serves,
    state_of,
)
from fakes.waiting import eventually
from runtime.adapters.assignment_signatures import signed
from runtime.adapters.clock import SystemClock
from runtime.adapters.memory_bus import MemoryBroker
from runtime.adapters.metrics import TierMetrics
from runtime.assignments import Do
from runtime.core.activation import MAX_ATTEMPTS, stage
from runtime.core.rollout_states import Execution
from runtime.messages import Outcome, Tier
from runtime.updating.order_file import OrderFile
from runtime.updating.shelf import Shelf


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    async with plant_in(tmp_path) as plant:
        yield plant


async def disk_of(plant: Plant, agent: Agent, name: str) -> None:
    """What a device has of models, as it would be if the power failed now."""
    whole, copy = Path(agent.settings.state.folder), plant.folder / name
    copy.mkdir()
    assert agent.updater is not None
    # Between two commits: what is there in the middle of one is the business of the store's tests.
    async with agent.updater._exchange.turn:
        for folder in ("models", "catalogue"):
            await asyncio.to_thread(shutil.copytree, whole / folder, copy / folder)
        for file in ("assignment", "trial.json"):
            if (whole / file).exists():
                shutil.copy(whole / file, copy / file)


STAGES: dict[Execution, dict[str, Any]] = {
    # How the device is held at a stage, and what it says there.
    Execution.OFFERED: {},
    Execution.DOWNLOADING: {},
    Execution.VERIFIED: {"min_shadowed": 100_000},
    Execution.TRIAL: {"soak_s": 50.0},
    Execution.CONFIRMED: {},
}


@pytest.mark.parametrize("stage_name", STAGES)
async def test_a_device_that_lost_its_power_goes_on_where_it_was(
    plant: Plant, stage_name: Execution
) -> None:
    path = plant.publish(1)
    blobs, hidden = plant.cloud.folder / "blobs", plant.cloud.folder / "hidden"
    if stage_name is Execution.OFFERED:
        plant.mirror.only = {}
    if stage_name is Execution.DOWNLOADING:
        blobs.rename(hidden)
    held = plant.settings(**STAGES[stage_name])
    async with plant.agent(held) as agent, Load(agent):
        plant.assign(1, path)
        await comes_to(agent, stage_name)
        if stage_name is Execution.DOWNLOADING:
            await eventually(lambda: reason_of(agent) == "unavailable")
        await disk_of(plant, agent, "after")

    plant.mirror.only = None
    if hidden.exists():
        hidden.rename(blobs)
    # Another broker: nothing is retained there, so that the device has only what it remembers.
    plant.broker = MemoryBroker()
    async with plant.agent(plant.settings("after")) as agent, Load(agent) as load:
        await comes_to(agent, Execution.CONFIRMED)
        await load.goes_on()

        assert load.failed == []
        assert serves(agent) == "v1"


async def test_a_close_waits_for_an_assignment_that_is_being_written(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, is_writing, may_go_on = OrderFile.write, threading.Event(), threading.Event()

    def slow(file: OrderFile, payload: bytes) -> None:
        is_writing.set()
        may_go_on.wait(10)
        write(file, payload)

    monkeypatch.setattr(OrderFile, "write", slow)
    path = plant.publish(1)
    async with plant.agent() as agent:
        assert agent.updater is not None
        plant.assign(1, path)
        await eventually(is_writing.is_set)
        closing = asyncio.create_task(agent.updater.close())
        ended, _ = await asyncio.wait([closing], timeout=0.05)
        may_go_on.set()
        await closing
        is_kept = (Path(agent.settings.state.folder) / "assignment").exists()

    assert (ended, is_kept) == (set(), True)


async def test_a_trial_is_judged_by_the_model_before_it_also_after_a_restart(
    plant: Plant,
) -> None:
    path = plant.publish(1, onnx=slow_model(), golden=False)
    slack: dict[str, Any] = {"latency_floor_ms": 0.5, "min_shadowed": 0}
    patient = plant.settings(min_requests=100_000, **slack)
    async with plant.agent(patient) as agent, Load(agent) as load:
        await load.goes_on(100)
        plant.assign(1, path)
        await comes_to(agent, Execution.TRIAL)
        await eventually((Path(patient.state.folder) / "trial.json").exists)
        await disk_of(plant, agent, "after")

    settings = plant.settings("after", min_requests=40, **slack)
    async with plant.agent(settings) as agent, Load(agent) as load:
        await comes_to(agent, Execution.ROLLED_BACK)

        assert reason_of(agent).startswith("latency:")
        assert (serves(agent), load.failed) == ("factory", [])


async def test_a_model_that_kills_its_process_is_given_up_after_three_attempts(
    plant: Plant,
) -> None:
    path = plant.publish(1)
    async with plant.agent(plant.settings(soak_s=50.0)) as agent, Load(agent):
        plant.assign(1, path)
        await comes_to(agent, Execution.TRIAL)
        await disk_of(plant, agent, "after")
    settings = plant.settings("after", soak_s=50.0)
    for _ in range(MAX_ATTEMPTS):
        # Starts, loads the trial, and is gone without a word.
        shelf = Shelf(place_of(settings), SystemClock(), TierMetrics(Tier.EDGE))
        model, _ = await shelf.load()
        model.close()
        shelf.close()

    plant.broker = MemoryBroker()
    async with plant.agent(settings) as agent:
        await comes_to(agent, Execution.ROLLED_BACK)

        assert serves(agent) == "factory"
        assert (reason_of(agent), fault_of(agent)) == ("attempts", "crash_loop")


async def test_a_trial_that_does_not_load_any_more_is_given_up_at_the_start(plant: Plant) -> None:
    path = plant.publish(1, onnx=b"no model", golden=False)
    async with plant.agent() as agent:
        assert agent.updater is not None
        await eventually(lambda: counted(agent, "tierwise_edge_update_refreshes_total"))
        await agent.updater._fetcher.fetch(plant.release(path))
        await agent.updater._exchange.commit(
            lambda record: stage(record, "tiny", plant.release(path), seq=1)
        )
    plant.say(signed(plant.order(1, path=path), plant.signer))

    async with plant.agent() as agent:
        await comes_to(agent, Execution.ROLLED_BACK)
        assert (serves(agent), fault_of(agent)) == ("factory", "load_failed")


async def test_without_a_catalogue_a_device_waits_and_answers(plant: Plant) -> None:
    path = plant.publish(1)
    plant.mirror.only = {}
    async with plant.agent() as agent, Load(agent) as load:
        plant.assign(1, path)
        await eventually(lambda: reason_of(agent) == "not_on_mirror")
        assert state_of(agent) == "offered"
        await load.goes_on()

        plant.mirror.only = None
        await comes_to(agent, Execution.CONFIRMED)
        assert load.failed == []


async def test_what_waits_for_too_long_is_void(plant: Plant) -> None:
    path = plant.publish(1)
    plant.mirror.only = {}
    async with plant.agent() as agent:
        plant.assign(1, path, not_after_s=SystemClock().wall_s() + 1.0)
        await comes_to(agent, Execution.REJECTED)

        assert reason_of(agent).startswith("expired:")


async def test_offline_a_trial_goes_back_by_itself_and_people_can_go_back_by_hand(
    plant: Plant,
) -> None:
    one, two = plant.publish(1), plant.publish(2)
    settings = plant.settings(soak_s=50.0)
    async with plant.agent() as agent, Load(agent):
        plant.assign(1, one)
        await comes_to(agent, Execution.CONFIRMED)
    async with plant.agent(settings) as agent, Load(agent) as load:
        plant.assign(2, two)
        await comes_to(agent, Execution.TRIAL)
        plant.broker.stop()
        plant.mirror.only = {}
        assert agent.updater is not None
        await agent.updater.roll_back("looks wrong")
        await load.goes_on()
        assert (serves(agent), state_of(agent)) == ("v1", "rolled_back")
        await agent.updater.roll_back("this one, too")
        await load.goes_on()

        assert serves(agent) == "factory"
        assert load.failed == []
        assert counted(agent, 'tierwise_edge_update_faults_total{fault="operator"}') == 2
    async with plant.agent(settings) as agent:
        assert serves(agent) == "factory"


async def test_nobody_waits_for_a_mirror_that_does_not_answer_to_go_back(plant: Plant) -> None:
    path = plant.publish(1)
    async with plant.agent() as agent, Load(agent) as load:
        plant.assign(1, path)
        await comes_to(agent, Execution.CONFIRMED)
        assert agent.updater is not None
        async with agent.updater._exchange.turn:
            going_back = asyncio.create_task(agent.updater.roll_back("now"))
            await eventually(lambda: serves(agent) == "factory")
            assert not going_back.done()
        await going_back
        await load.goes_on()

        assert (state_of(agent), load.failed) == ("rolled_back", [])


async def test_who_goes_back_may_leave_before_it_is_written_down(plant: Plant) -> None:
    path = plant.publish(1)
    async with plant.agent() as agent:
        async with Load(agent):
            plant.assign(1, path)
            await comes_to(agent, Execution.CONFIRMED)
        assert agent.updater is not None
        async with agent.updater._exchange.turn:
            going_back = asyncio.create_task(agent.updater.roll_back("now"))
            await eventually(lambda: serves(agent) == "factory")
            # As an HTTP handler is when its caller hangs up.
            going_back.cancel()
            await asyncio.wait([going_back])
        assert going_back.cancelled()
        await comes_to(agent, Execution.ROLLED_BACK)
    async with plant.agent() as agent:
        assert serves(agent) == "factory"


async def test_told_to_go_back_a_device_does_and_a_withdrawn_model_never_answers(
    plant: Plant,
) -> None:
    one, two = plant.publish(1), plant.publish(2)
    async with plant.agent() as agent, Load(agent) as load:
        plant.assign(1, one)
        await comes_to(agent, Execution.CONFIRMED)
        plant.assign(2, two, Do.SHADOW)
        await comes_to(agent, Execution.SHADOW)
        await load.goes_on(100)
        assert state_of(agent) == "shadow"
        plant.assign(3, do=Do.WITHDRAW)
        await comes_to(agent, Execution.CANCELLED)
        plant.assign(4, do=Do.ROLL_BACK)
        await comes_to(agent, Execution.ROLLED_BACK)
        assert serves(agent) == "v1"
        plant.assign(5, two)
        await comes_to(agent, Execution.CONFIRMED)
        plant.assign(6, do=Do.ROLL_BACK, to=plant.release(one).name)
        await comes_to(agent, Execution.ROLLED_BACK)
        await load.goes_on()

        assert serves(agent) == "v1"
        assert load.failed == []
        assert load.versions == {"factory", "v1", "v2"}


@pytest.mark.parametrize("deed", [forbids, truncates])
async def test_a_page_or_half_a_file_never_becomes_a_model(plant: Plant, deed: Deed) -> None:
    """Regression 11 of what failed elsewhere: Frigate, Groundlight."""
    path = plant.publish(1, 2 * WEIGHTS)
    file = plant.release(path).files["tiny.onnx"]
    contents = (plant.cloud.folder / "blobs" / file.sha256).read_bytes()
    async with Hostile(contents, deed).serving() as url:
        settings = plant.settings(url=url)
        async with plant.agent(settings) as agent:
            plant.assign(1, path)
            await comes_to(agent, Execution.DOWNLOADING)
            await eventually(lambda: reason_of(agent) == "unavailable")

            assert serves(agent) == "factory"
            answer = await agent.infer(example(), budget_ms=5000)
            assert answer.outcome is Outcome.ANSWERED
            store = Path(settings.state.folder) / "models"
            assert not (store / "blobs" / file.sha256).exists()
            assert not (store / "folders" / plant.release(path).name).exists()


async def test_a_failed_rollout_does_not_leave_the_bad_version_as_current(plant: Plant) -> None:
    """Regression 12 of what failed elsewhere: Groundlight."""
    path = plant.publish(1, onnx=b"no model", golden=False)
    async with plant.agent() as agent:
        plant.assign(1, path)
        await comes_to(agent, Execution.ROLLED_BACK)
    # The retained assignment is heard again, in this life and the next one.
    async with plant.agent() as agent:
        await comes_to(agent, Execution.ROLLED_BACK)
        assert agent.updater is not None
        shown = agent.updater.shown()

    assert set(shown["slot"]) == {"factory"}
    assert shown["serving"]["version"] == "factory"
