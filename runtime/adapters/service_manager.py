"""Tells the system's service manager how a process does: sd_notify(3), a datagram a state.

Where nobody listens (no ``NOTIFY_SOCKET``) nothing is told. The watchdog is fed from the event
loop, so that a loop that is stuck is seen: then the manager restarts the process.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from runtime.logs import get_logger

# Of the time after which the manager gives the process up (sd_watchdog_enabled(3): half of it).
_FED_AFTER = 0.4


class ServiceManager:
    """The manager that the environment names; every method is safe where there is none."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        values = os.environ if environment is None else environment
        path = values.get("NOTIFY_SOCKET", "")
        # An abstract socket begins with a NUL, which no environment can hold.
        self._address = f"\0{path[1:]}" if path.startswith("@") else path
        is_for_us = values.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
        text = values.get("WATCHDOG_USEC", "") if is_for_us else ""
        self.watchdog_s = int(text) / 1e6 if text.isascii() and text.isdigit() else 0.0
        self._has_failed = False

    def tell(self, state: str) -> None:
        """Sends one state; that nobody takes it is logged once."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as said:
                said.settimeout(1.0)
                said.sendto(state.encode(), self._address)
        except OSError as error:
            if not self._has_failed:
                get_logger().warning("service_manager.not_told", error=str(error))
            self._has_failed = True

    def stopping(self) -> None:
        """The process has been told to stop, and drains."""
        self.tell("STOPPING=1")

    async def feed(self) -> None:
        """Feeds the watchdog until it is cancelled."""
        while True:
            self.tell("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_s * _FED_AFTER)


@asynccontextmanager
async def telling_manager(
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[ServiceManager]:
    """Says that the process is ready, and feeds the watchdog until left."""
    manager = ServiceManager(environment)
    feeding = None
    if manager.watchdog_s > 0:
        feeding = asyncio.create_task(manager.feed(), name="watchdog")
    manager.tell("READY=1")
    try:
        yield manager
    finally:
        if feeding is not None:
            feeding.cancel()
