"""Message buses of every kind behind one small face, for the tests that all of them must pass."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Protocol

import pytest

from runtime.adapters.broker import Preference, RunningBroker, start_broker
from runtime.adapters.dial import BrokerAddress
from runtime.adapters.memory_bus import MemoryBroker, MemoryBus
from runtime.adapters.paho_bus import PahoBus
from runtime.errors import StartError
from runtime.ports import Message, MessageBus


class Site(Protocol):
    """A broker and the buses on it."""

    def bus(self, client_id: str, will: Message | None = None) -> MessageBus: ...

    def drop(self, bus: MessageBus) -> None:
        """Ends the connection of a bus without a DISCONNECT."""
        ...

    def stop_broker(self) -> None: ...

    def start_broker(self) -> None: ...

    async def close(self) -> None: ...


class MemorySite:
    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self._buses: list[MemoryBus] = []

    def bus(self, client_id: str, will: Message | None = None) -> MemoryBus:
        bus = MemoryBus(self.broker, client_id=client_id, will=will)
        self._buses.append(bus)
        return bus

    def drop(self, bus: MessageBus) -> None:
        assert isinstance(bus, MemoryBus)
        bus.drop_connection()

    def stop_broker(self) -> None:
        self.broker.stop()

    def start_broker(self) -> None:
        self.broker.start()

    async def close(self) -> None:
        for bus in self._buses:
            await bus.close()


class PahoSite:
    def __init__(self, folder: Path, kind: Preference) -> None:
        self._folder = folder
        self._kind = kind
        self.running = launch(folder, kind)
        self._buses: list[PahoBus] = []

    @property
    def address(self) -> BrokerAddress:
        return self.running.address

    def bus(self, client_id: str, will: Message | None = None) -> PahoBus:
        bus = PahoBus(
            self.address,
            client_id=client_id,
            will=will,
            keep_alive_s=5,
            backoff_min_s=0.02,
            backoff_max_s=0.2,
            random=random.Random(client_id),
        )
        self._buses.append(bus)
        return bus

    def drop(self, bus: MessageBus) -> None:
        assert isinstance(bus, PahoBus)
        assert bus._connection is not None
        bus._connection.abort()

    def stop_broker(self) -> None:
        os.kill(self.running.pid, signal.SIGKILL)
        self.running.stop()

    def start_broker(self) -> None:
        self.running = launch(self._folder, self._kind, self.address.port)

    async def close(self) -> None:
        for bus in self._buses:
            await bus.close()
        self.running.stop()


def launch(folder: Path, kind: Preference, port: int = 0) -> RunningBroker:
    """A broker, or a skipped test where there is none; in CI a missing broker is a failure."""
    try:
        return start_broker(folder, port=port, prefer=kind)
    except StartError as error:
        if "install" not in str(error) or os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
