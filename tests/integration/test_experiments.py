"""Experiments over devices: arms by hash, observations made once, ends that leave nobody behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiohttp import web
from msgspec.structs import replace

from cloud_tier.rollouts.experiment_api import ExperimentApi
from cloud_tier.rollouts.experiment_states import (
    ArmRequest,
    ExperimentRequest,
    ExperimentState,
    PromoteRequest,
    spec_of,
    values_of,
)
from cloud_tier.rollouts.experiments import Experiments
from cloud_tier.rollouts.register import Sums
from cloud_tier.rollouts.requests import CommandRequest
from cloud_tier.rollouts.views import status
from fakes.catalogue import Cloud
from fakes.ports import free_port
from fakes.rollout_fleet import Fleet, digest
from runtime.adapters.http_server import serving
from runtime.assignments import Do
from runtime.core.experiment import Outcome, arm_of
from runtime.core.rollout_states import Phase
from runtime.errors import RequestError, RolloutConflictError, RolloutError, UnknownRolloutError
from tierwise.cli import main

pytestmark = pytest.mark.usefixtures("operator_file")

DAY_S = 86_400.0
ASKED = CommandRequest(by="anna", why="seen enough")


def asked(**more: Any) -> ExperimentRequest:
    words: dict[str, Any] = {
        "model": "m",
        "control": ArmRequest(1),
        "arms": (ArmRequest(2),),
        "by": "anna",
        "why": "fewer escalations?",
        "id": "e1",
        "observe_s": 900.0,
        "min_devices": 10,
        **more,
    }
    return ExperimentRequest(**words)


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    cloud = Cloud(tmp_path / "repository")
    for version in (1, 2, 3):
        cloud.publish(version)
    async with Fleet(tmp_path, cloud, 60) as fleet:
        await fleet.pass_time()
        yield fleet


@pytest.fixture
def experiments(fleet: Fleet) -> Experiments:
    return made(fleet)


def made(fleet: Fleet) -> Experiments:
    return Experiments(fleet.service.controller, fleet.service.desk, retention_s=2 * DAY_S)


async def until_ended(
    fleet: Fleet, experiments: Experiments, *outcomes: Outcome
) -> ExperimentState:
    for _ in range(12):
        await fleet.pass_time()
        await experiments.look()
        state = await experiments.store.get("e1")
        if state.ended or (state.answer and state.answer.outcome in outcomes):
            return state
    return state


async def test_every_device_is_in_one_arm_and_observed_once(
    fleet: Fleet, experiments: Experiments
) -> None:
    started = await experiments.start(asked())
    await fleet.settle()

    arms = {f"{one.region}/{one.site}": one.serving for one in fleet.devices}
    assert started.devices == {one: arm_of(started.spec, one) for one in arms}
    versions = {"control": digest(1), "v2": digest(2)}
    assert arms == {one: versions[arm] for one, arm in started.devices.items()}
    for _ in range(6):
        await fleet.pass_time()
    await experiments.look()
    state = await experiments.store.get("e1")
    assert state.observed.keys() == state.devices.keys()
    assert {tuple(one.items()) for one in state.observed.values()} == {
        (("escalations", 0.2), ("errors", 0.02))
    }
    revision = state.revision
    for device in fleet.devices:
        device.error_rate = {digest(1): 0.5, digest(2): 0.5}
    await fleet.pass_time()
    await experiments.look()
    assert (await experiments.store.get("e1")).revision == revision


async def test_a_version_that_is_better_wins_and_becomes_a_draft(
    fleet: Fleet, experiments: Experiments
) -> None:
    for device in fleet.devices:
        device.error_rate = {digest(1): 0.9, digest(2): 0.01}
    await experiments.start(asked(primary="errors", guardrails={"escalations": 0.5}))
    state = await until_ended(fleet, experiments, Outcome.WINS)
    assert state.answer is not None
    assert (state.answer.outcome, state.answer.arm) == (Outcome.WINS, "v2")

    state = await experiments.promote("e1", PromoteRequest(by="anna", why="wins"))

    await fleet.settle()
    draft = await fleet.service.store.get(state.draft)
    assert (draft.rollout.phase, draft.rollout.target) == (Phase.DRAFT, "m/2.json")
    assert (await fleet.kept("e1-v2")).rollout.phase is Phase.ABORTED
    kept = [one for one in fleet.devices if one.serving == digest(2)]
    assert len(kept) == sum(arm == "v2" for arm in state.devices.values())
    begun = await fleet.service.ask("approve", state.draft, by="ben")
    assert begun.rollout.phase is Phase.SHADOW


async def test_a_broken_guardrail_sends_the_arm_back_by_itself(
    fleet: Fleet, experiments: Experiments
) -> None:
    for device in fleet.devices:
        device.error_rate = {digest(2): 0.95}
    await experiments.start(asked())

    state = await until_ended(fleet, experiments)
    await fleet.settle()
    await fleet.pass_time()

    assert state.ended.startswith("broken: errors of v2 is worse by")
    assert {one.serving for one in fleet.devices} == {digest(1)}
    rows = await fleet.service.store.history("e1")
    assert [row.now for row in rows] == ["running", "keep_running", "guardrail_broken", "broken"]


async def test_an_arm_with_a_hard_fault_ends_the_experiment(
    fleet: Fleet, experiments: Experiments
) -> None:
    state = await experiments.start(asked(arms=(ArmRequest(2), ArmRequest(3))))
    await fleet.settle()
    name = next(one for one, arm in state.devices.items() if arm == "v2")
    sick = next(one for one in fleet.devices if f"{one.region}/{one.site}" == name)
    fleet.send(sick.report(state="rejected", fault="crash_loop"))
    await fleet.pass_time()
    await experiments.look()
    await fleet.settle()
    await fleet.pass_time()

    state = await experiments.store.get("e1")

    assert state.ended.startswith("broken: v2 is roll")
    assert {one.serving for one in fleet.devices} == {digest(1)}
    assert (await fleet.kept("e1-v3")).rollout.phase is Phase.ROLLED_BACK


async def test_stopped_everybody_goes_back(fleet: Fleet, experiments: Experiments) -> None:
    await experiments.start(asked())
    await fleet.settle()
    with pytest.raises(RolloutError, match="no arm wins"):
        await experiments.promote("e1", PromoteRequest(by="anna", why="hope"))
    with pytest.raises(RolloutError, match="is no arm to roll out; there are v2"):
        await experiments.promote("e1", PromoteRequest(by="anna", why="hope", arm="control"))

    await experiments.stop("e1", ASKED)
    await fleet.settle()

    assert {one.serving for one in fleet.devices} == {digest(1)}
    with pytest.raises(RolloutError, match=r"e1 has ended \(stopped: seen enough\)"):
        await experiments.stop("e1", ASKED)
    with pytest.raises(UnknownRolloutError, match="there is no experiment 'e9'"):
        await experiments.stop("e9", ASKED)


async def test_nobody_joins_an_arm_later_and_no_rollout_interferes(
    fleet: Fleet, experiments: Experiments
) -> None:
    away = fleet.devices[0]
    away.serving = digest(3)
    await fleet.pass_time()
    state = await experiments.start(asked())
    await fleet.pass_time()
    with pytest.raises(RolloutError, match="e1-v2 of the same model is canary"):
        await fleet.service.start()
    with pytest.raises(RolloutError, match="e1-v2 of the same model is canary"):
        await experiments.start(asked(id="e2"))

    assert f"{away.region}/{away.site}" not in state.devices
    assert away.serving == digest(3)
    assert not away.obeyed


async def test_an_earlier_rollout_is_not_blamed_for_what_an_experiment_does(
    fleet: Fleet, experiments: Experiments
) -> None:
    await fleet.baseline()
    await fleet.service.start()
    await fleet.until("done")
    await experiments.start(asked(control=ArmRequest(2), arms=(ArmRequest(3),)))
    await fleet.pass_time()

    earlier = (await fleet.kept()).rollout

    assert {one.serving for one in fleet.devices} == {digest(2), digest(3)}
    assert not any(one.has_failed for one in earlier.devices.values())


async def test_what_a_crash_kept_from_beginning_begins(
    fleet: Fleet, experiments: Experiments, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crash(*_: object) -> dict[str, object]:
        raise KeyboardInterrupt

    monkeypatch.setattr(experiments._arms, "begin", crash)
    with pytest.raises(KeyboardInterrupt):
        await experiments.start(asked())
    assert await fleet.service.store.all() == []

    await made(fleet).look()
    await fleet.settle()

    assert sum(one.serving == digest(2) for one in fleet.devices) > 10


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"primary": "smiles"}, "no metric 'smiles': there are errors"),
        ({"guardrails": {"smiles": 0.1}}, "no metric 'smiles'"),
        ({"guardrails": {}}, "name guardrails beside"),
        ({"guardrails": {"escalations": 0.1}}, "name guardrails beside"),
        ({"guardrails": {"errors": 2.0}}, "from 0 to below 1"),
        ({"observe_s": 2 * DAY_S}, "counts are kept for"),
        ({"alpha": 0.0}, "between 0 and 1"),
        ({"arms": (ArmRequest(2), ArmRequest(2))}, "each with a name of its own"),
    ],
)
async def test_what_cannot_be_asked_is_refused(
    more: dict[str, Any], text: str, experiments: Experiments
) -> None:
    with pytest.raises(RequestError, match=text):
        await experiments.start(asked(**more))

    assert await experiments.store.all() == []


async def test_what_cannot_be_divided_is_refused(fleet: Fleet, experiments: Experiments) -> None:
    with pytest.raises(RolloutError, match=r"m/9\.json is not in the catalogue"):
        await experiments.start(asked(arms=(ArmRequest(9),)))
    with pytest.raises(RolloutError, match=r"0 devices serve m/3\.json"):
        await experiments.start(asked(control=ArmRequest(3)))
    await experiments.start(asked())
    await experiments.stop("e1", ASKED)
    await fleet.settle()
    await fleet.pass_time()
    with pytest.raises(RolloutConflictError, match="there is an experiment e1 already"):
        await experiments.start(asked())


async def test_a_state_that_was_changed_meanwhile_is_not_overwritten(
    fleet: Fleet, experiments: Experiments
) -> None:
    state = await experiments.start(asked())
    await experiments.store.save("c1", replace(state, draft="x"), 1.0)

    with pytest.raises(RolloutConflictError, match="e1 was changed meanwhile"):
        await experiments.store.save("c1", replace(state, draft="y"), 1.0)

    other = fleet.serve("c2")
    await other.controller.take_over()
    before = await experiments.store.get("e1")
    await experiments.look()
    assert await experiments.store.get("e1") == before


def test_an_observation_needs_all_its_metrics() -> None:
    spec = spec_of(asked(guardrails={"disagreement": 0.1}), "e")

    assert values_of(spec, Sums(10, 1, 5)) is None
    assert values_of(spec, Sums(10, 1, 5, audited=4, audited_wrong=1)) == {
        "escalations": 0.5,
        "disagreement": 0.25,
    }


async def test_the_commands(
    fleet: Fleet, experiments: Experiments, capsys: pytest.CaptureFixture[str]
) -> None:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    app = web.Application()
    ExperimentApi(fleet.service.controller, experiments).add_routes(app)
    async with serving(app, "127.0.0.1", 0) as url:

        async def run(*words: str, code: int = 0) -> str:
            capsys.readouterr()
            argv = ["experiment", *words, "--url", url]
            assert await asyncio.to_thread(main, argv) == code, capsys.readouterr()
            said = capsys.readouterr()
            return said.err or said.out

        what = ("--model", "m", "--control", "1", "--why", "cheaper?", "--by", "anna")
        assert "no experiment was ever started" in await run("list")
        for words, text in (
            (("--arm", "x"), "is no version such as 3"),
            (("--arm", "2", "--guardrail", "errors"), "is not METRIC:SHARE"),
            (("--arm", "2", "--observe", "soon"), "such as 90s"),
            (("--arm", "2", "--primary", "smiles"), "no metric 'smiles'"),
        ):
            assert text in await run("start", *what, *words, code=2)
        guardrails = ("--guardrail", "errors:0.02", "--guardrail", "slow answers:0.1")
        started = await run(
            "start", *what, "--arm", "2:1.5", "--id", "e1", "--observe", "15m",
            "--min-devices", "10", *guardrails,
        )  # fmt: skip
        assert started.splitlines()[0] == "e1: m is running"
        for _ in range(6):
            await fleet.pass_time()
        await experiments.look()
        shown = await run("status", "e1")
        assert "ESCALATIONS" in shown
        assert "v2 is better than the control by -0." in shown
        assert "keep running: neither a difference nor its absence" in shown
        found = json.loads(await run("status", "e1", "--json"))
        assert sum(arm["observed"] for arm in found["arms"]) == 60
        assert [arm["weight"] for arm in found["arms"]] == [1.0, 1.5]
        assert "e1  m      control (" in await run("list")
        (listed,) = json.loads(await run("list", "--json"))["experiments"]
        assert listed["is_running"]
        assert "no arm wins" in await run("promote", "e1", "--why", "x", code=1)
        assert "there is no experiment" in await run("status", "e9", code=1)
        assert "tierwise rollout approve m-2-" in await run(
            "promote", "e1", "--arm", "v2", "--why", "by hand", "--by", "anna"
        )
        assert "has ended (promoted: by hand)" in await run("stop", "e1", "--why", "x", code=1)
        assert "e1: m has ended, promoted: by hand" in await run("status", "e1")
    nowhere = f"http://127.0.0.1:{free_port()}"
    assert await asyncio.to_thread(main, ["experiment", "list", "--url", nowhere]) == 3


KEYED: dict[str, Any] = {
    "control": ArmRequest(1, 3.0),
    "arms": (ArmRequest(2, 1.0),),
    "split_by": "user",
}


async def test_by_key_every_device_has_both_and_is_compared_with_itself(
    fleet: Fleet, experiments: Experiments
) -> None:
    started = await experiments.start(asked(**KEYED))
    await fleet.settle()

    (told,) = {(one.obeyed[-1].do, one.obeyed[-1].path) for one in fleet.devices}
    assert told == (Do.SPLIT, "m/2.json")
    assert {one.obeyed[-1].share for one in fleet.devices} == {0.25}
    # Each device draws its keys anew.
    for one in fleet.devices:
        assert one.obeyed[-1].experiment == f"e1/{one.region}/{one.site}"
    assert {one.obeyed[-1].split_by for one in fleet.devices} == {"user"}
    assert {one.serving for one in fleet.devices} == {digest(1)}
    assert len(started.devices) == 60
    for _ in range(6):
        await fleet.pass_time()
    await experiments.look()
    state = await experiments.store.get("e1")
    assert len(state.observed) == len(state.beside) == 60
    assert {tuple(one.items()) for one in state.beside.values()} == {
        (("escalations", 0.2), ("errors", 0.02))
    }
    assert (await fleet.kept("e1-v2")).rollout.phase is Phase.SHADOW
    assert await experiments.unkeyed(state) == 60 * 6 * 100


async def test_by_key_a_version_that_is_better_wins_and_is_rolled_out_from_where_it_is(
    fleet: Fleet, experiments: Experiments
) -> None:
    for number, device in enumerate(fleet.devices):
        # Devices differ by far more than the versions do.
        device.error_rate = {digest(1): 0.02 * number % 0.6 + 0.1, digest(2): 0.02 * number % 0.6}
    await experiments.start(asked(**KEYED, primary="errors", guardrails={"escalations": 0.5}))
    state = await until_ended(fleet, experiments, Outcome.WINS)
    assert state.answer is not None
    assert (state.answer.outcome, state.answer.arm) == (Outcome.WINS, "v2")

    state = await experiments.promote("e1", PromoteRequest(by="anna", why="wins"))
    await fleet.settle()

    # Nobody is told anything before the rollout is approved.
    assert {one.state for one in fleet.devices} == {"split"}
    assert (await fleet.kept("e1-v2")).rollout.phase is Phase.PAUSED
    begun = await fleet.service.ask("approve", state.draft, by="ben")
    assert begun.rollout.phase is Phase.CANARY
    await fleet.settle()
    canaries = [one for one in fleet.devices if one.serving == digest(2)]
    assert canaries
    assert {one.obeyed[-1].do for one in canaries} == {Do.TRIAL}
    assert {one.state for one in fleet.devices if one not in canaries} == {"split"}


async def test_by_key_what_was_promoted_may_still_be_withdrawn(
    fleet: Fleet, experiments: Experiments
) -> None:
    await experiments.start(asked(**KEYED))
    await fleet.settle()
    assert "experiment list" in status(await fleet.kept("e1-v2"))["next"]
    await experiments.promote("e1", PromoteRequest(by="anna", why="by hand", arm="v2"))
    await fleet.settle()
    assert {one.state for one in fleet.devices} == {"split"}

    await fleet.service.ask("abort", "e1-v2")
    await fleet.settle()

    assert {one.obeyed[-1].do for one in fleet.devices} == {Do.WITHDRAW}


async def test_by_key_a_broken_guardrail_withdraws_it_everywhere(
    fleet: Fleet, experiments: Experiments
) -> None:
    for device in fleet.devices:
        device.error_rate = {digest(2): 0.9}
    await experiments.start(asked(**KEYED))

    state = await until_ended(fleet, experiments)
    await fleet.settle()

    assert state.ended.startswith("broken: errors of v2 is worse by")
    assert {one.obeyed[-1].do for one in fleet.devices} == {Do.WITHDRAW}
    assert {one.serving for one in fleet.devices} == {digest(1)}
    assert (await fleet.kept("e1-v2")).rollout.phase is Phase.ABORTED


async def test_by_key_a_device_that_has_ended_it_by_itself_ends_it_for_all(
    fleet: Fleet, experiments: Experiments
) -> None:
    await experiments.start(asked(**KEYED))
    await fleet.settle()
    sick = fleet.devices[7]
    sick.state, sick.beside, sick.reason = "rolled_back", "", "errors: 30 of 40 failed"
    await fleet.pass_time()
    await experiments.look()
    await fleet.settle()

    state = await experiments.store.get("e1")

    name = f"{sick.region}/{sick.site}"
    assert state.ended == f"broken: {name} has ended it by itself: errors: 30 of 40 failed"
    others = [one for one in fleet.devices if one is not sick]
    assert {one.obeyed[-1].do for one in others} == {Do.WITHDRAW}


async def test_by_key_devices_that_come_late_join_if_they_have_the_control(
    fleet: Fleet, experiments: Experiments
) -> None:
    late, other = fleet.devices[0], fleet.devices[1]
    late.serving, other.serving = digest(3), digest(3)
    await fleet.pass_time()
    started = await experiments.start(asked(**KEYED))
    await fleet.settle()
    assert len(started.devices) == 58
    late.serving = digest(1)
    for _ in range(6):
        await fleet.pass_time()
    await experiments.look()

    state = await experiments.store.get("e1")

    assert late.obeyed[-1].do is Do.SPLIT
    assert f"{late.region}/{late.site}" in state.observed
    assert not other.obeyed


async def test_by_key_stopped_it_is_withdrawn_also_where_somebody_was_away(
    fleet: Fleet, experiments: Experiments
) -> None:
    await experiments.start(asked(**KEYED))
    await fleet.settle()
    away = fleet.devices[3]
    away.is_online = False
    for _ in range(30):
        await fleet.pass_time()
    await experiments.look()
    assert not (await experiments.store.get("e1")).ended

    await experiments.stop("e1", ASKED)
    await fleet.settle()
    away.is_online = True
    await fleet.pass_time()
    await fleet.settle()

    assert {one.obeyed[-1].do for one in fleet.devices} == {Do.WITHDRAW}
    with pytest.raises(RolloutError, match="e1 has ended"):
        await experiments.stop("e1", ASKED)


async def test_by_key_there_is_one_arm_beside_the_control(experiments: Experiments) -> None:
    with pytest.raises(RequestError, match="takes one arm beside the control"):
        await experiments.start(asked(split_by="user", arms=(ArmRequest(2), ArmRequest(3))))


async def test_by_key_the_commands(
    fleet: Fleet, experiments: Experiments, capsys: pytest.CaptureFixture[str]
) -> None:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    app = web.Application()
    ExperimentApi(fleet.service.controller, experiments).add_routes(app)
    async with serving(app, "127.0.0.1", 0) as url:

        async def run(*words: str) -> str:
            capsys.readouterr()
            assert await asyncio.to_thread(main, ["experiment", *words, "--url", url]) == 0
            return capsys.readouterr().out

        await run(
            "start", "--model", "m", "--control", "1:9", "--arm", "2", "--split-by", "user",
            "--id", "e1", "--why", "cheaper?", "--by", "anna", "--observe", "15m",
        )  # fmt: skip
        await fleet.settle()
        for _ in range(6):
            await fleet.pass_time()
        await experiments.look()
        shown = await run("status", "e1")

    assert "every device has both versions; requests are divided by user" in shown
    assert "36000 requests had no key, or named a version: in no arm" in shown
    assert "v2 is better than the control by -0." in shown
    assert [one.obeyed[-1].share for one in fleet.devices] == [0.1] * 60
