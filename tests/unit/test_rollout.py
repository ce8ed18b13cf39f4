"""A rollout step by step: what moves it on, what stops it, and who may ask for what."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from fakes.rollouts import (
    BEGIN_S,
    BROKEN,
    HEALTHY,
    OPERATOR,
    SETTINGS,
    TARGET,
    UNCLEAR,
    Fleet,
    devices,
    fleet,
)
from runtime.core.cohorts import Device
from runtime.core.gate import Verdict
from runtime.core.rollout import conflicts, outstanding, step
from runtime.core.rollout_events import (
    Actor,
    Announce,
    AnyEvent,
    Ask,
    AskOperator,
    Assign,
    Audit,
    Beat,
    Command,
    Fault,
    Figures,
    Heartbeats,
    Join,
    Measure,
    Refuse,
    Report,
    Role,
    RollBack,
    ShadowFigures,
    Start,
    TakeOver,
    Tick,
    Unassign,
)
from runtime.core.rollout_settings import (
    Deadlines,
    Rollback,
    RolloutSettings,
    ShadowSettings,
    Window,
)
from runtime.core.rollout_states import (
    MOVES,
    TERMINAL,
    TRANSITIONS,
    Cause,
    DeviceRecord,
    Execution,
    HardFault,
    Phase,
    Rollout,
)
from runtime.core.rollout_turn import Turn
from runtime.core.rollout_waves import stage_name

MANUAL = replace(SETTINGS, rollback=Rollback.MANUAL)
SHADOW = replace(SETTINGS, shadow=ShadowSettings(min_requests=1000, max_s=1800))
GATEWAY = Actor(Role.GATEWAY, "gw-1")


def in_canary(settings: RolloutSettings = SETTINGS, **more: Any) -> Fleet:
    """The canaries run it, and are being judged."""
    one = fleet(settings, **more)
    one.settle()
    assert one.rollout.soak_s is not None
    return one


def in_wave(settings: RolloutSettings = SETTINGS, **more: Any) -> Fleet:
    one = in_canary(settings, **more)
    one.look(HEALTHY)
    one.settle()
    assert one.rollout.wave == 1
    return one


def refused(actions: tuple[Any, ...]) -> bool:
    return any(isinstance(action, Refuse) for action in actions)


def test_a_good_model_reaches_everybody_wave_by_wave() -> None:
    one = fleet()
    asked = []
    for _ in SETTINGS.shares:
        one.settle()
        asked.append(sum(record.was_asked for record in one.rollout.devices.values()))
        one.look(HEALTHY)

    assert one.is_in(Phase.DONE)
    assert asked == [3, 6, 16]
    assert set(one.states().values()) == {Execution.CONFIRMED}
    assert all(device.serving == TARGET for device in one.fleet.values())
    assert all(record.is_in_sync for record in one.rollout.devices.values())
    assert refused(one.ask(Command.PAUSE))


def test_every_transition_is_audited() -> None:
    one = in_wave()
    trail = [a for a in one.of(Audit) if isinstance(a, Audit)]

    phases = [(a.was, a.now) for a in trail if not a.device]
    assert phases == [("draft", "approved"), ("approved", "canary"), ("canary", "wave")]
    assert trail[0].who == "operator:anna"
    assert trail[0].why == "because"
    for name, state in one.states().items():
        own = [a for a in trail if a.device == name]
        path = [Execution.PENDING, *(Execution(a.now) for a in own)]
        assert [a.was for a in own] == path[:-1]
        assert path[-1] is state
        assert all(a.at_s >= BEGIN_S and a.why for a in own)


def test_gateways_hear_of_a_wave_before_it_asks_them() -> None:
    one = in_canary(replace(SETTINGS, stagger_window_s=5000.0))
    first = [a for a in one.of(Announce) if isinstance(a, Announce)]
    one.actions.clear()
    one.look(HEALTHY)
    later = [a for a in one.of(Announce) if isinstance(a, Announce)]

    assert {a.stage for a in first} == {"canary"}
    assert {a.stage for a in later} == {"25 %"}
    assert all(a.from_s == BEGIN_S for a in first)
    assert all(one.now_s <= a.from_s < one.now_s + 5000 for a in later)


def test_time_alone_promotes_nothing_and_an_operator_is_asked_once() -> None:
    one = in_canary()
    one.look(UNCLEAR)
    asked = [*one.look(UNCLEAR), *one.tick(86_400), *one.tick(86_400)]

    assert one.is_in(Phase.CANARY)
    assert one.rollout.judgement is not None
    assert one.rollout.judgement.verdict is Verdict.PENDING
    assert sum(isinstance(a, AskOperator) for a in asked) == 1
    one.ask(Command.PROMOTE)
    assert one.is_in(Phase.WAVE)
    assert refused(one.ask(Command.PROMOTE))


def test_without_figures_nobody_goes_on() -> None:
    one = in_canary()
    one.look(())
    one.look(())

    assert one.rollout.asked.endswith("no figures") or "last look" in one.rollout.asked
    assert one.is_in(Phase.CANARY)


def test_a_breach_returns_every_device_to_the_version_it_had() -> None:
    one = in_wave()
    one.look(BROKEN)
    assert one.is_in(Phase.ROLLING_BACK)
    one.settle()

    assert one.is_in(Phase.ROLLED_BACK)
    assert all(device.serving == f"old-{name}" for name, device in one.fleet.items())
    assert {a.to for a in one.of(RollBack) if isinstance(a, RollBack)} == {
        f"old-{name}" for name, device in one.fleet.items() if device.ran
    }
    assert set(one.states().values()) == {Execution.ROLLED_BACK, Execution.CANCELLED}
    assert not any(record.has_failed for record in one.rollout.devices.values())


def test_a_breach_keeps_versions_where_rollback_is_manual() -> None:
    one = in_canary(MANUAL)
    one.look(BROKEN)

    assert one.is_in(Phase.ABORTED)
    assert len(one.names(Execution.CONFIRMED)) == 3
    one.ask(Command.ROLL_BACK)
    one.settle()
    assert one.is_in(Phase.ROLLED_BACK)
    assert all(device.serving.startswith("old") for device in one.fleet.values())


def test_an_abort_lets_a_trial_finish_and_takes_back_what_does_not_serve() -> None:
    one = fleet()
    one.beat()
    one.tick()
    trying, waiting, loading = one.names(Execution.OFFERED)
    one.say(trying, Execution.TRIAL)
    one.say(loading, Execution.DOWNLOADING)

    one.ask(Command.ABORT)

    assert one.is_in(Phase.ABORTING)
    assert {a.device for a in one.of(Unassign) if isinstance(a, Unassign)} == {waiting, loading}
    one.fleet[trying].serving = TARGET
    one.say(trying, Execution.CONFIRMED)
    assert one.is_in(Phase.ABORTED)
    assert one.rollout.devices[waiting].is_in_sync
    assert refused(one.ask(Command.ABORT))
    before = one.of(Assign)
    one.settle()
    assert one.of(Assign) == before


def test_a_draft_can_be_aborted() -> None:
    one = Fleet(Rollout("r", "m", TARGET, "g", SETTINGS))
    one.ask(Command.ABORT)

    assert one.is_in(Phase.ABORTED)


def test_a_pause_assigns_nothing_and_goes_on_where_it_was() -> None:
    one = fleet()
    one.ask(Command.PAUSE, GATEWAY)
    one.settle()

    assert one.is_in(Phase.PAUSED)
    assert not one.of(Assign)
    assert refused(one.ask(Command.RESUME, GATEWAY))
    one.ask(Command.RESUME)
    one.settle()
    assert one.is_in(Phase.CANARY)
    assert len(one.names(Execution.CONFIRMED)) == 3


def test_figures_during_a_pause_stop_but_do_not_advance() -> None:
    good, bad = in_canary(), in_canary()
    for one in (good, bad):
        one.ask(Command.PAUSE)
    good.look(HEALTHY)
    bad.look(BROKEN)

    assert bad.is_in(Phase.ROLLING_BACK)
    assert good.is_in(Phase.PAUSED)
    good.ask(Command.RESUME)
    good.tick()
    assert good.is_in(Phase.WAVE)


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        (Role.GATEWAY, {Command.PAUSE}),
        (Role.SECURITY, {Command.PAUSE, Command.ABORT, Command.ROLL_BACK}),
        (
            Role.CONTROLLER,
            {Command.PAUSE, Command.ABORT, Command.ROLL_BACK, Command.SUPERSEDE},
        ),
        (Role.OPERATOR, set(Command)),
    ],
)
def test_who_may_ask_for_what(role: Role, allowed: set[Command]) -> None:
    for command in Command:
        (said,) = [
            a
            for a in step(Rollout("r", "m", "t", "g"), Ask(command, Actor(role, "x"), "w"), 1.0)[1]
            if isinstance(a, Refuse)
        ] or [Refuse("")]
        assert ("may not" in said.why) == (command not in allowed)


def test_a_newer_rollout_supersedes_one_that_rests() -> None:
    one = fleet()
    one.beat()
    one.tick()
    assert refused(one.ask(Command.SUPERSEDE))
    one.ask(Command.PAUSE)
    one.ask(Command.SUPERSEDE)

    assert one.is_in(Phase.SUPERSEDED)
    assert set(one.states().values()) == {Execution.CANCELLED}
    assert len(one.of(Unassign)) == 3
    assert refused(one.ask(Command.RESUME))


def test_starting_needs_an_approval_devices_and_somebody_who_may() -> None:
    one = Fleet(Rollout("r", "m", TARGET, "g", SETTINGS))
    assert refused(one.tell(Start(OPERATOR, devices())))
    one.ask(Command.APPROVE)
    assert refused(one.tell(Start(GATEWAY, devices())))
    assert refused(one.tell(Start(OPERATOR, ())))
    assert refused(one.tell(Start(OPERATOR, devices() + devices())))
    assert refused(one.tell(Start(OPERATOR, (Device("d", "eu", "pi5", "pinned"),))))
    assert one.is_in(Phase.APPROVED)
    assert not one.rollout.devices


def test_who_is_pinned_is_left_out_and_who_comes_later_is_in_the_last_wave() -> None:
    one = Fleet(Rollout("r", "m", TARGET, "g", SETTINGS))
    late = Device("late", "eu", "pi5")
    assert refused(one.tell(Join(late)))
    one.start((*devices(), Device("pin", "eu", "pi5", "pinned")))

    one.tell(Join(late))
    one.tell(Join(Device("sick", "eu", "pi5", "unhealthy")))

    assert refused(one.tell(Join(late)))
    assert one.rollout.devices["late"].wave == 2
    assert one.rollout.left_out == {"pin": "pinned", "sick": "unhealthy"}
    assert "pin" not in one.rollout.devices


def test_only_the_holder_ticks() -> None:
    one = fleet()
    one.beat()
    one.tell(TakeOver("b"))

    assert refused(one.tell(Tick("a")))
    assert not one.of(Assign)
    one.tick()
    assert one.of(Assign)
    assert (one.rollout.holder, one.rollout.epoch) == ("b", 1)


def test_two_controllers_cannot_both_store_their_step() -> None:
    """Both start from one revision, and only one can swap it for the next."""
    one = fleet()
    first, _ = step(one.rollout, TakeOver("a"), BEGIN_S)
    second, _ = step(one.rollout, TakeOver("b"), BEGIN_S)

    assert first.revision == second.revision == one.rollout.revision + 1


def test_an_event_that_changes_nothing_keeps_the_revision() -> None:
    one = in_canary()
    before = one.rollout
    one.tell(Report("nobody", 1, Execution.CONFIRMED))
    one.tell(Heartbeats((Beat("nobody", "x"),)))
    one.tell(Fault("nobody", HardFault.OUT_OF_MEMORY))

    assert one.rollout == before


def test_after_a_crash_everybody_is_told_again() -> None:
    one = fleet()
    one.beat()
    one.tick()
    offered, gone, confirmed = one.names(Execution.OFFERED)
    again = [a for a in outstanding(one.rollout) if isinstance(a, Assign)]
    assert again == [a for a in one.of(Assign) if isinstance(a, Assign)]
    one.obey(confirmed)
    one.say(gone, Execution.DOWNLOADING)
    assert [a.device for a in outstanding(one.rollout) if isinstance(a, Assign)] == [offered]

    one.ask(Command.ABORT)
    assert {type(a) for a in outstanding(one.rollout)} == {Unassign}
    one.ask(Command.ROLL_BACK)

    assert set(outstanding(one.rollout)) == set(one.of(RollBack))


def test_a_device_with_another_change_in_flight_waits() -> None:
    other = fleet()
    other.beat()
    other.tick()
    (busy, *_) = other.names(Execution.OFFERED)
    one = Fleet(Rollout("r2", "sound", TARGET, "sound-cascade", SETTINGS), others=[other.rollout])
    one.start(devices())
    one.beat()
    one.tick()

    assert busy in conflicts(one.rollout, one.others).busy
    assert not set(one.names(Execution.OFFERED)) & set(other.names(Execution.OFFERED))


def test_who_was_busy_is_asked_when_the_other_change_has_ended() -> None:
    one = fleet()
    one.beat()
    canaries = {record.id for record in one.rollout.devices.values() if record.wave == 0}
    one.tell(Tick(busy=frozenset(canaries)))
    assert not one.of(Assign)
    one.tick()

    assert set(one.names(Execution.OFFERED)) == canaries


def test_of_a_cascade_the_rollout_that_began_first_goes_on() -> None:
    first = fleet()
    first.settle()
    second = Fleet(replace(Rollout("r2", "cloud", TARGET, "fashion-cascade", SETTINGS)))
    second.now_s += 10
    second.start(devices())
    second.others = [first.rollout, second.rollout]
    second.settle()
    assert not second.of(Assign)
    assert not conflicts(first.rollout, [second.rollout]).is_group_busy

    first.ask(Command.ABORT)
    second.others = [first.rollout]
    second.settle()

    assert second.of(Assign)


def test_what_is_stored_is_refused_when_it_is_no_rollout() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"id":1}', type=Rollout)


@pytest.mark.parametrize(
    "event",
    [
        Ask(Command.PAUSE, OPERATOR, "w"),
        Start(OPERATOR, devices(2)),
        TakeOver("a"),
        Heartbeats((Beat("d", "x", 3),)),
        Report("d", 1, Execution.TRIAL, "x", "r", HardFault.CRASH_LOOP),
        Figures(0, 1, HEALTHY),
        ShadowFigures(10, 1),
        Tick("a", frozenset({"d"}), is_group_busy=True),
        Join(Device("d", "eu", "pi5")),
        Fault("d", HardFault.NOT_A_NUMBER),
    ],
)
def test_events_go_through_json(event: AnyEvent) -> None:
    assert msgspec.json.decode(msgspec.json.encode(event), type=AnyEvent) == event


def test_figures_that_nobody_asked_for_are_refused() -> None:
    one = in_canary()
    before = one.rollout
    assert refused(one.tell(Figures(0, 0, BROKEN)))
    one.now_s += 601
    assert refused(one.tell(Figures(1, 0, BROKEN)))
    assert refused(one.tell(Figures(0, 1, BROKEN)))
    assert one.rollout == before
    one.tell(Figures(0, 0, UNCLEAR))
    assert refused(one.tell(Figures(0, 0, BROKEN)))
    assert one.is_in(Phase.CANARY)


def test_a_look_is_asked_for_until_its_figures_come() -> None:
    one = in_canary()
    first = [a for a in one.tick(601) if isinstance(a, Measure)]
    again = [a for a in one.tick(1) if isinstance(a, Measure)]

    assert first == again
    (asked,) = first
    treated = {record.id for record in one.rollout.devices.values() if record.wave == 0}
    assert set(asked.treated) == treated
    assert set(asked.control) == set(one.fleet) - treated
    assert asked.before_to_s - asked.before_from_s == SETTINGS.baseline_s
    assert asked.after_to_s - asked.after_from_s == 600
    assert asked.before_to_s <= asked.after_from_s


def test_the_last_wave_is_compared_with_those_before() -> None:
    one = in_wave()
    one.look(HEALTHY)
    one.settle()
    (asked, *_) = [a for a in one.tick(601) if isinstance(a, Measure)]

    records = one.rollout.devices.values()
    assert set(asked.control) == {record.id for record in records if record.wave < 2}
    assert set(asked.treated) == {record.id for record in records if record.wave == 2}
    assert all(
        one.rollout.devices[name].confirmed_s <= asked.before_from_s for name in asked.control
    )


def test_the_table_of_transitions_and_stages() -> None:
    assert {cause for _, cause in TRANSITIONS} == set(Cause)
    assert set(MOVES) == set(Execution)
    assert all(state not in moves for state, moves in MOVES.items())
    assert not any(MOVES[state] & {Execution.OFFERED, Execution.TRIAL} for state in TERMINAL)
    assert stage_name(Rollout("r", "m", "t", "g", SHADOW)) == "shadow"


def test_a_move_that_the_table_does_not_have_is_our_mistake() -> None:
    record = DeviceRecord("d", "eu", "pi5", 0)
    turn = Turn(Rollout("r", "m", "t", "g", devices={"d": record}), 0.0, "test")

    with pytest.raises(ValueError, match="no move"):
        turn.move(record, Execution.TRIAL, "because")
    with pytest.raises(KeyError):
        turn.go(Cause.RESUME, "because")
    turn.set(phase=Phase.PAUSED, paused_from=Phase.DONE)
    with pytest.raises(ValueError, match="no way"):
        turn.go(Cause.RESUME, "because")


@pytest.mark.parametrize(
    "wrong",
    [
        {"shares": (0.5,)},
        {"alpha_shares": (1.0,)},
        {"alpha_shares": (0.5, 0.5, 0.5, 0.5)},
        {"alpha_shares": (1.0, 0.0, 0.0, 0.0)},
        {"max_in_flight": 0},
        {"assignments_per_minute": 0},
        {"hard_faults": 0},
        {"min_failures": 0},
        {"max_failure_share": 1.0},
        {"baseline_s": 0.0},
        {"fill_s": math.inf},
        {"offline_after_s": math.nan},
        {"stagger_window_s": -1.0},
        {"min_canary": 2},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        RolloutSettings(**wrong)


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.inf, math.nan])
def test_no_state_lasts_for_ever(wrong: float) -> None:
    with pytest.raises(ValueError, match="deadline"):
        Deadlines(trial=wrong)


def test_windows_may_go_over_midnight() -> None:
    day, night = Window(3600, 7200), Window(82_800, 3600)

    assert [day.is_open(at) for at in (0, 3600, 7199, 7200)] == [False, True, True, False]
    assert [night.is_open(at) for at in (82_799, 82_800, 86_400, 3599, 3600)] == [
        False,
        True,
        True,
        True,
        False,
    ]


def test_a_shadow_that_agrees_goes_on_to_the_same_devices() -> None:
    one = fleet(SHADOW)
    one.settle()
    seen = one.names(Execution.SHADOW)
    assert len(seen) == 3
    assert all(device.serving.startswith("old") for device in one.fleet.values())
    assert not outstanding(one.rollout)
    one.tell(ShadowFigures(999, 0))
    one.tell(ShadowFigures(1000, 50))
    assert one.is_in(Phase.SHADOW)

    one.tell(ShadowFigures(1000, 5))

    assert one.is_in(Phase.CANARY)
    one.settle()
    assert one.names(Execution.CONFIRMED) == seen
    assert refused(one.tell(ShadowFigures(1000, 5)))


def test_a_shadow_that_differs_ends_the_rollout() -> None:
    one = fleet(SHADOW)
    one.tell(ShadowFigures(5000, 5000))
    assert one.is_in(Phase.SHADOW)
    one.settle()
    assert refused(one.tell(ShadowFigures(10, 11)))
    one.tell(ShadowFigures(1000, 200))
    one.settle()

    assert one.is_in(Phase.ROLLED_BACK)
    assert not any(device.ran for device in one.fleet.values())


def test_a_shadow_that_stays_unclear_asks_an_operator() -> None:
    one = fleet(SHADOW)
    one.settle()
    for _ in range(4):
        one.beat()
        one.tick(500)

    assert "shadow" in one.rollout.asked
    one.ask(Command.PROMOTE)
    assert one.is_in(Phase.CANARY)


def test_a_device_in_shadow_has_no_leave_to_serve() -> None:
    one = fleet(SHADOW)
    one.beat()
    one.tick()
    (name, *_) = one.names(Execution.OFFERED)
    one.say(name, Execution.CONFIRMED, serving=TARGET)

    assert one.rollout.devices[name].state is Execution.OFFERED
    one.say(name, Execution.SHADOW)
    assert one.rollout.devices[name].state is Execution.SHADOW
