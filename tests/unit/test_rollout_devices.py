"""What devices say and do not say: silence, lies, faults, and who is asked at all."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from fakes.rollouts import BEGIN_S, HEALTHY, SETTINGS, TARGET, Fleet, fleet
from runtime.core.rollout import outstanding
from runtime.core.rollout_events import (
    Assign,
    Beat,
    Command,
    Fault,
    Heartbeats,
    Report,
    RollBack,
    Tick,
    Unassign,
)
from runtime.core.rollout_settings import Rollback, Window
from runtime.core.rollout_states import Execution, HardFault, Phase

MANUAL = replace(SETTINGS, rollback=Rollback.MANUAL)
TWO_KINDS = ("pi5", "orin")


def offered(one: Fleet) -> list[str]:
    one.beat()
    one.tick()
    return one.names(Execution.OFFERED)


def confirmed(one: Fleet) -> list[str]:
    one.settle()
    return one.names(Execution.CONFIRMED)


def test_downloaded_and_verified_is_no_success() -> None:
    one = fleet()
    (name, *_) = offered(one)
    path = []
    for state in (Execution.DOWNLOADING, Execution.VERIFIED, Execution.TRIAL):
        one.say(name, state)
        path.append(one.rollout.devices[name].state)
        assert not one.rollout.devices[name].is_in_sync
    one.say(name, Execution.CONFIRMED, serving=TARGET)

    assert path == [Execution.DOWNLOADING, Execution.VERIFIED, Execution.TRIAL]
    assert one.rollout.devices[name].state is Execution.CONFIRMED
    assert one.rollout.devices[name].is_in_sync


def test_who_confirms_with_another_digest_has_failed() -> None:
    one = fleet()
    (name, *_) = offered(one)
    one.say(name, Execution.CONFIRMED, serving="old-model")

    record = one.rollout.devices[name]
    assert (record.state, record.has_failed) == (Execution.ROLLED_BACK, True)
    assert "old-model" in record.reason


def test_a_heartbeat_with_another_digest_is_believed_more_than_the_success() -> None:
    one = fleet()
    (name, *_) = confirmed(one)
    one.fleet[name].serving = f"old-{name}"
    one.beat(name)

    record = one.rollout.devices[name]
    assert (record.state, record.has_failed, record.is_in_sync) == (
        Execution.ROLLED_BACK,
        True,
        False,
    )


def test_an_old_heartbeat_says_nothing_about_a_later_assignment() -> None:
    one = fleet()
    (name, *_) = confirmed(one)
    one.tell(Heartbeats((Beat(name, f"old-{name}", 0),)))

    assert one.rollout.devices[name].state is Execution.CONFIRMED


def test_reports_of_another_assignment_or_of_the_past_change_nothing() -> None:
    one = fleet()
    (name, *_) = offered(one)
    one.tell(Report(name, 77, Execution.CONFIRMED, TARGET))
    one.say(name, Execution.TRIAL)
    one.say(name, Execution.DOWNLOADING)
    one.say(name, Execution.PENDING)

    assert one.rollout.devices[name].state is Execution.TRIAL


@pytest.mark.parametrize("state", [Execution.REJECTED, Execution.ROLLED_BACK])
def test_a_device_says_why_it_does_not_run_it(state: Execution) -> None:
    one = fleet()
    (name, *_) = offered(one)
    one.say(name, state, reason="no room" * 1000)

    record = one.rollout.devices[name]
    assert (record.state, record.has_failed) == (state, True)
    assert len(record.reason) == 200
    assert one.is_running


def test_a_digest_of_a_megabyte_is_not_kept() -> None:
    one = fleet()
    one.tell(Heartbeats((Beat("d00", "x" * 10**6),)))

    assert len(one.rollout.devices["d00"].serving) == 128


@pytest.mark.parametrize(
    "state", [Execution.OFFERED, Execution.DOWNLOADING, Execution.VERIFIED, Execution.TRIAL]
)
def test_silence_becomes_a_failure_in_every_state(state: Execution) -> None:
    one = fleet()
    (name, *others) = offered(one)
    for other in others:
        one.obey(other)
    one.say(name, state)
    assert one.rollout.devices[name].state is state
    one.tick(599)
    assert one.rollout.devices[name].state is state

    one.tick(1)

    record = one.rollout.devices[name]
    assert (record.state, record.has_failed) == (Execution.TIMED_OUT, True)
    assert one.is_running


def test_silence_of_several_ends_the_rollout() -> None:
    one = fleet()
    offered(one)
    one.tick(600)

    assert one.is_in(Phase.ROLLING_BACK)
    assert set(one.states().values()) == {Execution.RETURNING, Execution.CANCELLED}


def test_one_silent_device_ends_nothing_and_what_it_was_told_is_taken_back() -> None:
    one = fleet()
    (name, *others) = offered(one)
    for other in others:
        one.obey(other)
    one.tick(600)

    assert one.rollout.devices[name].state is Execution.TIMED_OUT
    assert [a.device for a in one.of(Unassign) if isinstance(a, Unassign)] == [name]
    assert one.is_running
    assert one.rollout.soak_s is not None
    assert [type(a) for a in outstanding(one.rollout)] == [RollBack]


def test_who_is_offline_is_not_asked_and_has_not_failed() -> None:
    one = fleet()
    one.tick(86_400)

    assert set(one.states().values()) == {Execution.PENDING}
    assert not one.of(Assign)
    assert "nobody runs it" in one.rollout.asked


def test_a_shadow_is_kept_alive_by_heartbeats_alone() -> None:
    one = fleet()
    (name, *others) = offered(one)
    for other in others:
        one.obey(other)
    one.say(name, Execution.SHADOW)
    one.tick(500)
    one.beat(name)
    one.tick(599)
    assert one.rollout.devices[name].state is Execution.SHADOW
    one.tick(1)

    assert one.rollout.devices[name].state is Execution.TIMED_OUT


def test_a_device_that_does_not_say_it_is_back_is_named_and_may_still_say_it() -> None:
    one = fleet()
    (name, *_) = confirmed(one)
    one.ask(Command.ROLL_BACK)
    for other in one.fleet:
        if other != name:
            one.obey(other)
    one.beat(*(other for other in one.fleet if other != name))
    assert one.is_in(Phase.ROLLING_BACK)
    one.tell(Heartbeats((Beat(name, f"old-{name}", 1),)))
    assert one.rollout.devices[name].state is Execution.RETURNING, "not in answer to this"
    one.tell(Heartbeats((Beat(name, TARGET, 9),)))
    assert one.rollout.devices[name].state is Execution.RETURNING, "it has not gone yet"
    one.tick(600)
    one.tick()

    assert one.is_in(Phase.ROLLED_BACK)
    assert one.rollout.devices[name].state is Execution.TIMED_OUT
    assert one.rollout.asked.startswith("1 devices")
    one.obey(name)
    one.beat(name)
    assert one.rollout.devices[name].state is Execution.ROLLED_BACK


def test_who_is_back_by_itself_is_not_sent_back_again() -> None:
    one = fleet()
    (name, *_) = offered(one)
    one.say(name, Execution.TRIAL)
    one.say(name, Execution.ROLLED_BACK, reason="slow")
    one.ask(Command.ROLL_BACK)

    assert name not in {a.device for a in one.of(RollBack) if isinstance(a, RollBack)}
    one.ask(Command.ROLL_BACK)


def test_who_rolled_back_to_something_else_is_sent_to_what_it_had() -> None:
    one = fleet()
    (name, *_) = offered(one)
    one.say(name, Execution.ROLLED_BACK, serving="factory")
    one.ask(Command.ROLL_BACK)

    assert RollBack(name, f"old-{name}", 2) in one.of(RollBack)


def test_one_hard_fault_stops_its_hardware_class_only() -> None:
    one = fleet(hardware=TWO_KINDS)
    (name, *_) = offered(one)
    kind = one.rollout.devices[name].hardware
    one.fleet[name].told = None
    one.say(name, Execution.ROLLED_BACK, fault=HardFault.OUT_OF_MEMORY)
    one.settle()
    one.look(HEALTHY)
    one.settle()
    one.look(HEALTHY)
    one.settle()
    one.look(HEALTHY)

    assert one.is_in(Phase.DONE)
    assert "out_of_memory" in one.rollout.stopped_hardware[kind]
    for record in one.rollout.devices.values():
        assert (record.state is Execution.CONFIRMED) == (record.hardware != kind)
    assert all(
        device.serving.startswith("old") == (one.rollout.devices[name].hardware == kind)
        for name, device in one.fleet.items()
    )


def test_faults_in_all_classes_end_the_rollout() -> None:
    one = fleet()
    (name, *_) = confirmed(one)
    one.tell(Fault(name, HardFault.NOT_A_NUMBER))

    assert one.is_in(Phase.ROLLING_BACK)
    one.settle()
    assert one.is_in(Phase.ROLLED_BACK)
    assert all(device.serving.startswith("old") for device in one.fleet.values())
    one.tell(Fault(name, HardFault.CRASH_LOOP))
    assert one.rollout.faults == {name: "not_a_number"}


def test_a_fault_counts_devices_and_k_of_them_are_needed() -> None:
    one = fleet(replace(SETTINGS, hard_faults=2))
    first, second, _ = confirmed(one)
    one.tell(Fault(first, HardFault.CRASH_LOOP))
    one.tell(Fault(first, HardFault.CRASH_LOOP))
    assert one.is_running
    one.tell(Fault(second, HardFault.CRASH_LOOP))

    assert one.is_in(Phase.ROLLING_BACK)


def test_a_fault_of_a_device_that_was_not_asked_is_not_ours() -> None:
    one = fleet()
    one.tell(Fault("d00", HardFault.CRASH_LOOP))

    assert not one.rollout.faults


def test_faults_stop_a_class_without_rolling_back_where_that_is_manual() -> None:
    one = fleet(MANUAL, hardware=TWO_KINDS)
    (name, *_) = confirmed(one)
    kind = one.rollout.devices[name].hardware
    one.tell(Fault(name, HardFault.LOAD_FAILED))

    assert one.is_running
    assert one.rollout.devices[name].state is Execution.CONFIRMED
    for record in one.rollout.devices.values():
        if record.hardware == kind:
            assert record.state is not Execution.PENDING


def test_a_fault_after_the_end_is_for_an_operator_where_rollback_is_manual() -> None:
    one = fleet(MANUAL)
    for _ in SETTINGS.shares:
        one.settle()
        one.look(HEALTHY)
    one.tell(Fault("d00", HardFault.CRASH_LOOP))

    assert one.is_in(Phase.DONE)
    assert "crash_loop" in one.rollout.asked


def test_a_fault_while_everything_is_aborted_only_counts() -> None:
    one = fleet(MANUAL)
    (name, *_) = confirmed(one)
    one.ask(Command.ABORT)
    one.tell(Fault(name, HardFault.CRASH_LOOP))

    assert one.rollout.faults
    assert not one.rollout.stopped_hardware


def test_no_more_devices_are_on_their_way_than_a_region_can_take() -> None:
    one = fleet(replace(SETTINGS, max_in_flight=1))
    one.beat()
    for _ in range(5):
        one.tick()

    regions = [one.rollout.devices[name].region for name in one.names(Execution.OFFERED)]
    assert sorted(regions) == sorted(set(regions))


def test_no_more_devices_are_asked_in_a_minute_than_allowed() -> None:
    one = fleet(replace(SETTINGS, assignments_per_minute=2))
    one.beat()
    one.tick()
    one.tick(59)
    assert len(one.of(Assign)) == 2
    one.tick(1)

    assert len(one.of(Assign)) == 3


def test_a_region_that_is_mostly_offline_is_left_alone() -> None:
    one = fleet()
    online = [name for name, record in one.rollout.devices.items() if record.region == "us"]
    one.beat(*online)
    one.tick()

    asked = {one.rollout.devices[name].region for name in one.names(Execution.OFFERED)}
    assert asked == {"us"}


def test_outside_its_maintenance_window_a_region_is_left_alone() -> None:
    at_s = BEGIN_S % 86_400
    windows = {"eu": (Window(at_s + 60, at_s + 3600),), "us": (Window(at_s - 60, at_s + 3600),)}
    one = fleet(replace(SETTINGS, windows=windows))
    one.beat()
    one.tick()
    first = {one.rollout.devices[name].region for name in one.names(Execution.OFFERED)}
    one.tick(60)

    assert first == {"us"}
    assert {one.rollout.devices[name].region for name in one.names(Execution.OFFERED)} == {
        "us",
        "eu",
    }


def test_waves_after_the_canaries_reach_regions_one_after_another() -> None:
    one = fleet(replace(SETTINGS, stagger_window_s=10_000.0))
    one.settle()
    one.look(HEALTHY)
    asked = []
    for _ in range(50):
        one.beat()
        one.tick(250)
        for name in one.fleet:
            one.obey(name)
        fresh = [one.rollout.devices[a.device] for a in one.of(Assign) if isinstance(a, Assign)]
        asked.append({record.region for record in fresh if record.wave == 1})

    assert set() in asked
    assert {len(regions) for regions in asked} >= {0, 1, 2}


def test_busy_devices_and_groups_wait() -> None:
    one = fleet()
    one.beat()
    one.tell(Tick(is_group_busy=True))
    assert not one.of(Assign)
    canaries = [record.id for record in one.rollout.devices.values() if record.wave == 0]
    one.tell(Tick(busy=frozenset(canaries[:1])))

    assert set(one.names(Execution.OFFERED)) == set(canaries[1:])


def test_a_device_that_serves_it_already_is_left_as_it_is() -> None:
    one = fleet()
    for device in one.fleet.values():
        device.serving = TARGET
    for _ in range(4):
        one.beat()
        one.tick()

    assert not one.of(Assign)
    assert one.is_in(Phase.DONE)
    assert set(one.states().values()) == {Execution.CONFIRMED}


def test_numbers_of_earlier_rollouts_are_not_used_again() -> None:
    one = fleet()
    for device in one.fleet.values():
        device.seq = 41
    one.beat()
    one.tick()

    assert {a.seq for a in one.of(Assign) if isinstance(a, Assign)} == {42}


def test_a_wave_waits_for_who_is_online_and_not_for_ever_for_who_is_not() -> None:
    one = fleet()
    some = [record.id for record in one.rollout.devices.values() if record.wave == 0]
    others = [name for name in one.fleet if name not in some[:1]]
    for _ in range(3):
        one.beat(*others)
        one.tick()
        for name in some[1:]:
            one.obey(name)
    assert one.rollout.soak_s is None, "a third of the canaries is missing"
    one.tick(SETTINGS.fill_s)

    assert one.rollout.soak_s is not None


def test_a_large_wave_does_not_wait_for_the_few_that_are_offline() -> None:
    one = fleet(replace(SETTINGS, shares=(0.6, 1.0), alpha_shares=(0.5, 0.5)))
    (lost, *rest) = [record.id for record in one.rollout.devices.values() if record.wave == 0]
    for _ in range(3):
        one.beat(*(name for name in one.fleet if name != lost))
        one.tick()
        for name in rest:
            one.obey(name)
    one.tick()

    assert one.rollout.soak_s is not None
    assert one.rollout.devices[lost].state is Execution.PENDING


def test_what_was_not_reached_ends_with_the_rollout() -> None:
    one = fleet()
    lost = one.fleet.pop(next(r.id for r in one.rollout.devices.values() if r.wave == 2))
    for _ in SETTINGS.shares:
        one.settle()
        one.look(HEALTHY)

    assert one.is_in(Phase.DONE)
    assert one.rollout.devices[lost.id].state is Execution.CANCELLED
    assert not one.rollout.devices[lost.id].has_failed


def test_an_assignment_is_void_when_its_time_is_over() -> None:
    one = fleet()
    offered(one)
    told = [a for a in one.of(Assign) if isinstance(a, Assign)]

    assert {a.not_after_s for a in told} == {BEGIN_S + SETTINGS.deadlines.offered}
