"""Devices that obey a rollout controller when their messages are delivered, or do not."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from runtime.core.before_after import Counts
from runtime.core.cohorts import Device
from runtime.core.gate import GateSettings, Metric
from runtime.core.rollout import conflicts, step
from runtime.core.rollout_events import (
    Actor,
    AnyAction,
    AnyEvent,
    Ask,
    Assign,
    Beat,
    Command,
    Figures,
    Heartbeats,
    Measure,
    Report,
    Role,
    RollBack,
    Start,
    Unassign,
)
from runtime.core.rollout_settings import Deadlines, RolloutSettings
from runtime.core.rollout_states import STAGES, Execution, HardFault, Phase, Rollout

OPERATOR = Actor(Role.OPERATOR, "anna")
BEGIN_S = 1_800_000_000.0
TARGET = "new"
# Everything small, so that a test sees all of a rollout.
SETTINGS = RolloutSettings(
    shares=(0.01, 0.25, 1.0),
    alpha_shares=(0.4, 0.3, 0.3),
    gate=GateSettings(looks_s=(600.0, 1200.0), alpha=0.05),
    shadow=None,
    deadlines=Deadlines(600, 600, 600, 600, 600, 600),
    baseline_s=1200.0,
    fill_s=3600.0,
)


def devices(num: int = 16, *, hardware: tuple[str, ...] = ("pi5",)) -> tuple[Device, ...]:
    kinds = len(hardware)
    return tuple(
        Device(f"d{place:02}", ("eu", "us")[place % 2], hardware[place // 2 % kinds])
        for place in range(num)
    )


def metric(name: str = "errors", *, after: int = 50, controls: int = 8) -> Metric:
    """Three devices with 50 events before and ``after`` in a window of the same size."""
    return Metric(
        name,
        tuple(Counts(f"t{one}", 5000, 50, 5000, after) for one in range(3)),
        tuple(Counts(f"c{one}", 5000, 50, 5000, 50) for one in range(controls)),
    )


HEALTHY = (metric(after=30),)
BROKEN = (metric(after=500),)
UNCLEAR = (metric(after=62),)


@dataclass
class FakeDevice:
    """What a device has loaded, and what it was told and has not read."""

    id: str
    serving: str
    seq: int = 0
    told: AnyAction | None = None
    ran: bool = False


@dataclass
class Fleet:
    """A rollout, its devices, and everything that it asked for."""

    rollout: Rollout
    now_s: float = BEGIN_S
    fleet: dict[str, FakeDevice] = field(default_factory=dict)
    actions: list[AnyAction] = field(default_factory=list)
    measure: Measure | None = None
    others: list[Rollout] = field(default_factory=list)

    def tell(self, event: AnyEvent) -> tuple[AnyAction, ...]:
        """One step, through JSON there and back as a store would do it."""
        before = self.rollout
        after, actions = step(before, event, self.now_s)
        assert after.revision == before.revision + (after != before)
        assert msgspec.json.decode(msgspec.json.encode(after), type=Rollout) == after
        self.rollout = after
        self.actions += actions
        for action in actions:
            if isinstance(action, Assign | Unassign | RollBack):
                assert action.seq >= self.fleet[action.device].seq
                self.fleet[action.device].told = action
            elif isinstance(action, Measure):
                self.measure = action
        return actions

    def ask(self, command: Command, by: Actor = OPERATOR) -> tuple[AnyAction, ...]:
        return self.tell(Ask(command, by, "because"))

    def start(self, some: tuple[Device, ...]) -> Fleet:
        self.fleet |= {one.id: FakeDevice(one.id, f"old-{one.id}") for one in some}
        self.ask(Command.APPROVE)
        self.tell(Start(OPERATOR, some))
        return self

    def beat(self, *names: str) -> tuple[AnyAction, ...]:
        some = [self.fleet[name] for name in names or tuple(self.fleet)]
        return self.tell(Heartbeats(tuple(Beat(one.id, one.serving, one.seq) for one in some)))

    def tick(self, wait_s: float = 0.0) -> tuple[AnyAction, ...]:
        self.now_s += wait_s
        return self.tell(conflicts(self.rollout, self.others))

    def say(
        self,
        name: str,
        state: Execution,
        *,
        serving: str | None = None,
        fault: HardFault | None = None,
        reason: str = "",
    ) -> tuple[AnyAction, ...]:
        one = self.fleet[name]
        return self.tell(
            Report(
                name,
                self.rollout.devices[name].seq,
                state,
                one.serving if serving is None else serving,
                reason,
                fault,
            )
        )

    def obey(self, name: str) -> None:
        """A device reads its latest message, does it and says so."""
        one, told = self.fleet[name], self.fleet[name].told
        one.told = None
        if isinstance(told, Assign) and told.not_after_s >= self.now_s:
            one.seq = told.seq
            if told.stage == Phase.SHADOW:
                self.say(name, Execution.SHADOW)
                return
            one.serving, one.ran = told.target, True
            self.say(name, Execution.TRIAL)
            self.say(name, Execution.CONFIRMED)
        elif isinstance(told, RollBack):
            one.seq, one.serving = told.seq, told.to
        elif isinstance(told, Unassign):
            one.seq = told.seq

    def settle(self) -> None:
        """All devices live, and do what they are told, until there is nothing more to do."""
        for _ in range(3):
            self.beat()
            self.tick()
            for name in self.fleet:
                self.obey(name)
        self.beat()
        self.tick()

    def look(self, metrics: tuple[Metric, ...]) -> tuple[AnyAction, ...]:
        """The time of the next look comes, and with it these figures."""
        self.beat()
        self.tick(601)
        asked, self.measure = self.measure, None
        assert asked is not None
        return self.tell(Figures(asked.wave, asked.look, metrics))

    def states(self) -> dict[str, Execution]:
        return {one.id: one.state for one in self.rollout.devices.values()}

    def names(self, state: Execution) -> list[str]:
        return [name for name, one in self.states().items() if one is state]

    def of(self, kind: type) -> list[AnyAction]:
        return [action for action in self.actions if isinstance(action, kind)]

    def is_in(self, phase: Phase) -> bool:
        """Whether the rollout is there now; a call, because a type checker remembers the phase."""
        return self.rollout.phase is phase

    @property
    def is_running(self) -> bool:
        return self.rollout.phase in STAGES


def fleet(
    settings: RolloutSettings = SETTINGS, num: int = 16, hardware: tuple[str, ...] = ("pi5",)
) -> Fleet:
    """A rollout that has just begun."""
    rollout = Rollout("r1", "fashion", TARGET, "fashion-cascade", settings)
    return Fleet(rollout).start(devices(num, hardware=hardware))
