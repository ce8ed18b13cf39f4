"""What a rollout is told, and what it asks for: values only, fit for JSON."""

from __future__ import annotations

import enum

import msgspec

from runtime.core.cohorts import Device
from runtime.core.gate import Metric
from runtime.core.rollout_states import Execution, HardFault


class Role(enum.StrEnum):
    """Who is speaking. Gateways may pause, and nothing else; security may stop everything."""

    OPERATOR = "operator"
    CONTROLLER = "controller"
    SECURITY = "security"
    GATEWAY = "gateway"


class Actor(msgspec.Struct, frozen=True):
    """Somebody, for the audit."""

    role: Role
    name: str


class Command(enum.StrEnum):
    """What people, gateways and alarms may ask for."""

    APPROVE = "approve"
    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    ROLL_BACK = "roll_back"
    PROMOTE = "promote"
    SUPERSEDE = "supersede"


class Event(msgspec.Struct, frozen=True, tag=True):
    """What happens to a rollout."""


class Ask(Event, frozen=True):
    """A command; ``PROMOTE`` goes on where the gate had too little to go by, never after alarm."""

    command: Command
    by: Actor
    why: str


class Start(Event, frozen=True):
    """Begins with these devices; the plan of their waves is made now and kept."""

    by: Actor
    devices: tuple[Device, ...]


class Join(Event, frozen=True):
    """A device that came later: it lands in the last wave."""

    device: Device


class TakeOver(Event, frozen=True):
    """A controller takes the rollout; whoever held it before is refused from now on."""

    holder: str


class Beat(msgspec.Struct, frozen=True):
    """A device's sign of life: the digest that serves, and the highest ``seq`` it has seen."""

    device: str
    serving: str
    seq: int = 0


class Heartbeats(Event, frozen=True):
    """Signs of life since the step before."""

    beats: tuple[Beat, ...]


class Report(Event, frozen=True):
    """What a device says about its assignment ``seq``.

    ``serving`` is the digest of the loaded model that answers; ``fault`` says that it was one of
    those that need no statistics.
    """

    device: str
    seq: int
    state: Execution
    serving: str = ""
    reason: str = ""
    fault: HardFault | None = None


class Fault(Event, frozen=True):
    """A fault that needs no statistics, of a device that runs the new version."""

    device: str
    fault: HardFault


class Figures(Event, frozen=True):
    """What was counted for the look that ``Measure`` asked for."""

    wave: int
    look: int
    metrics: tuple[Metric, ...]


class ShadowFigures(Event, frozen=True):
    """Requests that both versions answered in shadow, and where they differed."""

    requests: int
    disagreements: int


class Tick(Event, frozen=True):
    """Time has passed, says the controller ``holder``.

    ``busy`` devices, or the whole group of models, have another change in flight (``conflicts``).
    """

    holder: str = ""
    busy: frozenset[str] = frozenset()
    is_group_busy: bool = False


AnyEvent = (
    Ask | Start | Join | TakeOver | Heartbeats | Report | Fault | Figures | ShadowFigures | Tick
)


class Action(msgspec.Struct, frozen=True, tag=True):
    """What is to be done, once the state that comes with it is stored."""


class Assign(Action, frozen=True):
    """Tells a device to install ``target``; void after ``not_after_s`` unless it has begun."""

    device: str
    target: str
    stage: str
    seq: int
    not_after_s: float


class Unassign(Action, frozen=True):
    """Takes an assignment back that does not serve yet."""

    device: str
    seq: int


class RollBack(Action, frozen=True):
    """Tells a device to go back to the digest ``to``, the one that it had before."""

    device: str
    to: str
    seq: int


class Announce(Action, frozen=True):
    """Tells a region's gateway what a wave will ask it for, so that it fetches beforehand."""

    region: str
    target: str
    stage: str
    from_s: float


class Measure(Action, frozen=True):
    """Asks for the figures of a look: devices of both arms, and the windows, in Unix seconds."""

    wave: int
    look: int
    treated: tuple[str, ...]
    control: tuple[str, ...]
    before_from_s: float
    before_to_s: float
    after_from_s: float
    after_to_s: float


class Audit(Action, frozen=True):
    """A transition, of the rollout (``device`` empty) or of a device: who, why, from, to, when."""

    at_s: float
    who: str
    why: str
    was: str
    now: str
    device: str = ""


class AskOperator(Action, frozen=True):
    """Something that only a person decides; asked once."""

    why: str


class Refuse(Action, frozen=True):
    """What was asked for is not possible now; nothing has changed."""

    why: str


AnyAction = Assign | Unassign | RollBack | Announce | Measure | Audit | AskOperator | Refuse
