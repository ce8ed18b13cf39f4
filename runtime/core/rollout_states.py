"""What a rollout and its devices can be, and what changes that: values only, fit for JSON.

Rules of this file:
  * every change of a rollout's phase is in ``TRANSITIONS`` and every change of a device's state in
    ``MOVES``; nothing else moves either;
  * a state is stored under its ``revision`` (compare and swap); only then its actions are done;
  * ``epoch`` counts the controllers that held the rollout; ticks of any but ``holder`` are refused;
  * times are Unix seconds; 0 is never.
"""

from __future__ import annotations

import enum

import msgspec

from runtime.core.gate import Judgement
from runtime.core.rollout_settings import RolloutSettings


class Phase(enum.StrEnum):
    """Where a rollout is. ``wave`` stands for all waves after the canaries."""

    DRAFT = "draft"
    APPROVED = "approved"
    SHADOW = "shadow"
    CANARY = "canary"
    WAVE = "wave"
    DONE = "done"
    PAUSED = "paused"
    ABORTING = "aborting"
    ABORTED = "aborted"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    SUPERSEDED = "superseded"


class Cause(enum.StrEnum):
    """What moves a rollout from phase to phase."""

    APPROVE = "approve"
    START = "start"
    START_IN_SHADOW = "start_in_shadow"
    GO_ON = "go_on"
    FINISH = "finish"
    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    ROLL_BACK = "roll_back"
    SETTLE = "settle"
    SUPERSEDE = "supersede"


STAGES = (Phase.SHADOW, Phase.CANARY, Phase.WAVE)
RUNNING = (*STAGES, Phase.PAUSED)
# Phases in which devices are on their way somewhere.
ACTIVE = (*STAGES, Phase.PAUSED, Phase.ABORTING, Phase.ROLLING_BACK)

# Where there are several, RESUME goes back to the stage that was paused.
TRANSITIONS: dict[tuple[Phase, Cause], tuple[Phase, ...]] = {
    (Phase.DRAFT, Cause.APPROVE): (Phase.APPROVED,),
    (Phase.APPROVED, Cause.START): (Phase.CANARY,),
    (Phase.APPROVED, Cause.START_IN_SHADOW): (Phase.SHADOW,),
    (Phase.SHADOW, Cause.GO_ON): (Phase.CANARY,),
    (Phase.CANARY, Cause.GO_ON): (Phase.WAVE,),
    (Phase.WAVE, Cause.GO_ON): (Phase.WAVE,),
    (Phase.CANARY, Cause.FINISH): (Phase.DONE,),
    (Phase.WAVE, Cause.FINISH): (Phase.DONE,),
    (Phase.PAUSED, Cause.RESUME): STAGES,
    **{(stage, Cause.PAUSE): (Phase.PAUSED,) for stage in STAGES},
    **{(one, Cause.ABORT): (Phase.ABORTING,) for one in (*STAGES, Phase.PAUSED)},
    (Phase.APPROVED, Cause.ABORT): (Phase.ABORTING,),
    (Phase.DRAFT, Cause.ABORT): (Phase.ABORTING,),
    (Phase.ABORTING, Cause.SETTLE): (Phase.ABORTED,),
    **{
        (one, Cause.ROLL_BACK): (Phase.ROLLING_BACK,)
        for one in (*STAGES, Phase.PAUSED, Phase.ABORTING, Phase.ABORTED, Phase.DONE)
    },
    (Phase.ROLLING_BACK, Cause.SETTLE): (Phase.ROLLED_BACK,),
    **{
        (one, Cause.SUPERSEDE): (Phase.SUPERSEDED,)
        for one in (Phase.PAUSED, Phase.ABORTED, Phase.DONE)
    },
}


class Execution(enum.StrEnum):
    """What one device has done about its assignment, in the order in which it does it."""

    PENDING = "pending"
    OFFERED = "offered"
    DOWNLOADING = "downloading"
    VERIFIED = "verified"
    SHADOW = "shadow"
    SPLIT = "split"
    TRIAL = "trial"
    RETURNING = "returning"
    CONFIRMED = "confirmed"
    ROLLED_BACK = "rolled_back"
    REJECTED = "rejected"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"


