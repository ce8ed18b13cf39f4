"""The message bus without sockets: for tests, simulations, and all tiers in one process.

Keeps every promise of the port; the contract tests hold it against the real buses.
"""

from __future__ import annotations

import asyncio
import random as random_module
from collections.abc import Callable

import structlog

from runtime.adapters.backoff import Backoff
from runtime.adapters.handlers import HandlerRunner
from runtime.adapters.memory_broker import MemoryBroker, MemorySession
from runtime.adapters.memory_link import LinkFaults
from runtime.adapters.message_rules import check_message
from runtime.adapters.packet_size import publish_packet_bytes
from runtime.adapters.send_queue import SendQueue
from runtime.adapters.subscriptions import Subscriptions
from runtime.errors import NotConnectedError, PayloadTooLargeError
from runtime.ports import ConnectionHandler, Message, MessageHandler

__all__ = ["LinkFaults", "MemoryBroker", "MemoryBus"]

_log = structlog.get_logger(__name__)

_FLUSH_S = 1.0

# A real client notices a dead connection after 1 to 2 keep alives.
_NOTICED_AFTER_KEEP_ALIVES = 1.5


class MemoryBus:
    """A ``MessageBus`` over a ``MemoryBroker``."""

    def __init__(
        self,
        broker: MemoryBroker,
        *,
        client_id: str,
        will: Message | None = None,
        keep_alive_s: float = 15.0,
        link: LinkFaults | None = None,
        backoff_min_s: float = 0.01,
        backoff_max_s: float = 1.0,
        max_queued_bytes: int = 8 * 1024 * 1024,
        max_queued_messages: int = 4096,
    ) -> None:
        """Nothing happens before ``start``.

        Args:
            broker: routes between the buses that are given the same one.
            client_id: a second connection with the same id ends the first.
            will: what the broker publishes when the connection ends without ``close``.
            keep_alive_s: a partition ends the connection after one and a half times this.
            link: how bad the link to the broker is; None: perfect.
            backoff_min_s: the shortest wait before another try.
            backoff_max_s: the longest.
            max_queued_bytes: packets that have not reached the broker, in bytes.
            max_queued_messages: the same in messages.
        """
        if keep_alive_s <= 0:
            raise ValueError(f"keep alive is over 0 s, not {keep_alive_s!r}")
        if not client_id:
            raise ValueError("a bus needs a client id")
        if will is not None:
            check_message(will)
        self._broker = broker
        self._client_id = client_id
        self._will = will
        self._keep_alive_s = keep_alive_s
        self._link = link or LinkFaults()
        self._backoff = Backoff(
            min_s=backoff_min_s,
            max_s=backoff_max_s,
            random=random_module.Random(f"{broker.seed}/{client_id}"),  # noqa: S311  a simulation
        )
        self._max_queued_bytes = max_queued_bytes
        self._max_queued_messages = max_queued_messages
        self._queue = SendQueue(max_bytes=max_queued_bytes, max_messages=max_queued_messages)
        self._runner = HandlerRunner(client_id)
        self._subscriptions = Subscriptions()
        self._connection_handlers: list[ConnectionHandler] = []
        self._session: MemorySession | None = None
        self._ready = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._is_started = False
        self._is_closed = False
        self._is_partitioned = False
        self.num_connections = 0

    @property
    def num_handler_errors(self) -> int:
        """Exceptions that came out of handlers."""
        return self._runner.num_errors

    @property
    def is_connected(self) -> bool:
        """Whether a publish would be tried now."""
        return self._session is not None

    async def start(self) -> None:
        """Starts connecting and returns.

        Raises:
            RuntimeError: started twice, or after ``close``.
        """
        if self._is_started or self._is_closed:
            raise RuntimeError("a bus starts once")
        self._is_started = True
        self._set_timer(2 * self._link.delay_s, self._connect)

    async def wait_connected(self, timeout_s: float) -> bool:
        """Whether a connection was there within the time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._ready.wait()
        except TimeoutError:
            return False
        return True

    def subscribe(self, topic_filter: str, handler: MessageHandler, *, qos: int = 0) -> None:
        """Calls ``handler`` with every matching message, now and after every reconnect.

        Raises:
            ValueError: the filter is malformed, or the QoS is neither 0 nor 1.
        """
        wanted = self._subscriptions.add(topic_filter, handler, qos)
        if self._session is not None:
            self._session.subscribe(wanted.topic_filter, wanted.qos, wanted.identifier)

    def on_connection(self, handler: ConnectionHandler) -> None:
        """Calls ``handler(True)`` after every connect and ``handler(False)`` after every loss."""
        self._connection_handlers.append(handler)

    def publish(self, message: Message) -> int:
        """Hands a message to the connection and returns the bytes its PUBLISH packet would have.

        Raises:
            NotConnectedError: there is no connection, or its send queue is full.
            PayloadTooLargeError: over the broker's maximum packet size.
            ValueError: no broker would take this message.
        """
        check_message(message)
        if self._session is None:
            raise NotConnectedError(f"{self._client_id} has no connection to the broker")
        size = publish_packet_bytes(message)
        if size > self._broker.max_packet_bytes:
            raise PayloadTooLargeError(
                f"a packet of {size} bytes is over the limit of {self._broker.max_packet_bytes}"
            )
        queue = self._queue
        queue.check_room(size)
        queue.add(size)
        self._session.publish(message, on_gone=lambda: queue.remove(size))
        return size

    async def close(self) -> None:
        """Sends what is queued (within a second), disconnects without the will."""
        self._is_closed = True
        self._ready.clear()
        self._cancel_timer()
        session, self._session = self._session, None
        if session is None:
            return
        try:
            async with asyncio.timeout(_FLUSH_S):
                await self._queue.drained.wait()
        except TimeoutError:
            _log.warning("connection.cut_short", client_id=self._client_id)
        finally:
            session.end(with_will=self._is_partitioned)

    def drop_connection(self) -> None:
        """Ends the connection as a crash or a cut cable does: the broker publishes the will."""
        if self._session is not None:
            self._session.end(with_will=True, reason="dropped")

    def partition(self) -> None:
        """Lets nothing through either way; both ends notice when the keep alive is over."""
        self._is_partitioned = True
        session = self._session
        if session is None:
            return
        session.up.hold()
        session.down.hold()
        self._set_timer(
            _NOTICED_AFTER_KEEP_ALIVES * self._keep_alive_s,
            lambda: session.end(with_will=True, reason="keep alive timeout"),
        )

    def heal(self) -> None:
        """Ends a partition: what was held goes on, or the bus connects again."""
        self._is_partitioned = False
        if self._session is not None:
            self._cancel_timer()
            self._session.up.release()
            self._session.down.release()

    def _connect(self) -> None:
        session = None
        if not self._is_partitioned:
            session = self._broker.open(
                self._client_id,
                will=self._will,
                faults=self._link,
                on_message=self._on_message,
                on_lost=self._on_lost,
            )
        if session is None:
            self._set_timer(self._backoff.next_s(), self._connect)
            return
        self._session = session
        self._queue = SendQueue(
            max_bytes=self._max_queued_bytes, max_messages=self._max_queued_messages
        )
        for wanted in self._subscriptions:
            # Acknowledged before anyone is told of the connection, as with the real bus.
            self._broker.subscribe(session, wanted.topic_filter, wanted.qos, wanted.identifier)
        self._backoff.reset()
        self.num_connections += 1
        self._ready.set()
        self._tell(is_connected=True)

    def _on_lost(self, reason: str) -> None:
        self._session = None
        self._ready.clear()
        self._queue.drained.set()
        if self._is_closed:
            return
        _log.warning("connection.lost", client_id=self._client_id, reason=reason)
        # Not from within the call that ended it: handlers run one at a time.
        asyncio.get_running_loop().call_soon(lambda: self._tell(is_connected=False))
        self._set_timer(self._backoff.next_s() + 2 * self._link.delay_s, self._connect)

    def _on_message(self, message: Message, identifier: int) -> None:
        if self._is_closed:
            return
        for handler in self._subscriptions.handlers_of(message.topic, (identifier,)):
            self._runner.run(handler, message, about=message.topic)

    def _tell(self, *, is_connected: bool) -> None:
        about = "connected" if is_connected else "lost"
        for handler in tuple(self._connection_handlers):
            self._runner.run(handler, is_connected, about=about)

    def _set_timer(self, wait_s: float, call: Callable[[], object]) -> None:
        self._cancel_timer()
        self._timer = asyncio.get_running_loop().call_later(wait_s, call)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
