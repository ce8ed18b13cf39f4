"""Crashes between storing and doing, and controllers that do not know of one another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from cloud_tier.rollouts.committing import Change, Kept
from fakes.catalogue import Cloud
from fakes.rollout_fleet import Fleet, digest
from fakes.waiting import eventually
from runtime.core.rollout import conflicts
from runtime.core.rollout_states import Execution, Phase
from runtime.errors import RolloutConflictError
from runtime.messages import ItemKind


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    cloud = Cloud(tmp_path / "repository")
    for version in (1, 2, 3):
        cloud.publish(version)
    async with Fleet(tmp_path, cloud, 16) as fleet:
        await fleet.pass_time()
        yield fleet


async def test_what_was_stored_and_not_said_is_said_by_the_next_life(fleet: Fleet) -> None:
    service = fleet.service
    await service.start()
    post = service.controller._post
    # The crash: states and numbers are stored, and nothing leaves.
    service.controller._post = _Silent()  # type: ignore[assignment]
    await service.controller.tick()
    offered = [
        one.id
        for one in (await fleet.kept()).rollout.devices.values()
        if one.state is Execution.OFFERED
    ]
    assert len(offered) == 3
    assert not [one for one in fleet.devices if one.heard]
    service.controller._post = post

    again = fleet.serve("c2")
    await again.controller.take_over()
    await eventually(lambda: sum(bool(one.heard) for one in fleet.devices) == 3)

    assert {f"{one.region}/{one.site}" for one in fleet.devices if one.obeyed} == set(offered)
    kept = await fleet.kept()
    assert (kept.rollout.holder, kept.rollout.epoch) == ("c2", 2)
    assert {one.seq for one in fleet.devices if one.heard} == {1}


async def test_a_broker_that_has_lost_what_it_retained_is_told_again(fleet: Fleet) -> None:
    for device in fleet.devices:
        device.is_online = False
    await fleet.service.start()
    await fleet.service.controller.tick()
    await eventually(lambda: sum(bool(one.heard) for one in fleet.devices) == 3)
    told = [one for one in fleet.devices if one.heard]

    await fleet.service.controller.tick()
    fleet.clock.advance(61)
    await fleet.service.controller.tick()
    await eventually(lambda: all(len(one.heard) == 2 for one in told))

    # The same words under the same number.
    assert all(one.heard[0] == one.heard[1] for one in told)


async def test_one_controller_holds_a_store_and_the_other_stops(fleet: Fleet) -> None:
    first = fleet.service
    await first.start()
    second = fleet.serve("c2")
    await second.controller.take_over()
    revision = (await fleet.kept()).rollout.revision

    await first.controller.tick()
    with pytest.raises(RolloutConflictError, match="the controller 'c2' holds"):
        await first.ask("pause")
    assert (await fleet.kept()).rollout.revision == revision
    fleet.service = second
    await fleet.pass_time()
    kept = await second.ask("pause")

    assert kept.rollout.phase is Phase.PAUSED
    assert sum(bool(one.obeyed) for one in fleet.devices) == 3
    assert {one.seq for one in fleet.devices} == {0, 1}


async def test_a_state_that_somebody_else_has_changed_is_not_overwritten(fleet: Fleet) -> None:
    service = fleet.service
    stale = await service.start()
    await service.ask("pause")
    after = replace(stale.rollout, wave=7, revision=stale.rollout.revision + 1)

    with pytest.raises(RolloutConflictError, match="r1 was changed by somebody else"):
        await service.store.commit("c1", Change(stale, after, ()), fleet.clock.wall_s())

    kept = await fleet.kept()
    assert (kept.rollout.phase, kept.rollout.wave) == (Phase.PAUSED, 0)


async def test_an_id_is_used_once(fleet: Fleet) -> None:
    await fleet.service.start(is_draft=True)

    with pytest.raises(RolloutConflictError, match="there is a rollout r1 already"):
        await fleet.service.start(is_draft=True)


async def test_controllers_with_stores_of_their_own_are_told_apart_by_numbers(
    fleet: Fleet,
) -> None:
    """A device follows the highest number; who is outbid finds out, and does not go on."""
    first = fleet.service
    await first.start()
    await first.controller.tick()
    await eventually(lambda: sum(bool(one.obeyed) for one in fleet.devices) == 3)
    canaries = [one for one in fleet.devices if one.obeyed]
    # The other store knows what devices say, and nothing of the first controller.
    other = fleet.serve("c2", "elsewhere")
    await other.controller.take_over()
    fleet.service = other
    await fleet.report_all()
    await other.start(3, settings={"shares": [1.0]})
    await other.controller.tick()
    await eventually(lambda: all(one.serving == digest(3) for one in fleet.devices))

    assert {one.seq for one in canaries} == {2}
    assert {one.seq for one in fleet.devices if one not in canaries} == {1}
    assert [len(one.obeyed) for one in canaries] == [2, 2, 2]
    first_hears = fleet.tier.receiver
    assert first_hears is not None
    first_hears.appliers = {ItemKind.UPDATE: first.controller.hear}
    await fleet.report_all()
    await first.controller.tick()
    lost = (await first.store.get("r1")).rollout

    reasons = {one.reason for one in lost.devices.values() if one.has_failed}
    assert reasons == {"another controller has told it something, as number 2"}
    assert lost.phase in (Phase.ROLLING_BACK, Phase.ROLLED_BACK)


async def test_an_older_number_changes_nothing_on_a_device(fleet: Fleet) -> None:
    await fleet.service.start()
    await fleet.settle()
    device = next(one for one in fleet.devices if one.obeyed)
    told = device.obeyed[0]

    await fleet.service.ask("rollback")
    await fleet.settle()
    fleet.service.controller._post.send([told])
    await eventually(lambda: len(device.heard) == 3)

    assert device.serving == digest(1)
    assert [one.do.value for one in device.obeyed] == ["trial", "roll_back"]


async def test_devices_have_one_change_at_a_time(fleet: Fleet) -> None:
    await fleet.service.start()
    await fleet.service.controller.tick()
    kept = await fleet.kept()

    tick = conflicts(replace(kept.rollout, id="r0", started_s=0.0), [kept.rollout])

    moving = {one.id for one in kept.rollout.devices.values() if one.state is Execution.OFFERED}
    assert tick.busy == moving


async def test_a_step_that_crashes_costs_no_other_rollout(fleet: Fleet) -> None:
    service = fleet.service
    broken = await service.start()
    # A state that no step leads to: a wave of which the plan has no share.
    after = replace(broken.rollout, wave=9, soak_s=0.0, revision=broken.rollout.revision + 1)
    await service.store.commit("c1", Change(broken, after, ()), fleet.clock.wall_s())
    good = broken._replace(
        rollout=replace(broken.rollout, id="r2", group="other", revision=0, devices={})
    )
    await service.store.add("c1", good)

    await service.store.commit(
        "c1", Change(good, replace(good.rollout, revision=1), ()), fleet.clock.wall_s()
    )
    await fleet.report_all()
    with capture_logs() as lines:
        await service.controller.tick()

    assert [one["rollout"] for one in lines if one["event"] == "rollout.crashed"] == ["r1"]
    joined = (await fleet.kept("r2")).rollout.devices
    assert len(joined) == 16


async def test_a_change_in_between_is_stepped_again(fleet: Fleet) -> None:
    """Another process pauses while this one steps; its reports are not lost with the step."""
    service = fleet.service
    await service.start()
    await fleet.report_all()
    live = service.store.live

    async def late() -> list[Kept]:
        found = await live()
        stale = found[0]
        after = replace(stale.rollout, asked="changed", revision=stale.rollout.revision + 1)
        await service.store.commit("c1", Change(stale, after, ()), fleet.clock.wall_s())
        return found

    service.store.live = late  # type: ignore[method-assign]
    with capture_logs() as lines:
        await service.controller.tick()
    service.store.live = live  # type: ignore[method-assign]

    assert [one["event"] for one in lines if one["log_level"] == "warning"] == ["rollout.conflict"]
    assert len(await service.register.waiting(100)) == 16
    await service.controller.tick()
    assert (await fleet.kept()).rollout.asked == "changed"
    assert await service.register.waiting(100) == []


class _Silent:
    def send(self, wanted: object) -> int:
        del wanted
        return 0

    def flush(self) -> None:
        """Nothing leaves."""

    def announce(self, action: object) -> None:
        """Nothing leaves."""
