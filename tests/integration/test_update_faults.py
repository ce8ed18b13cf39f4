"""Models that are not as good: each goes back by itself, its fault is named, and nobody notices."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes.models import WEIGHTS, linear_model, manifest_of, slow_model
from fakes.rogue_models import EXIT, LEAK
from fakes.updating import (
    Load,
    Plant,
    comes_to,
    counted,
    fault_of,
    plant_in,
    reason_of,
    reports_of,
    serves,
)
from fakes.waiting import eventually
from runtime.adapters.golden import make_golden
from runtime.adapters.model_process import ProcessBackend
from runtime.adapters.onnx_backend import OnnxBackend
from runtime.core.rollout_states import Execution
from runtime.messages import Tensors
from runtime.updating.candidate import Candidate

pytestmark = pytest.mark.alone

OTHER = np.ascontiguousarray(WEIGHTS[:, ::-1])
NO_NUMBERS = np.full_like(WEIGHTS, np.nan)


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    async with plant_in(tmp_path) as plant:
        yield plant


def rogue(what: int) -> Callable[[], Tensors]:
    """An input that makes a rogue model do that, and on which the usual one is sure."""
    return lambda: {"x": np.array([[what, 0, 0]], np.float32)}


def golden_of_another() -> bytes:
    contents = linear_model(OTHER)
    backend = OnnxBackend.load(contents, source="other")
    return make_golden(manifest_of({"tiny.onnx": contents}), [backend])


CASES: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    # What is published, settings of the device, the fault on record, the fault that is reported.
    "no numbers, in shadow": (
        {"weights": NO_NUMBERS, "golden": False}, {}, "invalid_output", "not_a_number",
    ),
    "no numbers, on trial": (
        {"weights": NO_NUMBERS, "golden": False},
        {"min_shadowed": 0},
        "invalid_output",
        "not_a_number",
    ),
    "quietly worse": ({"weights": OTHER}, {"min_shadowed": 30}, "disagreement", ""),
    "slower": (
        {"onnx": slow_model(), "golden": False},
        {"latency_floor_ms": 0.5, "min_shadowed": 0, "min_requests": 40},
        "latency",
        "",
    ),
    "no model": (
        {"onnx": b"<html>log in</html>", "golden": False}, {}, "load_failed", "load_failed",
    ),
    "golden examples are not reproduced": (
        {"golden": golden_of_another()}, {}, "golden_mismatch", "golden_mismatch",
    ),
    "other labels": ({"labels": ("yes", "no")}, {}, "load_failed", "load_failed"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
async def test_a_model_that_is_not_as_good_goes_back(plant: Plant, case: str) -> None:
    published, settings, fault, told = CASES[case]
    path = plant.publish(1, **published)
    async with plant.agent(plant.settings(**settings)) as agent, Load(agent) as load:
        await load.goes_on(100)
        plant.assign(1, path)
        await comes_to(agent, Execution.ROLLED_BACK)
        await load.goes_on()

        assert load.failed == []
        assert load.answers[-1].model_version == serves(agent) == "factory"
        assert reason_of(agent).startswith(f"{fault}:")
        assert fault_of(agent) == told
        assert counted(agent, f'tierwise_edge_update_faults_total{{fault="{fault}"}}') == 1
        last = (await reports_of(agent))[-1]
        assert agent.updater is not None
        assert agent.updater.shown()["bad"] == [
            {"release": plant.release(path).name, "fault": fault}
        ]

    assert (last.state, last.fault, last.version) == ("rolled_back", told, "factory")


async def test_what_went_wrong_on_trial_is_in_the_reports(plant: Plant) -> None:
    path = plant.publish(1, NO_NUMBERS, golden=False)
    async with plant.agent(plant.settings(min_shadowed=0)) as agent, Load(agent):
        plant.assign(1, path)
        await comes_to(agent, Execution.ROLLED_BACK)
        reports = await reports_of(agent)

    tried = plant.release(path).name
    counts = [one for report in reports for one in report.counted if one.release == tried]
    assert sum(one.invalid for one in counts) >= 1


@pytest.mark.parametrize(
    ("what", "fault", "told"),
    [(EXIT, "load_failed", "load_failed"), (LEAK, "out_of_memory", "out_of_memory")],
)
async def test_a_model_that_harms_its_process_harms_nothing_else(
    plant: Plant, what: int, fault: str, told: str
) -> None:
    path = plant.publish(1)
    settings = plant.settings(min_shadowed=1000)
    rogues = plant.agent(settings, loader="fakes.rogue_models:load_member", memory_limit_mb=160)
    async with rogues as agent, Load(agent, rogue(what)) as load:
        plant.assign(1, path)
        await comes_to(agent, Execution.ROLLED_BACK)

        assert load.failed == []
        assert (reason_of(agent).partition(":")[0], fault_of(agent)) == (fault, told)


async def test_a_model_whose_process_does_not_start_is_given_up(plant: Plant) -> None:
    path = plant.publish(1)
    async with plant.agent(loader="fakes.rogue_models:load_dies") as agent:
        plant.assign(1, path)
        await comes_to(agent, Execution.ROLLED_BACK)

        assert fault_of(agent) == "load_failed"
        assert "libmissing" in reason_of(agent)


async def test_one_that_takes_too_much_memory_to_load_is_given_up(plant: Plant) -> None:
    path = plant.publish(1)
    async with plant.agent(memory_limit_mb=1) as agent:
        plant.assign(1, path)
        await comes_to(agent, Execution.ROLLED_BACK)

        assert fault_of(agent) == "out_of_memory"


async def test_what_was_given_up_is_taken_again_only_if_told(plant: Plant) -> None:
    path = plant.publish(1, golden=golden_of_another())
    async with plant.agent() as agent:
        plant.assign(1, path)
        await comes_to(agent, Execution.ROLLED_BACK)
        plant.assign(2, path)
        await comes_to(agent, Execution.REJECTED)
        assert reason_of(agent).startswith("bad:")

        plant.assign(3, path, clears_bad=True)
        await comes_to(agent, Execution.ROLLED_BACK)
        assert fault_of(agent) == "golden_mismatch"


async def test_a_model_that_is_not_wanted_any_more_when_it_has_loaded_is_closed(
    plant: Plant,
) -> None:
    one, two = plant.publish(1), plant.publish(2)
    loaded: list[Candidate] = []
    may_go_on = threading.Event()

    def sees(candidate: Candidate) -> None:
        loaded.append(candidate)
        may_go_on.wait(10)

    def pid_of(candidate: Candidate) -> int | None:
        (member,) = candidate.model._members
        assert isinstance(member.backend, ProcessBackend)
        return member.backend.pid

    async with plant.agent(sees=sees) as agent, Load(agent):
        plant.assign(1, one)
        await eventually(lambda: len(loaded) == 1)
        assert pid_of(loaded[0]) is not None
        assert agent.updater is not None
        first = agent.updater._work
        assert first is not None
        plant.assign(2, two)
        await eventually(lambda: bool(first.cancelling()))
        may_go_on.set()
        await comes_to(agent, Execution.CONFIRMED)

        assert serves(agent) == "v2"
        assert [pid_of(candidate) for candidate in loaded] == [None, None]
