"""Thirty devices and a controller: a good version gets through, a bad one goes back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cloud_tier.rollouts.requests import StartRequest
from fakes.catalogue import Cloud
from fakes.rollout_fleet import FakeDevice, Fleet, digest, up_item
from fakes.waiting import eventually
from runtime import topics
from runtime.assignments import decode_announcement
from runtime.core.gate import Verdict
from runtime.core.rollout_states import Execution, Phase
from runtime.errors import RequestError, RolloutError, UnknownRolloutError
from runtime.exchange.items import up_message
from runtime.ports import Message


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    cloud = Cloud(tmp_path / "repository")
    for version in (1, 2):
        cloud.publish(version)
    async with Fleet(tmp_path, cloud) as fleet:
        await fleet.baseline()
        yield fleet


async def test_a_good_version_reaches_everybody_wave_by_wave(fleet: Fleet) -> None:
    await fleet.service.start()

    kept = await fleet.until("done")

    assert {one.serving for one in fleet.devices} == {digest(2)}
    assert {one.state for one in kept.rollout.devices.values()} == {Execution.CONFIRMED}
    assert {len(one.obeyed) for one in fleet.devices} == {1}
    rows = await fleet.service.store.history("r1")
    assert [row.now for row in rows if not row.device] == [
        "approved", "canary", "wave", "wave", "done",
    ]  # fmt: skip


async def test_a_bad_version_goes_back_and_few_ever_ran_it(fleet: Fleet) -> None:
    for device in fleet.devices:
        device.error_rate[digest(2)] = 0.1
    await fleet.service.start()

    kept = await fleet.until("rolled_back")

    ran = {one.site for one in fleet.devices if digest(2) in one.ran}
    assert {one.serving for one in fleet.devices} == {digest(1)}
    assert len(ran) == 3
    has_run = {one.id for one in kept.rollout.devices.values() if one.has_run}
    assert {name.partition("/")[2] for name in has_run} == ran
    moves = [row for row in await fleet.service.store.history("r1") if not row.device]
    assert [row.now for row in moves][-2:] == ["rolling_back", "rolled_back"]
    assert "errors: breach" in moves[-2].why


async def test_a_shadow_that_agrees_goes_on_to_the_canaries(fleet: Fleet) -> None:
    shadow = {"min_requests": 1000, "max_disagreement": 0.05, "max_s": 7200.0}
    await fleet.service.start(settings={"shadow": shadow})

    kept = await fleet.until("canary", "aborted")

    assert kept.rollout.phase is Phase.CANARY
    history = await fleet.service.store.history("r1")
    assert "answers in shadow differ" in next(row.why for row in history if row.now == "canary")


async def test_a_device_that_comes_later_is_in_the_last_wave(fleet: Fleet) -> None:
    late = FakeDevice("late", "eu", fleet.device_bus, fleet.signer)
    late.listen("cloud")
    await fleet.service.start()
    fleet.devices.append(late)
    await fleet.settle()
    await fleet.pass_time()

    kept = await fleet.kept()

    assert kept.rollout.devices["eu/late"].wave == 2


async def test_a_hard_fault_stops_everything_where_there_is_one_class(fleet: Fleet) -> None:
    await fleet.service.start()
    await fleet.service.controller.tick()
    await eventually(lambda: sum(bool(one.obeyed) for one in fleet.devices) == 3)
    (sick, *_) = [one for one in fleet.devices if one.obeyed]
    fleet.send(sick.report(state="rejected", fault="load_failed", reason="no such operator"))
    await eventually(lambda: fleet.words)

    kept = await fleet.until("rolled_back")

    assert kept.rollout.faults == {f"{sick.region}/{sick.site}": "load_failed"}
    assert {one.serving for one in fleet.devices} == {digest(1)}


async def test_regions_are_told_beforehand_what_they_will_be_asked_for(fleet: Fleet) -> None:
    heard: list[Message] = []
    fleet.device_bus.subscribe(topics.announcement("cloud", "+"), heard.append, qos=1)
    await fleet.service.start()
    kept = await fleet.kept()
    regions = {one.region for one in kept.rollout.devices.values() if one.wave == 0}
    await eventually(lambda: len(heard) >= len(regions))

    told = {one.region: one.paths for one in (decode_announcement(m.payload) for m in heard)}

    assert told == dict.fromkeys(regions, ("m/2.json",))


async def test_a_newer_rollout_supersedes_what_is_done_and_not_what_runs(fleet: Fleet) -> None:
    fleet.cloud.publish(3)
    await fleet.service.start()
    with pytest.raises(RolloutError, match="r1 of the same model is canary: abort it"):
        await fleet.service.start(3, id="r2")
    await fleet.until("done")
    await fleet.service.start(3, id="r2")
    for _ in range(40):
        await fleet.pass_time()
        if (await fleet.kept("r2")).rollout.phase is Phase.DONE:
            break

    first, second = await fleet.kept("r1"), await fleet.kept("r2")

    assert first.rollout.phase is Phase.SUPERSEDED
    assert second.rollout.phase is Phase.DONE
    assert {one.serving for one in fleet.devices} == {digest(3)}
    assert {one.has_failed for one in first.rollout.devices.values()} == {False}
    # Numbers of one device go over all rollouts.
    assert {one.seq for one in fleet.devices} == {2}


async def test_what_cannot_begin_is_not_kept(fleet: Fleet) -> None:
    service = fleet.service
    with pytest.raises(RolloutError, match=r"m/9.json is not in the catalogue: published are m/1"):
        await service.start(9)
    with pytest.raises(RequestError, match="a plan has no share; there are shares"):
        await service.start(settings={"share": [1.0]})
    with pytest.raises(RequestError, match=r"a plan has no gate.alfa"):
        await service.start(settings={"gate": {"alfa": 0.1}})
    with pytest.raises(RequestError, match="shares of waves have to rise"):
        await service.start(settings={"shares": [0.5, 0.2]})

    assert await service.store.all() == []


async def test_a_draft_begins_when_somebody_else_approves(fleet: Fleet) -> None:
    await fleet.service.start(is_draft=True)
    await fleet.pass_time()
    assert (await fleet.kept()).rollout.phase is Phase.DRAFT
    with pytest.raises(RolloutError, match="somebody else approves"):
        await fleet.service.ask("approve")

    kept = await fleet.service.ask("approve", by="ben")

    assert kept.rollout.phase is Phase.CANARY
    assert kept.rollout.devices


async def test_operators_pause_resume_abort_and_return(fleet: Fleet) -> None:
    service = fleet.service
    await service.start()
    assert (await service.ask("pause")).rollout.phase is Phase.PAUSED
    with pytest.raises(RolloutError, match="a rollout that is paused cannot pause"):
        await service.ask("pause")
    await fleet.pass_time()
    assert not [one for one in fleet.devices if one.obeyed]
    assert (await service.ask("resume")).rollout.phase is Phase.CANARY
    with pytest.raises(RolloutError, match="only where an operator was asked"):
        await service.ask("promote")
    await fleet.pass_time()
    num = len([one for one in fleet.devices if one.obeyed])
    assert (await service.ask("abort")).rollout.phase is Phase.ABORTED
    await fleet.pass_time()
    assert len([one for one in fleet.devices if one.serving == digest(2)]) == num == 3
    assert (await service.ask("rollback")).rollout.phase is Phase.ROLLING_BACK

    kept = await fleet.until("rolled_back")

    assert {one.serving for one in fleet.devices} == {digest(1)}
    assert {row.who for row in await service.store.history("r1")} >= {"operator:anna"}
    assert kept.rollout.phase is Phase.ROLLED_BACK
    with pytest.raises(UnknownRolloutError, match="there is no rollout 'r9'"):
        await service.ask("pause", "r9")
    with pytest.raises(RequestError, match="no command 'stop'"):
        await service.ask("stop")


async def test_a_wave_without_requests_asks_and_can_be_promoted(fleet: Fleet) -> None:
    await fleet.service.start()
    for _ in range(8):
        fleet.clock.advance(300)
        await fleet.report_all()
        await fleet.settle()
    asked = (await fleet.kept()).rollout
    assert asked.phase is Phase.CANARY
    assert "last look" in asked.asked

    kept = await fleet.service.ask("promote")

    assert kept.rollout.wave == 1


async def test_audits_are_judged_where_enough_of_them_disagree(fleet: Fleet) -> None:
    """All counts but those of audits are as before; there the new version is ten times as bad."""
    for device in fleet.devices:
        device.wrong_share = {digest(1): 0.02, digest(2): 0.2}
    await fleet.baseline()
    await fleet.service.start()

    kept = await fleet.until("rolled_back")

    assert kept.rollout.judgement is not None
    verdicts = {one.metric: one.verdict for one in kept.rollout.judgement.findings}
    assert verdicts == {
        "errors": Verdict.HEALTHY,
        "escalations": Verdict.HEALTHY,
        "slow answers": Verdict.HEALTHY,
        "disagreement": Verdict.BREACH,
    }


async def test_few_audits_do_not_hold_a_good_version_up(fleet: Fleet) -> None:
    fleet.devices[0].wrong_share = {digest(1): 0.001, digest(2): 0.001}
    await fleet.baseline()
    await fleet.service.start()

    kept = await fleet.until("done")

    assert kept.rollout.judgement is not None
    assert "disagreement" not in {one.metric for one in kept.rollout.judgement.findings}


async def test_after_one_that_went_back_a_better_one_begins(fleet: Fleet) -> None:
    for device in fleet.devices:
        device.error_rate[digest(2)] = 0.1
    fleet.cloud.publish(3)
    await fleet.service.start()
    await fleet.until("rolled_back")

    await fleet.service.start(3, id="r2")
    await fleet.pass_time()

    live = [kept.rollout.id for kept in await fleet.service.store.live()]
    assert live == ["r2"]
    assert sum(one.serving == digest(3) for one in fleet.devices) == 3


async def test_a_version_of_a_region_is_for_its_devices_alone(fleet: Fleet) -> None:
    fleet.cloud.add_region("eu")
    fleet.cloud.publish(1, region="eu")

    kept = await fleet.service.start(1, region="eu")

    assert {one.region for one in kept.rollout.devices.values()} == {"eu"}
    assert len(kept.rollout.devices) == 10


async def test_devices_that_were_silent_for_long_join_when_they_are_back(fleet: Fleet) -> None:
    away = fleet.devices[:2]
    for device in away:
        device.is_online = False
    for _ in range(6):
        fleet.clock.advance(5 * 3600)
        await fleet.report_all()
        await fleet.settle()
    await fleet.baseline()
    kept = await fleet.service.start()
    assert set(kept.rollout.left_out.values()) == {"silent for 30 h"}
    for device in away:
        device.is_online = True
    await fleet.pass_time()

    kept = await fleet.kept()

    assert [kept.rollout.devices[f"{one.region}/{one.site}"].wave for one in away] == [2, 2]


async def test_without_devices_nothing_begins(fleet: Fleet) -> None:
    fleet.cloud.publish(1, model="other")
    request = StartRequest(model="other", version=1, by="anna", why="new")

    with pytest.raises(RolloutError, match="no device has reported that it runs other"):
        await fleet.service.desk.start(request)

    assert await fleet.service.store.all() == []


async def test_what_is_not_known_here_is_nothing_to_follow(fleet: Fleet) -> None:
    await fleet.service.start()
    await fleet.service.controller.tick()
    await eventually(lambda: sum(bool(one.obeyed) for one in fleet.devices) == 3)
    (one, *_) = [one for one in fleet.devices if one.obeyed]
    before = (await fleet.kept()).rollout.devices[f"{one.region}/{one.site}"]
    later: dict[str, Any] = {"state": "sublimated", "fault": "flood", "serving": digest(1)}
    fleet.send(one.report(**later))
    fleet.send(one.report(**{**later, "seq": 0}))
    await eventually(lambda: len(fleet.words) == 2)
    await fleet.service.controller.tick()

    after = (await fleet.kept()).rollout

    assert after.devices[before.id].state is before.state is Execution.OFFERED
    assert after.faults == {}


async def test_what_has_waited_in_an_outbox_is_no_sign_of_life(fleet: Fleet) -> None:
    """A region is back after an hour, and brings what devices said before they were gone."""
    for device in fleet.devices:
        device.is_online = False
    fleet.clock.advance(3600)
    await fleet.service.start()
    for device in fleet.devices:
        item = up_item(device.report(), fleet.clock.wall_s() - 3000)
        topic = topics.up("cloud", "gw")
        fleet.device_bus.publish(up_message(item, topic, fleet.clock.wall_s()))
    await eventually(lambda: len(fleet.words) == 30)
    await fleet.service.controller.tick()

    states = {one.state for one in (await fleet.kept()).rollout.devices.values()}

    assert states == {Execution.PENDING}
