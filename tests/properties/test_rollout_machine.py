"""Two rollouts over the same devices, with every order of messages, silence, faults and commands.

The devices do what they are told when they read it, or lie, or stay silent. Whatever happens: no
more devices are asked than the share of the wave allows, who was asked stays asked, a device has
one change at a time, nothing is assigned after an end, and in the end every device is somewhere.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from fakes.rollouts import BROKEN, HEALTHY, SETTINGS, UNCLEAR, FakeDevice, Fleet, devices
from runtime.core.cohorts import Device
from runtime.core.gate import Metric
from runtime.core.rollout import outstanding
from runtime.core.rollout_events import (
    Actor,
    Ask,
    Assign,
    Beat,
    Command,
    Fault,
    Figures,
    Heartbeats,
    Join,
    Report,
    Role,
    RollBack,
    ShadowFigures,
    TakeOver,
    Unassign,
)
from runtime.core.rollout_settings import Rollback, ShadowSettings
from runtime.core.rollout_states import (
    ACTIVE,
    IN_FLIGHT,
    STAGES,
    TERMINAL,
    Execution,
    HardFault,
    Phase,
    Rollout,
)

NUM = 16
WHICH = st.integers(0, 1)
NAMES = st.integers(0, NUM - 1).map(lambda place: f"d{place:02}")
KINDS = ("pi5", "orin")
GENTLE = (Command.APPROVE, Command.PAUSE, Command.RESUME, Command.RESUME, Command.PROMOTE)

# Many steps of many histories: long on a busy machine.
pytestmark = pytest.mark.timeout(120)


def two() -> list[Fleet]:
    """One with a shadow and by hand, one without and by itself; of different cascades."""
    manual = replace(SETTINGS, rollback=Rollback.MANUAL, shadow=ShadowSettings(min_requests=10))
    return [
        Fleet(Rollout("a", "fashion", "new-a", "one", SETTINGS)),
        Fleet(Rollout("b", "sound", "new-b", "two", manual)),
    ]


class RolloutMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.fleets = two()
        self.asked: list[set[str]] = [set(), set()]
        self.failed: list[set[str]] = [set(), set()]
        self.num_steps = 0
        for fleet in self.fleets:
            fleet.start(devices(NUM, hardware=KINDS))

    def _of(self, which: int) -> Fleet:
        fleet = self.fleets[which]
        fleet.others = [other.rollout for other in self.fleets]
        return fleet

    @rule()
    def let_it_end(self) -> None:
        """What ends a rollout comes late, or no run would get far."""
        self.num_steps += 10

    @property
    def may_end(self) -> bool:
        return self.num_steps > 30

    @rule(which=WHICH)
    def everybody_lives(self, which: int) -> None:
        fleet = self._of(which)
        fleet.beat()
        fleet.tick()
        for name in fleet.fleet:
            fleet.obey(name)
        fleet.beat()
        fleet.tick()

    @rule(first=WHICH)
    def both_ask_and_nobody_reads(self, first: int) -> None:
        for which in (first, 1 - first):
            self._of(which).beat()
            self._of(which).tick()

    @rule(which=WHICH, num=st.integers(1, 3))
    def go_well(self, which: int, num: int) -> None:
        """All goes as it should, for a look or several."""
        for _ in range(num):
            self.everybody_lives(which=which)
            self.shadow(differing=0)
            self.wait(wait_s=601.0)
            self.everybody_lives(which=which)
            self.figures(which=which, metrics=HEALTHY)

    @rule(which=WHICH)
    def tick(self, which: int) -> None:
        self.num_steps += 1
        self._of(which).tick()

    @rule(which=WHICH, names=st.lists(NAMES, min_size=1))
    def beat(self, which: int, names: list[str]) -> None:
        self._of(which).beat(*names)

    @rule(which=WHICH, name=NAMES)
    def obey(self, which: int, name: str) -> None:
        self._of(which).obey(name)

    @precondition(lambda self: self.may_end)
    @rule(which=WHICH, name=NAMES, state=st.sampled_from(Execution), serving=st.text(max_size=3))
    def lie(self, which: int, name: str, state: Execution, serving: str) -> None:
        self._of(which).say(name, state, serving=serving)

    @rule(which=WHICH, name=NAMES, seq=st.integers(-1, 5))
    def report_out_of_turn(self, which: int, name: str, seq: int) -> None:
        self._of(which).tell(Report(name, seq, Execution.TRIAL, "elsewhere"))

    @rule(which=WHICH, name=NAMES)
    def go_back_alone(self, which: int, name: str) -> None:
        fleet = self._of(which)
        fleet.fleet[name].serving = f"old-{name}"
        fleet.beat(name)

    @rule(wait_s=st.sampled_from([1.0, 61.0, 601.0, 4000.0]))
    def wait(self, wait_s: float) -> None:
        for fleet in self.fleets:
            fleet.now_s += wait_s

    @rule(which=WHICH, metrics=st.sampled_from([HEALTHY, HEALTHY, UNCLEAR, ()]))
    def figures(self, which: int, metrics: tuple[Metric, ...]) -> None:
        fleet = self._of(which)
        if fleet.measure is not None:
            fleet.tell(Figures(fleet.measure.wave, fleet.measure.look, metrics))
            fleet.measure = None

    @rule(differing=st.sampled_from([0, 50]))
    def shadow(self, differing: int) -> None:
        self._of(1).tell(ShadowFigures(1000, differing))

    @rule(which=WHICH, command=st.sampled_from(GENTLE), role=st.sampled_from(Role))
    def command(self, which: int, command: Command, role: Role) -> None:
        self._of(which).tell(Ask(command, Actor(role, "x"), "drawn"))

    @precondition(lambda self: self.may_end)
    @rule(which=WHICH, command=st.sampled_from(Command), role=st.sampled_from(Role))
    def command_an_end(self, which: int, command: Command, role: Role) -> None:
        self._of(which).tell(Ask(command, Actor(role, "x"), "drawn"))

    @precondition(lambda self: self.may_end)
    @rule(which=WHICH)
    def breach(self, which: int) -> None:
        self.figures(which=which, metrics=BROKEN)

    @precondition(lambda self: self.may_end)
    @rule(which=WHICH, name=NAMES, fault=st.sampled_from(HardFault))
    def fault(self, which: int, name: str, fault: HardFault) -> None:
        self._of(which).tell(Fault(name, fault))

    @rule(which=WHICH, holder=st.sampled_from(["a", "b"]))
    def take_over(self, which: int, holder: str) -> None:
        self._of(which).tell(TakeOver(holder))

    @rule(which=WHICH)
    def crash_and_say_it_again(self, which: int) -> None:
        fleet = self._of(which)
        for action in outstanding(fleet.rollout):
            assert isinstance(action, Assign | Unassign | RollBack)
            fleet.fleet[action.device].told = action

    @precondition(lambda self: "late" not in self.fleets[0].fleet)
    @rule()
    def join(self) -> None:
        for fleet in self.fleets:
            fleet.fleet["late"] = FakeDevice("late", "old-late")
            fleet.tell(Join(Device("late", "eu", "pi5")))

    @invariant()
    def never_more_than_the_share_of_the_wave(self) -> None:
        for fleet in self.fleets:
            rollout = fleet.rollout
            share = rollout.settings.shares[max(0, rollout.wave)]
            num = sum(one.was_asked for one in rollout.devices.values())
            assert num <= share * len(rollout.devices) + rollout.settings.min_canary

    @invariant()
    def who_was_asked_stays_asked_and_failures_stay_failures(self) -> None:
        for place, fleet in enumerate(self.fleets):
            records = fleet.rollout.devices.values()
            asked = {one.id for one in records if one.was_asked}
            failed = {one.id for one in records if one.has_failed}
            assert asked >= self.asked[place]
            assert failed >= self.failed[place]
            self.asked[place], self.failed[place] = asked, failed

    @invariant()
    def a_device_has_one_change_at_a_time(self) -> None:
        first, second = (
            {one.id for one in fleet.rollout.devices.values() if one.state in IN_FLIGHT}
            - {one.id for one in fleet.rollout.devices.values() if _is_going_back(one.state)}
            for fleet in self.fleets
        )
        assert not first & second

    @invariant()
    def nothing_is_assigned_after_the_end(self) -> None:
        for fleet in self.fleets:
            if fleet.rollout.phase not in (*STAGES, Phase.PAUSED):
                states = {one.state for one in fleet.rollout.devices.values()}
                assert not states & {Execution.OFFERED, Execution.DOWNLOADING, Execution.SHADOW}
                before = fleet.of(Assign)
                fleet.tick()
                assert fleet.of(Assign) == before

    @invariant()
    def success_is_the_word_of_the_loaded_model(self) -> None:
        for fleet in self.fleets:
            for one in fleet.rollout.devices.values():
                if one.is_in_sync and one.wanted == fleet.rollout.target:
                    assert one.serving == fleet.rollout.target
                assert one.state is not Execution.CONFIRMED or one.confirmed_s or not one.was_asked

    def teardown(self) -> None:
        """Silence: an operator gives up, and every deadline passes."""
        for place, fleet in enumerate(self.fleets):
            self._of(place).ask(Command.ABORT)
            for _ in range(4):
                fleet.tick(4000)
            assert fleet.rollout.phase not in ACTIVE
            assert set(fleet.states().values()) <= set(TERMINAL)
            self._everybody_gets_back(fleet)

    def _everybody_gets_back(self, fleet: Fleet) -> None:
        """After a rollback, who reads its messages has what it had before, and says so."""
        fleet.ask(Command.ROLL_BACK)
        if fleet.rollout.phase not in (Phase.ROLLING_BACK, Phase.ROLLED_BACK):
            return
        for name in fleet.fleet:
            fleet.obey(name)
        fleet.tell(
            Heartbeats(tuple(Beat(one.id, one.serving, one.seq) for one in fleet.fleet.values()))
        )
        fleet.tick()
        assert fleet.rollout.phase is Phase.ROLLED_BACK
        for record in fleet.rollout.devices.values():
            assert record.state in TERMINAL
            told_to = record.before if record.was_asked else fleet.fleet[record.id].serving
            assert fleet.fleet[record.id].serving == told_to == f"old-{record.id}"


def _is_going_back(state: Execution) -> bool:
    """Nobody waits for the other rollout's change before leaving a version that does harm."""
    return state is Execution.RETURNING


TestRolloutMachine = RolloutMachine.TestCase
TestRolloutMachine.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
