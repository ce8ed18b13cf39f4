"""Logs a connection's failure once and then its recovery, however often it is tried in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from runtime.ports import Clock

_log = structlog.get_logger(__name__)


class OutageLog:
    """The log lines of one connection that is kept up."""

    def __init__(self, clock: Clock, **fields: str) -> None:
        """``fields`` go into every line."""
        self._clock = clock
        self._log = _log.bind(**fields)
        self._reason = ""
        self._down_since_s: float | None = None

    def failed(self, reason: str) -> None:
        """A try failed; logged when the reason is another one than that of the try before."""
        if self._down_since_s is None:
            self._down_since_s = self._clock.monotonic_s()
        if reason != self._reason:
            self._log.warning("connection.failed", reason=reason)
            self._reason = reason

    def connected(self) -> None:
        """The connection is there."""
        if self._down_since_s is None:
            self._log.info("connection.established")
        else:
            down_s = self._clock.monotonic_s() - self._down_since_s
            self._log.info("connection.recovered", down_s=round(down_s, 3))
        self._down_since_s = None
        self._reason = ""

    def lost(self, reason: str, held_s: float) -> None:
        """A connection that was there has ended."""
        self._down_since_s = self._clock.monotonic_s()
        self._log.warning("connection.lost", reason=reason, held_s=round(held_s, 3))
