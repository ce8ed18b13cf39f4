"""How much work a tier takes in: bounded by count and by bytes, refused early and with a hint."""

from __future__ import annotations

from runtime.errors import OverloadedError


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

    def enter(self, num_bytes: int) -> None:
        """Takes one piece of work in.

        Raises:
            OverloadedError: no room by count or by bytes; carries ``retry_after_ms``.
        """
        has_room = self._count < self._max_count and self._bytes + num_bytes <= self._max_bytes
        if not has_room:
            raise OverloadedError(
                f"{self._count} requests with {self._bytes} bytes are in progress",
                retry_after_ms=max(1.0, self._service_ms),
            )
        self._count += 1
        self._bytes += num_bytes

    def leave(self, num_bytes: int, service_ms: float) -> None:
        """Ends one piece of work that had entered."""
        if self._count < 1 or self._bytes < num_bytes:
            raise ValueError("more work left than had entered")
        self._count -= 1
        self._bytes -= num_bytes
        self._service_ms += 0.1 * (service_ms - self._service_ms)
