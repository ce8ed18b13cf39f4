"""How a staged rollout goes about it: what an operator may set, checked when it is made."""

from __future__ import annotations

import enum
import math

import msgspec

from runtime.core.cohorts import MIN_CANARY, wave_ends
from runtime.core.gate import GateSettings

DAY_S = 86_400.0


class Rollback(enum.StrEnum):
    """What follows a gate that is breached: versions go back by themselves, or when asked to."""

    AUTO = "auto"
    MANUAL = "manual"


class Window(msgspec.Struct, frozen=True):
    """A maintenance window of every day, in seconds since midnight UTC; it may go over midnight."""

    from_s: float
    to_s: float

    def is_open(self, now_s: float) -> bool:
        """Whether a Unix time is in it."""
        time_s = now_s % DAY_S
        if self.from_s <= self.to_s:
            return self.from_s <= time_s < self.to_s
        return time_s >= self.from_s or time_s < self.to_s


class Deadlines(msgspec.Struct, frozen=True, omit_defaults=True):
    """How long a device may be in each state before its silence is a failure, in seconds."""

    offered: float = 900.0
    downloading: float = 3600.0
    verified: float = 900.0
    shadow: float = 7200.0
    trial: float = 1800.0
    returning: float = 3600.0

    def __post_init__(self) -> None:
        """Refuses a state that could last for ever.

        Raises:
            ValueError: a deadline is not a positive number of seconds.
        """
        if not all(0 < getattr(self, one) < math.inf for one in self.__struct_fields__):
            raise ValueError("a deadline is a positive number of seconds")

    def of(self, state: str) -> float:
        """The deadline of a state in flight."""
        return float(getattr(self, str(state)))


class ShadowSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the new version proves itself beside the old one, without answering."""

    min_requests: int = 1000
    max_disagreement: float = 0.05
    max_s: float = 3600.0


class SplitTerms(msgspec.Struct, frozen=True):
    """The new version answers a share of the requests of each device, and no more than that.

    For devices that serve one of the manifests ``control``; see ``runtime.core.splitting``.
    """

    share: float
    experiment: str
    split_by: str
    control: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuses what divides nothing.

        Raises:
            ValueError: the share is all or nothing, or a name is missing.
        """
        if not 0 < self.share < 1 or not self.experiment or not self.split_by:
            raise ValueError("a split has a share between 0 and 1, an experiment and a key")


class RolloutSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a rollout goes about it.

    ``shares`` are those of the fleet after canaries and after each wave. ``alpha_shares`` divide
    ``gate.alpha``, the chance of a false alarm in the whole rollout, among them. ``baseline_s`` is
    the window before a change that devices are compared with. A wave that is not full after
    ``fill_s`` is judged by who is there. ``max_in_flight`` counts a region's devices. A rollout
    stops when ``min_failures`` devices and more than ``max_failure_share`` of those asked failed,
    and a hardware class after ``hard_faults`` faults that need no statistics. With ``split``
    devices answer a share with the new version for as long as they would keep it in shadow.

    Raises:
        ValueError: a number is out of its range.
    """

    shares: tuple[float, ...] = (0.01, 0.05, 0.25, 1.0)
    alpha_shares: tuple[float, ...] = (0.4, 0.2, 0.2, 0.2)
    min_canary: int = MIN_CANARY
    gate: GateSettings = GateSettings(alpha=0.05)
    shadow: ShadowSettings | None = ShadowSettings()
    deadlines: Deadlines = Deadlines()
    rollback: Rollback = Rollback.AUTO
    baseline_s: float = 86400.0
    fill_s: float = 21600.0
    max_in_flight: int = 50
    assignments_per_minute: int = 60
    max_offline_share: float = 0.3
    offline_after_s: float = 300.0
    stagger_window_s: float = 0.0
    windows: dict[str, tuple[Window, ...]] = {}
    min_failures: int = 2
    max_failure_share: float = 0.1
    hard_faults: int = 1
    split: SplitTerms | None = None

    def __post_init__(self) -> None:
        wave_ends(0, self.shares, self.min_canary)
        parts = self.alpha_shares
        if len(parts) != len(self.shares) or min(parts) <= 0 or sum(parts) > 1 + 1e-9:
            raise ValueError("alpha_shares are a positive part of 1 for each of shares")
        if min(self.max_in_flight, self.assignments_per_minute, self.hard_faults) < 1:
            raise ValueError("limits that let nothing pass would never end")
        if self.split is not None and (self.shadow is None or len(self.shares) > 1):
            raise ValueError("a split is for all devices at once, and has to have shadow settings")
        if self.min_failures < 1 or not 0 <= self.max_failure_share < 1:
            raise ValueError("failures are allowed to a share below 1, after one at least")
        times_s = (self.baseline_s, self.fill_s, self.offline_after_s)
        if not all(0 < one < math.inf for one in times_s) or self.stagger_window_s < 0:
            raise ValueError("times are positive numbers of seconds")
