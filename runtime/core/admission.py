"""How much work a tier takes in: bounded by count and by bytes, refused early and with a hint.

Urgent work has places of its own beside the others', so that it gets in while they are refused;
what can wait gets in only while less than half of the places are taken.
"""

from __future__ import annotations

import enum

from runtime.errors import OverloadedError

# Of the places for all, so many more are for urgent work alone.
URGENT_SHARE = 8


class Urgency(enum.Enum):
    """What a request's priority comes to when there is not room for all."""

    URGENT = "urgent"
    NORMAL = "normal"
    CAN_WAIT = "can_wait"

    @classmethod
    def of(cls, priority: int) -> Urgency:
        """As the Open Inference Protocol's priorities are read: 0 says nothing, 1 is highest."""
        if priority == 1:
            return cls.URGENT
        return cls.CAN_WAIT if priority > 2 else cls.NORMAL  # noqa: PLR2004 2 is the default


class Admission:
    """Counts work in progress; the time of finished work feeds the hint when to come again."""

    def __init__(self, max_count: int, max_bytes: int) -> None:
        self._max_count, self._max_bytes = max_count, max_bytes
        self._count = self._bytes = 0
        self._service_ms = 1.0

    @property
    def count(self) -> int:
        """Requests in progress."""
        return self._count

    @property
    def num_bytes(self) -> int:
        """Payload bytes in progress."""
        return self._bytes

    def enter(self, num_bytes: int, urgency: Urgency = Urgency.NORMAL) -> None:
        """Takes one piece of work in.

        Raises:
            OverloadedError: no room by count or by bytes; carries ``retry_after_ms``.
        """
        if urgency is Urgency.CAN_WAIT and 2 * self._count >= self._max_count > 1:
            raise self._refusal("what can wait has to wait")
        extra = int(urgency is Urgency.URGENT)
        has_place = self._count < self._max_count + extra * (self._max_count // URGENT_SHARE)
        most_bytes = self._max_bytes + extra * (self._max_bytes // URGENT_SHARE)
        if not (has_place and self._bytes + num_bytes <= most_bytes):
            raise self._refusal("there is no room for more")
        self._count += 1
        self._bytes += num_bytes

    def _refusal(self, why: str) -> OverloadedError:
        return OverloadedError(
            f"{self._count} requests with {self._bytes} bytes are in progress; {why}",
            retry_after_ms=max(1.0, self._service_ms),
        )

    def leave(self, num_bytes: int, service_ms: float) -> None:
        """Ends one piece of work that had entered."""
        if self._count < 1 or self._bytes < num_bytes:
            raise ValueError("more work left than had entered")
        self._count -= 1
        self._bytes -= num_bytes
        self._service_ms += 0.1 * (service_ms - self._service_ms)
