"""Two releases answer side by side on one device, each its own callers."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import numpy as np
import pytest

from cloud_tier.rollouts.reports import checked
from edge_agent.agent import Agent
from edge_agent.http_api import InferenceApi
from fakes.catalogue import NOW_S
from fakes.models import WEIGHTS, slow_model
from fakes.updating import (
    Load,
    Plant,
    comes_to,
    counted,
    example,
    fault_of,
    plant_in,
    reason_of,
    reports_of,
    serves,
    state_of,
)
from fakes.waiting import eventually
from runtime.adapters.filesystem import LocalFiles
from runtime.adapters.http_server import serving as listening
from runtime.adapters.memory_bus import MemoryBroker
from runtime.adapters.model_store import ModelStore
from runtime.assignments import Do, encode
from runtime.core.activation import MAX_ATTEMPTS
from runtime.core.releases import Fault, Record, Release, Split, Trial
from runtime.core.rollout_states import Execution
from runtime.core.splitting import arm_of, divide, unite
from runtime.errors import StorageError, UnknownModelError
from runtime.messages import Answer, ControlState, Outcome, Stop, StopMode, StopScope, Tier

TERMS = {"share": 0.4, "experiment": "ab-1", "split_by": "user"}
KEYS = [f"user-{number}" for number in range(40)]
IN_TREATMENT = {key for key in KEYS if arm_of("ab-1", key, 0.4)}


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    async with plant_in(tmp_path) as plant:
        yield plant


async def ask(agent: Agent, key: str = "") -> Answer:
    context = {"user": key} if key else {}
    return await agent.infer(example(), budget_ms=5000, context=context)


async def split(plant: Plant, agent: Agent, path: str, seq: int = 1) -> None:
    plant.assign(seq, path, do=Do.SPLIT, **TERMS)
    await comes_to(agent, Execution.SPLIT)


class Callers(Load):
    """Load that says who is asking, one after the other."""

    def __init__(self, agent: Agent) -> None:
        super().__init__(agent)
        self._keys = itertools.cycle(KEYS)

    async def _ask(self) -> None:
        while True:
            self.answers.append(await ask(self._agent, next(self._keys)))
            await asyncio.sleep(0.001)


async def test_every_key_has_one_release_and_both_are_counted(plant: Plant) -> None:
    path = plant.publish(1)
    async with plant.agent(plant.settings(min_shadowed=0)) as agent:
        await split(plant, agent, path)

        for _ in range(2):
            answers = {key: await ask(agent, key) for key in KEYS}
            assert {k for k, one in answers.items() if one.model_version == "v1"} == IN_TREATMENT
            assert {one.model_version for one in answers.values()} == {"v1", "factory"}
        unkeyed = [await ask(agent) for _ in range(5)]
        named = await agent.infer(example(), budget_ms=5000, context={"other": "user-1"})

        assert {one.model_version for one in (*unkeyed, named)} == {"factory"}
        assert serves(agent) == "factory"
        name = "tierwise_edge_update_split_requests_total"
        assert counted(agent, name + '{arm="treatment"}') == 2 * len(IN_TREATMENT)
        assert counted(agent, name + '{arm="control"}') == 2 * (len(KEYS) - len(IN_TREATMENT))
        assert counted(agent, name + '{arm="unkeyed"}') == 6
        assert agent.updater is not None
        agent.updater.teller.report()
        sums: dict[str, int] = {}
        for report in await reports_of(agent):
            for one in report.counted:
                sums[one.release] = sums.get(one.release, 0) + one.requests
        control = agent.serving.current.release
        assert report.serving == control
        # The cloud believes it.
        assert checked(encode(report), "r/camera-1") == report
        assert sums == {
            control: 2 * (len(KEYS) - len(IN_TREATMENT)),
            plant.release(path).name: 2 * len(IN_TREATMENT),
            "": 6,
        }
        shown = agent.updater.shown()
        assert shown["split"] == TERMS
        assert shown["slot"]["split"]["version"] == 1


async def test_the_key_may_come_over_http_and_a_version_may_be_named(plant: Plant) -> None:
    path = plant.publish(1)
    key, other = min(IN_TREATMENT), min(set(KEYS) - IN_TREATMENT)
    async with plant.agent(plant.settings(min_shadowed=0)) as agent:
        await split(plant, agent, path)
        async with (
            listening(InferenceApi(agent).app(), "127.0.0.1", 0) as url,
            aiohttp.ClientSession(url) as session,
        ):

            async def version(user: str, at: str = "") -> str:
                body = {
                    "inputs": [
                        {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [3, 2, 0]}
                    ],
                    "parameters": {"context.user": user},
                }
                async with session.post(f"/v2/models/tiny{at}/infer", json=body) as answer:
                    assert answer.status == 200
                    return str((await answer.json())["model_version"])

            assert (await version(key), await version(other)) == ("v1", "factory")
            assert await version(other, "/versions/v1") == "v1"
            assert await version(key, "/versions/factory") == "factory"
            async with session.get("/v2/models/tiny") as answer:
                assert (await answer.json())["versions"] == ["factory", "v1"]
            async with session.get("/v2/models/tiny/versions/v9") as answer:
                assert answer.status == 404
        assert counted(agent, 'tierwise_edge_update_split_requests_total{arm="named"}') == 2


async def test_withdrawn_under_load_no_request_fails(plant: Plant) -> None:
    path = plant.publish(1)
    async with plant.agent() as agent, Callers(agent) as load:
        await split(plant, agent, path)
        await load.goes_on(100)
        plant.assign(2, do=Do.WITHDRAW)
        await comes_to(agent, Execution.CANCELLED)
        load_before = len(load.answers)
        await load.goes_on(100)

        assert load.failed == []
        assert load.versions == {"factory", "v1"}
        # Those that were in progress at the end may still have been the new one's.
        assert {one.model_version for one in load.answers[load_before + 2 :]} == {"factory"}
        assert agent.updater is not None
        assert agent.updater._shelf.slot.bad == ()
        assert agent.updater._exchange.beside is None


async def test_a_trial_of_the_same_version_takes_over_without_a_load(plant: Plant) -> None:
    path = plant.publish(1)
    async with plant.agent(plant.settings(min_shadowed=0)) as agent, Callers(agent) as load:
        await split(plant, agent, path)
        await load.goes_on()
        assert agent.updater is not None
        beside = agent.updater._exchange.beside
        plant.assign(2, path)
        await comes_to(agent, Execution.CONFIRMED)
        await load.goes_on()

        assert load.failed == []
        assert agent.serving.current is beside
        assert len(agent.serving.loaded) == 1
        slot = agent.updater._shelf.slot
        assert (slot.current, slot.split) == (plant.release(path), None)


async def test_a_larger_share_only_brings_keys(plant: Plant) -> None:
    path = plant.publish(1)
    async with plant.agent(plant.settings(min_shadowed=0)) as agent:
        await split(plant, agent, path)
        assert agent.updater is not None
        beside = agent.updater._exchange.beside
        plant.assign(2, path, do=Do.SPLIT, **{**TERMS, "share": 0.8})
        await eventually(lambda: agent.updater.teller.tale.seq == 2)  # type: ignore[union-attr]
        await comes_to(agent, Execution.SPLIT)
        after = {key for key in KEYS if (await ask(agent, key)).model_version == "v1"}

        assert after > IN_TREATMENT
        assert agent.updater._exchange.beside is beside


async def test_a_split_goes_on_after_a_restart_without_a_network(plant: Plant) -> None:
    path = plant.publish(1)
    settings = plant.settings(min_shadowed=0)
    async with plant.agent(settings) as agent:
        await split(plant, agent, path)
    plant.mirror.only = {}
    plant.say(b"")

    async with plant.agent(settings) as agent:
        # From the first request on.
        answers = {key: (await ask(agent, key)).model_version for key in KEYS}
        await comes_to(agent, Execution.SPLIT)

    assert {key for key, version in answers.items() if version == "v1"} == IN_TREATMENT


async def test_one_that_gives_nothing_ends_the_split_by_itself_and_for_good(plant: Plant) -> None:
    path = plant.publish(1, np.full_like(WEIGHTS, np.nan), golden=False)
    settings = plant.settings(min_shadowed=0)
    async with plant.agent(settings) as agent:
        await split(plant, agent, path)
        plant.mirror.only = {}
        answers = [await ask(agent, key) for key in KEYS]
        await comes_to(agent, Execution.ROLLED_BACK)

        assert {one.outcome for one in answers} == {Outcome.ANSWERED}
        assert {one.model_version for one in answers} == {"factory"}
        assert fault_of(agent) == "not_a_number"
        assert reason_of(agent).startswith("invalid_output")
        assert len(agent.serving.loaded) == 1
        assert (await reports_of(agent))[-1].state == Execution.ROLLED_BACK

    async with plant.agent(settings) as agent:
        assert {(await ask(agent, key)).model_version for key in KEYS} == {"factory"}


async def test_one_that_is_unsure_more_often_than_what_serves_goes_back(plant: Plant) -> None:
    path = plant.publish(1, WEIGHTS * 0.01)
    settings = plant.settings(min_shadowed=0, min_requests=10, max_ratio=1.0)
    async with plant.agent(settings) as agent:
        await split(plant, agent, path)
        assert agent.updater is not None
        beside = agent.updater._exchange.beside
        assert beside is not None
        async with Callers(agent) as load:
            # There is no tier above here: what climbs is put down by hand.
            watches = {one.release: one for one in agent.updater._exchange.watches}
            watch = watches[beside.release]
            await eventually(lambda: watch.requests >= 100)
            watch.escalated = 100
            await comes_to(agent, Execution.ROLLED_BACK)
            await load.goes_on()

        assert load.failed == []
        assert reason_of(agent).startswith("escalations")


async def test_somebody_at_the_device_ends_it(plant: Plant) -> None:
    path = plant.publish(1)
    async with plant.agent(plant.settings(min_shadowed=0)) as agent:
        await split(plant, agent, path)
        assert agent.updater is not None

        await agent.updater.roll_back("no more of this")

        assert state_of(agent) == Execution.ROLLED_BACK
        assert {(await ask(agent, key)).model_version for key in KEYS} == {"factory"}
        plant.assign(2, path, do=Do.SPLIT, **TERMS)
        await comes_to(agent, Execution.REJECTED)
        assert reason_of(agent).startswith("bad")


async def test_no_split_beside_a_trial(plant: Plant) -> None:
    one, two = plant.publish(1), plant.publish(2)
    async with plant.agent(plant.settings(min_shadowed=0, soak_s=50.0)) as agent:
        plant.assign(1, one)
        await comes_to(agent, Execution.TRIAL)
        plant.assign(2, two, do=Do.SPLIT, **TERMS)
        await comes_to(agent, Execution.REJECTED)

        assert reason_of(agent).startswith("busy")
        assert serves(agent) == "v1"


async def test_a_shadow_or_another_version_ends_it(plant: Plant) -> None:
    one, two = plant.publish(1), plant.publish(2)
    async with plant.agent(plant.settings(min_shadowed=0)) as agent:
        for seq, path in ((1, one), (3, two)):
            await split(plant, agent, path, seq)
            plant.assign(seq + 1, one, do=Do.SHADOW)
            await comes_to(agent, Execution.SHADOW)
            assert {(await ask(agent, key)).model_version for key in KEYS} == {"factory"}


async def test_a_stop_of_one_version_is_for_its_arm_alone(plant: Plant) -> None:
    path = plant.publish(1)
    async with plant.agent(plant.settings(min_shadowed=0)) as agent:
        await split(plant, agent, path)
        stop = Stop(StopScope.MODEL, StopMode.STOP, "wrong", "anna", NOW_S, target="tiny@v1")
        switch = agent.flow.switch
        assert switch is not None
        switch.take(ControlState("r", 1, (stop,), by="anna", why="wrong"))

        outcomes = {key: (await ask(agent, key)).outcome for key in KEYS}

        assert {k for k, one in outcomes.items() if one is Outcome.ABSTAINED} == IN_TREATMENT
        switch.take(ControlState("r", 2, (), by="anna", why="right again"))
        assert {(await ask(agent, key)).outcome for key in KEYS} == {Outcome.ANSWERED}


async def test_a_version_that_is_not_there_is_refused_by_both(plant: Plant) -> None:
    path = plant.publish(1)
    async with plant.agent(plant.settings(min_shadowed=0)) as agent:
        await split(plant, agent, path)
        with pytest.raises(UnknownModelError):
            await agent.infer(example(), budget_ms=5000, model="other")


async def _disk_of(plant: Plant, agent: Agent, name: str) -> None:
    """What a device has, as it would be if its power failed now."""
    whole, copy = Path(agent.settings.state.folder), plant.folder / name
    copy.mkdir()
    assert agent.updater is not None
    async with agent.updater._exchange.turn:
        for folder in ("models", "catalogue"):
            await asyncio.to_thread(shutil.copytree, whole / folder, copy / folder)
        shutil.copy(whole / "assignment", copy / "assignment")


async def test_a_device_that_lost_its_power_goes_on_with_its_split(plant: Plant) -> None:
    path = plant.publish(1)
    async with plant.agent(plant.settings(min_shadowed=0)) as agent, Callers(agent):
        await split(plant, agent, path)
        await _disk_of(plant, agent, "after")
    plant.broker = MemoryBroker()
    plant.mirror.only = {}

    async with plant.agent(plant.settings("after")) as agent, Callers(agent) as load:
        await load.goes_on(100)
        await comes_to(agent, Execution.SPLIT)
        answers = {key: (await ask(agent, key)).model_version for key in KEYS}

        assert load.failed == []
        assert {key for key, version in answers.items() if version == "v1"} == IN_TREATMENT
        assert agent.updater is not None
        kept = agent.updater._shelf.slot.split
        assert kept is not None
        assert kept.trial.attempts == 1


async def test_one_that_ends_the_process_again_and_again_is_given_up(plant: Plant) -> None:
    """Each copy of the disk is a start that nobody ended on purpose."""
    path = plant.publish(1)
    name = "device"
    async with plant.agent(plant.settings(name, min_shadowed=0)) as agent:
        await split(plant, agent, path)
        await _disk_of(plant, agent, "life-0")
    plant.broker = MemoryBroker()
    for life in range(MAX_ATTEMPTS):
        async with plant.agent(plant.settings(f"life-{life}")) as agent:
            assert len(agent.serving.loaded) == 2
            await _disk_of(plant, agent, f"life-{life + 1}")

    async with plant.agent(plant.settings(f"life-{MAX_ATTEMPTS}")) as agent:
        assert len(agent.serving.loaded) == 1
        assert (await ask(agent, min(IN_TREATMENT))).model_version == "factory"
        await comes_to(agent, Execution.ROLLED_BACK)
        assert fault_of(agent) == "crash_loop"


async def test_one_whose_files_have_rotted_is_given_up_at_the_start(plant: Plant) -> None:
    path = plant.publish(1)
    settings = plant.settings(min_shadowed=0)
    async with plant.agent(settings) as agent:
        await split(plant, agent, path)
    blobs = Path(settings.state.folder) / "models" / "blobs"
    blob = blobs / plant.release(path).files["tiny.onnx"].sha256
    contents = blob.read_bytes()
    blob.unlink()
    blob.write_bytes(contents[:-1] + bytes([contents[-1] ^ 1]))

    async with plant.agent(settings) as agent:
        assert len(agent.serving.loaded) == 1
        await comes_to(agent, Execution.ROLLED_BACK)
        assert fault_of(agent) == "digest_mismatch"


async def test_one_that_does_not_load_any_more_is_given_up_at_the_start(plant: Plant) -> None:
    path = plant.publish(1)
    settings = plant.settings(min_shadowed=0)
    async with plant.agent(settings) as agent:
        await split(plant, agent, path)
    # Of a format that this program cannot run: what it is signed for is all there.
    broken = plant.publish(2, onnx=b"no model at all", golden=False)
    with ModelStore(LocalFiles(Path(settings.state.folder) / "models")) as store:
        release = plant.release(broken)
        for file in release.blobs.values():
            store.blobs.put(file, (plant.cloud.folder / "blobs" / file.sha256).read_bytes())
        record = unite(store.record, "tiny")
        terms = Split(Trial(0, release), 0.4, "ab-1", "user")
        store.commit(divide(record, "tiny", terms, seq=2))

    async with plant.agent(settings) as agent:
        assert len(agent.serving.loaded) == 1
        assert (await ask(agent, min(IN_TREATMENT))).model_version == "factory"
        assert agent.updater is not None
        (bad,) = agent.updater._shelf.slot.bad
        assert (bad.manifest_sha256, bad.fault) == (release.name, Fault.LOAD_FAILED)


async def test_a_trial_of_another_version_takes_its_place(plant: Plant) -> None:
    one, two = plant.publish(1), plant.publish(2)
    async with plant.agent(plant.settings(min_shadowed=0)) as agent, Callers(agent) as load:
        await split(plant, agent, one)
        plant.assign(2, two)
        await comes_to(agent, Execution.CONFIRMED)
        await load.goes_on()

        assert load.failed == []
        assert serves(agent) == "v2"
        assert agent.updater is not None
        assert agent.updater._shelf.slot.split is None


async def test_the_answer_and_its_story_say_which_release_it_was(plant: Plant) -> None:
    path = plant.publish(1)
    async with plant.agent(plant.settings(min_shadowed=0)) as agent:
        await split(plant, agent, path)
        for key, version in (
            (min(IN_TREATMENT), "v1"),
            (min(set(KEYS) - IN_TREATMENT), "factory"),
        ):
            answer = await agent.infer(
                example(), budget_ms=5000, context={"user": key}, explain=True
            )

            assert (answer.model_version, answer.hops[0].model_version) == (version, version)


async def test_requests_of_one_arm_are_not_held_against_the_other(plant: Plant) -> None:
    """What the new one cannot answer and the control has to is no request of the control."""
    path = plant.publish(1, np.full_like(WEIGHTS, np.nan), golden=False)
    async with plant.agent(plant.settings(min_shadowed=0, max_invalid=1000)) as agent:
        await split(plant, agent, path)
        answers = [await ask(agent, key) for key in sorted(IN_TREATMENT)]
        assert agent.updater is not None
        counts = {one.release: one for one in agent.updater.watches}

    assert {one.model_version for one in answers} == {"factory"}
    new = counts[plant.release(path).name]
    # After ten of them its breaker asks it no more for a while, and that is charged to it, too.
    assert new.invalid + new.errors == new.requests == len(IN_TREATMENT)
    assert [one.requests for one in counts.values()].count(0) == 1
    assert counts[""].requests == len(IN_TREATMENT)


async def test_above_the_edge_there_are_no_keys_and_no_split(plant: Plant) -> None:
    path = plant.publish(1)
    async with plant.agent() as agent:
        assert agent.updater is not None
        agent.updater._shelf.tier = Tier.REGIONAL
        plant.assign(1, path, do=Do.SPLIT, **TERMS)
        await comes_to(agent, Execution.REJECTED)

        assert reason_of(agent).startswith("edge_only")
        assert agent.updater._shelf.slot.seq == 0


async def test_one_that_could_not_be_laid_out_at_the_start_is_tried_again(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = plant.publish(1)
    settings = plant.settings(min_shadowed=0)
    async with plant.agent(settings) as agent:
        await split(plant, agent, path)
    whole, release = ModelStore.folder, plant.release(path)
    failures = [StorageError("the disk is tired")]

    def tired(self: ModelStore, one: Release) -> Path:
        if one == release and failures:
            raise failures.pop()
        return whole(self, one)

    monkeypatch.setattr(ModelStore, "folder", tired)

    async with plant.agent(settings) as agent:
        assert len(agent.serving.loaded) == 1
        await comes_to(agent, Execution.SPLIT)
        answers = {key: (await ask(agent, key)).model_version for key in KEYS}

    assert {key for key, version in answers.items() if version == "v1"} == IN_TREATMENT


async def test_one_whose_attempt_cannot_be_counted_is_not_loaded(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = plant.publish(1)
    settings = plant.settings(min_shadowed=0)
    async with plant.agent(settings) as agent:
        await split(plant, agent, path)
    whole = ModelStore.commit
    failures = [StorageError("the disk is full")]

    def full(self: ModelStore, record: Record) -> None:
        if failures:
            raise failures.pop()
        whole(self, record)

    monkeypatch.setattr(ModelStore, "commit", full)
    plant.mirror.only = {}
    plant.say(b"")

    async with plant.agent(settings) as agent:
        assert len(agent.serving.loaded) == 1
        assert (await ask(agent, min(IN_TREATMENT))).model_version == "factory"


async def test_one_that_is_slower_than_what_serves_goes_back(plant: Plant) -> None:
    path = plant.publish(1, onnx=slow_model(), golden=False)
    settings = plant.settings(min_shadowed=0, latency_floor_ms=0.5, min_requests=20)
    async with plant.agent(settings) as agent, Callers(agent) as load:
        # So that it is known what is usual.
        await load.goes_on(100)
        await split(plant, agent, path)
        await comes_to(agent, Execution.ROLLED_BACK)
        await load.goes_on()

        assert load.failed == []
        assert reason_of(agent).startswith("latency")
        assert load.answers[-1].model_version == "factory"