IN_FLIGHT = (
    Execution.OFFERED,
    Execution.DOWNLOADING,
    Execution.VERIFIED,
    Execution.SHADOW,
    Execution.TRIAL,
    Execution.RETURNING,
)
# Of these the new version does not serve yet: an abort takes them back at once.
NOT_SERVING = (Execution.OFFERED, Execution.DOWNLOADING, Execution.VERIFIED, Execution.SHADOW)
# A device says ``split``; to a rollout it is then where one in shadow is: beside what serves.
TERMINAL = tuple(
    one for one in Execution if one not in (Execution.PENDING, Execution.SPLIT, *IN_FLIGHT)
)
FAILED = (Execution.ROLLED_BACK, Execution.REJECTED, Execution.TIMED_OUT)
# Ends from here are failures; ends of what was being taken back are not.
COUNTED = (*NOT_SERVING, Execution.TRIAL, Execution.CONFIRMED)
# What a device may report, from each state: messages may be lost, so steps may be left out.
_FORWARD = (
    Execution.DOWNLOADING,
    Execution.VERIFIED,
    Execution.SHADOW,
    Execution.TRIAL,
    Execution.CONFIRMED,
)
_GIVEN_UP = (Execution.ROLLED_BACK, Execution.REJECTED)
REPORTS: dict[Execution, tuple[Execution, ...]] = {
    Execution.OFFERED: (*_FORWARD, *_GIVEN_UP),
    Execution.DOWNLOADING: (*_FORWARD[1:], *_GIVEN_UP),
    Execution.VERIFIED: (*_FORWARD[2:], *_GIVEN_UP),
    Execution.SHADOW: (*_FORWARD[3:], *_GIVEN_UP),
    Execution.TRIAL: (Execution.CONFIRMED, *_GIVEN_UP),
}
# What the controller decides about a device, on top of what it reports.
_ENDS = (Execution.TIMED_OUT, Execution.CANCELLED, Execution.RETURNING, Execution.ROLLED_BACK)
MOVES: dict[Execution, frozenset[Execution]] = {
    Execution.PENDING: frozenset({Execution.OFFERED, Execution.CONFIRMED, Execution.CANCELLED}),
    **{one: frozenset((*told, *_ENDS)) for one, told in REPORTS.items()},
    Execution.SHADOW: frozenset((*REPORTS[Execution.SHADOW], *_ENDS, Execution.OFFERED)),
    Execution.SPLIT: frozenset(),
    Execution.RETURNING: frozenset({Execution.ROLLED_BACK, Execution.TIMED_OUT}),
    **{one: frozenset({Execution.RETURNING, Execution.ROLLED_BACK} - {one}) for one in TERMINAL},
}


class HardFault(enum.StrEnum):
    """What needs no statistics."""

    LOAD_FAILED = "load_failed"
    NOT_A_NUMBER = "not_a_number"
    GOLDEN_MISMATCH = "golden_mismatch"
    CRASH_LOOP = "crash_loop"
    OUT_OF_MEMORY = "out_of_memory"
    DIGEST_MISMATCH = "digest_mismatch"


class DeviceRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One device's part. ``before`` is the digest that it served when it was first asked.

    ``serving`` and ``heard_s`` are from its latest heartbeat or report, ``seq`` is that of what it
    was last told. ``wanted`` is the digest that it is to have. ``was_asked``, ``has_run`` (the new
    version has answered on it) and ``has_failed`` stay.
    """

    id: str
    region: str
    hardware: str
    wave: int
    state: Execution = Execution.PENDING
    reason: str = ""
    before: str = ""
    wanted: str = ""
    serving: str = ""
    seq: int = 0
    since_s: float = 0.0
    assigned_s: float = 0.0
    heard_s: float = 0.0
    confirmed_s: float = 0.0
    has_run: bool = False
    was_asked: bool = False
    has_failed: bool = False

    @property
    def is_in_sync(self) -> bool:
        """Whether it serves what it is to serve, by its own latest word."""
        return bool(self.wanted) and self.serving == self.wanted


class Rollout(msgspec.Struct, frozen=True, omit_defaults=True):
    """A rollout. ``group`` is the cascade whose models may not change at the same time.

    ``wave`` is -1 before the canaries and in shadow, and began at ``wave_s``. ``soak_s`` is from
    when on its devices are judged, None while it is filled; ``last_soak_s`` is that of the wave
    before. ``look`` is the latest look, -1 before the first. ``asked`` is what an operator was last
    asked in this stage, ``faults`` the first fault of a device, ``stopped_hardware`` why a class
    goes no further.
    """

    id: str
    model: str
    target: str
    group: str
    settings: RolloutSettings = RolloutSettings()
    phase: Phase = Phase.DRAFT
    paused_from: Phase | None = None
    wave: int = -1
    started_s: float = 0.0
    wave_s: float = 0.0
    soak_s: float | None = None
    last_soak_s: float = 0.0
    look: int = -1
    judgement: Judgement | None = None
    asked: str = ""
    devices: dict[str, DeviceRecord] = {}
    left_out: dict[str, str] = {}
    stopped_hardware: dict[str, str] = {}
    faults: dict[str, str] = {}
    revision: int = 0
    epoch: int = 0
    holder: str = ""
