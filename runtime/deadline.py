"""One deadline for the whole climb.

Inside a process a deadline is an instant of the monotonic clock. On the wire only the remaining
milliseconds travel, because the clocks of two machines are never compared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from runtime.errors import InvalidBudgetError

MAX_BUDGET_MS = 600_000.0


def check_budget_ms(budget_ms: float) -> float:
    """Returns the budget as a float.

    Raises:
        InvalidBudgetError: not a finite number above 0 and at most ten minutes.
    """
    if isinstance(budget_ms, bool) or not isinstance(budget_ms, int | float):
        raise InvalidBudgetError(f"the budget must be a number of milliseconds, not {budget_ms!r}")
    if not 0 < budget_ms <= MAX_BUDGET_MS:  # NaN is not in any range
        raise InvalidBudgetError(
            f"the budget must be above 0 and at most {MAX_BUDGET_MS:.0f} ms, not {budget_ms!r}"
        )
    return float(budget_ms)


def parse_remaining_ms(text: str) -> float:
    """The ``remaining-ms`` property of a message; 0 or less means that it is late already.

    Raises:
        InvalidBudgetError: not a finite decimal number, or over the limit.
    """
    try:
        remaining_ms = float(text)
    except ValueError:
        raise InvalidBudgetError(f"remaining-ms is not a number: {text[:40]!r}") from None
    if not math.isfinite(remaining_ms) or remaining_ms > MAX_BUDGET_MS:
        raise InvalidBudgetError(f"remaining-ms is out of range: {text[:40]!r}")
    return remaining_ms


@dataclass(frozen=True, slots=True)
class Deadline:
    """An instant on the local monotonic clock, in seconds."""

    at_s: float

    @classmethod
    def after(cls, now_s: float, remaining_ms: float) -> Deadline:
        """The instant at which ``remaining_ms`` from ``now_s`` are over."""
        return cls(now_s + remaining_ms / 1000.0)

    def remaining_ms(self, now_s: float) -> float:
        """What is left at ``now_s``; negative when it is past."""
        return (self.at_s - now_s) * 1000.0

    def is_past(self, now_s: float) -> bool:
        """Whether nothing is left at ``now_s``."""
        return now_s >= self.at_s

    def earlier_by_ms(self, margin_ms: float) -> Deadline:
        """The same deadline, ``margin_ms`` sooner."""
        return Deadline(self.at_s - margin_ms / 1000.0)


def expiry_s(remaining_ms: float) -> int:
    """MQTT message expiry for a remaining budget: whole seconds, rounded up, at least 1.

    A back-stop only (MQTT 5, 3.3.2.3.3 counts in seconds); receivers refuse what is late
    themselves.
    """
    return max(1, math.ceil(remaining_ms / 1000.0))
