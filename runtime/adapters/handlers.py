"""Calls the handlers of a bus so that none of them can hurt the bus or another handler."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import structlog

_log = structlog.get_logger(__name__)

Argument = TypeVar("Argument")


class HandlerRunner:
    """Runs handlers one at a time, logs and counts what they raise.

    Attributes:
        num_errors: exceptions that came out of handlers since the start.
    """

    def __init__(self, client_id: str) -> None:
        self.num_errors = 0
        self._client_id = client_id

    def run(self, handler: Callable[[Argument], None], argument: Argument, *, about: str) -> None:
        """Calls ``handler(argument)``; ``about`` names the topic or event in the log."""
        try:
            handler(argument)
        except (Exception, asyncio.CancelledError):  # noqa: BLE001
            # The one broad except of the buses: handlers are code of other parts, and the port
            # promises that whatever comes out of one stops neither the bus nor its neighbours.
            # A handler cannot be cancelled, for it never waits: a CancelledError is the result of
            # some future that it looked at.
            self.num_errors += 1
            _log.exception(
                "handler.failed",
                client_id=self._client_id,
                about=about,
                handler=getattr(handler, "__qualname__", repr(handler)),
            )
