"""An MQTT broker in memory: routing, retained messages, wills, shared subscriptions, expiry."""

from __future__ import annotations

import asyncio
import random as random_module
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from runtime.adapters.memory_link import LinkFaults, OneWay
from runtime.adapters.packet_size import DEFAULT_MAX_PACKET_BYTES
from runtime.topics import matches

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.ports import Message

_SHARED = "$share/"

# What a broker keeps for a connection that does not take it, as mosquitto's max_queued_messages.
_MAX_QUEUED_DOWN = 10_000


@dataclass(frozen=True, slots=True)
class _Retained:
    message: Message
    since_s: float


@dataclass(frozen=True, slots=True)
class _Subscribed:
    qos: int
    identifier: int


class MemorySession:
    """One connection of one client, as both ends see it; ends once and for all."""

    def __init__(
        self,
        broker: MemoryBroker,
        client_id: str,
        *,
        will: Message | None,
        up: OneWay,
        down: OneWay,
        on_message: Callable[[Message, int], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._broker = broker
        self.client_id = client_id
        self.will = will
        self.up = up
        self.down = down
        self.on_message = on_message
        self._on_lost = on_lost
        self.subscribed: dict[str, _Subscribed] = {}
        self.is_open = True

    def publish(self, message: Message, on_gone: Callable[[], None]) -> None:
        """Sends a message to the broker; ``on_gone`` is called when it has left, or is lost."""
        has_gone = False

        def arrive() -> None:
            nonlocal has_gone
            if not has_gone:  # a doubled packet leaves only once
                has_gone = True
                on_gone()
            self._broker.route(message)

        self.up.send(arrive, qos=message.qos, lose=on_gone)

    def subscribe(self, topic_filter: str, qos: int, identifier: int) -> None:
        """Sends a subscription to the broker."""
        self.up.send(
            lambda: self._broker.subscribe(self, topic_filter, qos, identifier),
            qos=1,
        )

    def end(self, *, with_will: bool, reason: str = "") -> None:
        """Ends the connection at both ends; ``reason`` tells the client, if there is one."""
        if not self.is_open:
            return
        self.is_open = False
        self.up.cut()
        self.down.cut()
        self._broker.forget(self)
        if with_will and self.will is not None:
            self._broker.route(self.will)
        if reason:
            self._on_lost(reason)


class MemoryBroker:
    """Routes between the ``MemoryBus`` objects that are given it.

    Attributes:
        num_expired: messages dropped because their expiry was over.
        num_dropped: messages dropped because a client did not take them.
    """

    def __init__(self, *, seed: int = 0, max_packet_bytes: int = DEFAULT_MAX_PACKET_BYTES) -> None:
        """``seed`` decides every fault of every link; the same calls give the same faults."""
        self.seed = seed
        self.max_packet_bytes = max_packet_bytes
        self.num_expired = 0
        self.num_dropped = 0
        self._is_running = True
        self._num_sessions = 0
        self._sessions: dict[str, MemorySession] = {}
        self._retained: dict[str, _Retained] = {}
        self._turns: dict[str, int] = {}

    def stop(self) -> None:
        """Ends as a killed process does: all connections gone, no wills, nothing retained."""
        self._is_running = False
        self._retained.clear()
        self._turns.clear()
        for session in tuple(self._sessions.values()):
            session.end(with_will=False, reason="the broker stopped")

    def start(self) -> None:
        """Accepts connections again."""
        self._is_running = True

    def open(
        self,
        client_id: str,
        *,
        will: Message | None,
        faults: LinkFaults,
        on_message: Callable[[Message, int], None],
        on_lost: Callable[[str], None],
    ) -> MemorySession | None:
        """A connection, or None while the broker is stopped; ends an older one of the same id."""
        if not self._is_running:
            return None
        older = self._sessions.get(client_id)
        if older is not None:
            older.end(with_will=True, reason="session taken over")
        self._num_sessions += 1
        up, down = (
            OneWay(faults, random_module.Random(f"{self.seed}/{client_id}/{number}/{direction}"))  # noqa: S311  faults, not secrets
            for number, direction in ((self._num_sessions, "up"), (self._num_sessions, "down"))
        )
        session = MemorySession(
            self, client_id, will=will, up=up, down=down, on_message=on_message, on_lost=on_lost
        )
        self._sessions[client_id] = session
        return session

    def forget(self, session: MemorySession) -> None:
        """A session has ended."""
        if self._sessions.get(session.client_id) is session:
            del self._sessions[session.client_id]

    def subscribe(
        self, session: MemorySession, topic_filter: str, qos: int, identifier: int
    ) -> None:
        """Takes a subscription and sends what is retained, not to a shared one (MQTT 5, 4.8.2)."""
        session.subscribed[topic_filter] = _Subscribed(qos, identifier)
        if topic_filter.startswith(_SHARED):
            return
        for topic, kept in tuple(self._retained.items()):
            if matches(topic_filter, topic):
                self._send_down(session, kept.message, session.subscribed[topic_filter], kept)

    def route(self, message: Message) -> None:
        """Gives a message to all who want it, and keeps it if it is retained."""
        if message.retain:
            if message.payload:
                now_s = asyncio.get_running_loop().time()
                self._retained[message.topic] = _Retained(message, now_s)
            else:
                self._retained.pop(message.topic, None)
        shared: dict[str, list[MemorySession]] = {}
        for session in tuple(self._sessions.values()):
            for topic_filter, wanted in tuple(session.subscribed.items()):
                if not matches(topic_filter, message.topic):
                    continue
                if topic_filter.startswith(_SHARED):
                    shared.setdefault(topic_filter, []).append(session)
                else:
                    self._send_down(session, message, wanted)
        for topic_filter, members in shared.items():
            turn = self._turns.get(topic_filter, 0)
            self._turns[topic_filter] = turn + 1
            chosen = members[turn % len(members)]
            self._send_down(chosen, message, chosen.subscribed[topic_filter])

    def _send_down(
        self,
        session: MemorySession,
        message: Message,
        wanted: _Subscribed,
        kept: _Retained | None = None,
    ) -> None:
        if len(session.down) >= _MAX_QUEUED_DOWN:
            self.num_dropped += 1
            return
        loop = asyncio.get_running_loop()
        since_s = kept.since_s if kept else loop.time()
        delivered = replace(message, qos=min(message.qos, wanted.qos), retain=kept is not None)

        def arrive() -> None:
            self._deliver(session, delivered, wanted.identifier, loop.time() - since_s)

        session.down.send(arrive, qos=delivered.qos)

    def _deliver(
        self, session: MemorySession, message: Message, identifier: int, waited_s: float
    ) -> None:
        """Hands over what is not too old, with the rest of its expiry (MQTT 5, 3.3.2.3.3)."""
        if message.expiry_s is not None:
            if waited_s >= message.expiry_s:
                self.num_expired += 1
                return
            message = replace(message, expiry_s=message.expiry_s - int(waited_s))
        session.on_message(message, identifier)
