"""The message bus over a real broker: paho-mqtt on asyncio, MQTT 5.

Clean start and session expiry 0: a request that waited in a session through an outage would be
late, so the broker keeps nothing for us and every reconnect subscribes anew. What must survive an
outage (births, retained state) is published again by the connection handlers.
"""

from __future__ import annotations

import asyncio
import random as random_module
from typing import TYPE_CHECKING

import structlog

from runtime.adapters.backoff import Backoff
from runtime.adapters.clock import SystemClock
from runtime.adapters.dial import BrokerAddress, TlsFiles, dial
from runtime.adapters.handlers import HandlerRunner
from runtime.adapters.message_rules import check_message
from runtime.adapters.outage_log import OutageLog
from runtime.adapters.packet_size import DEFAULT_MAX_PACKET_BYTES
from runtime.adapters.paho_client import ConnectionSettings
from runtime.adapters.paho_connection import PahoConnection
from runtime.adapters.paho_messages import from_paho, subscription_identifiers
from runtime.adapters.subscriptions import Subscriptions
from runtime.errors import NotConnectedError

if TYPE_CHECKING:
    import ssl

    from paho.mqtt.client import MQTTMessage
    from paho.mqtt.reasoncodes import ReasonCode

    from runtime.adapters.subscriptions import Subscription
    from runtime.ports import Clock, ConnectionHandler, Message, MessageHandler

__all__ = ["BrokerAddress", "PahoBus", "TlsFiles"]

_log = structlog.get_logger(__name__)

_FLUSH_S = 1.0

# Two clients with one id throw each other out: after a shorter connection the waits go on growing.
_STABLE_AFTER_S = 5.0
_MAX_KEEP_ALIVE_S = 65_535


class PahoBus:
    """A ``MessageBus`` over TCP or TLS.

    Attributes:
        num_connections: connections accepted by the broker since the start.
        num_malformed: messages whose topic was not UTF-8; they are dropped.
        num_refused: QoS 1 messages that the broker acknowledged with a failure.
    """

    def __init__(
        self,
        address: BrokerAddress,
        *,
        client_id: str,
        will: Message | None = None,
        keep_alive_s: int = 15,
        connect_timeout_s: float = 5.0,
        backoff_min_s: float = 0.25,
        backoff_max_s: float = 10.0,
        max_packet_bytes: int = DEFAULT_MAX_PACKET_BYTES,
        max_queued_bytes: int = 8 * 1024 * 1024,
        max_queued_messages: int = 4096,
        clock: Clock | None = None,
        random: random_module.Random | None = None,
    ) -> None:
        """Nothing happens before ``start``.

        Args:
            address: the broker.
            client_id: unique at the broker; a second connection with the same id ends the first.
            will: what the broker publishes when the connection ends without ``close``.
            keep_alive_s: a dead connection is noticed within about twice this time. What the send
                queue holds must leave within it, too, for a ping waits in the same line.
            connect_timeout_s: for TCP, TLS, CONNACK and all SUBACKs together.
            backoff_min_s: the shortest wait before another try.
            backoff_max_s: the longest.
            max_packet_bytes: the largest packet to send; the broker may name a smaller limit.
            max_queued_bytes: packets not yet sent or acknowledged, in bytes.
            max_queued_messages: the same in messages.
            clock: tells how long a connection held.
            random: draws the waits.

        Raises:
            ValueError: an argument is out of range.
        """
        if not 0 < keep_alive_s <= _MAX_KEEP_ALIVE_S:
            raise ValueError(f"keep alive is 1 to {_MAX_KEEP_ALIVE_S} s, not {keep_alive_s!r}")
        if not client_id:
            raise ValueError("a bus needs a client id")
        if will is not None:
            check_message(will)
        self._address = address
        self._connect_timeout_s = connect_timeout_s
        self._settings = ConnectionSettings(
            host=address.host,
            port=address.port,
            client_id=client_id,
            keep_alive_s=keep_alive_s,
            will=will,
            username=address.username,
            password=address.password,
            max_packet_bytes=max_packet_bytes,
            max_queued_bytes=max_queued_bytes,
            max_queued_messages=max_queued_messages,
        )
        self._backoff = Backoff(
            min_s=backoff_min_s,
            max_s=backoff_max_s,
            random=random or random_module.SystemRandom(),
        )
        self._clock = clock or SystemClock()
        self._log = _log.bind(client_id=client_id, broker=str(address))
        self._outages = OutageLog(self._clock, client_id=client_id, broker=str(address))
        self._runner = HandlerRunner(client_id)
        self._subscriptions = Subscriptions()
        self._connection_handlers: list[ConnectionHandler] = []
        self._tls: ssl.SSLContext | None = None
        self._connection: PahoConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._is_closed = False
        self._closing = asyncio.Lock()
        self.num_connections = 0
        self.num_malformed = 0
        self.num_refused = 0
        self._last_refusal = ("", "")

    @property
    def num_handler_errors(self) -> int:
        """Exceptions that came out of handlers."""
        return self._runner.num_errors

    @property
    def is_connected(self) -> bool:
        """Whether a publish would be tried now."""
        return self._connection is not None and self._connection.is_open

    async def start(self) -> None:
        """Starts connecting and returns.

        Raises:
            StartError: the TLS files are not usable.
            RuntimeError: started twice, or after ``close``.
        """
        if self._task is not None or self._is_closed:
            raise RuntimeError("a bus starts once")
        if self._address.tls is not None:
            self._tls = await asyncio.to_thread(self._address.tls.context)
        name = f"paho-bus:{self._settings.client_id}"
        self._task = asyncio.create_task(self._keep_connected(), name=name)
        self._task.add_done_callback(self._report_end)

    async def wait_connected(self, timeout_s: float) -> bool:
        """Whether a connection with all its subscriptions was there within the time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._ready.wait()
        except TimeoutError:
            return False
        return True

    def subscribe(self, topic_filter: str, handler: MessageHandler, *, qos: int = 0) -> None:
        """Calls ``handler`` with every matching message, now and after every reconnect.

        Another handler on the same filter makes the broker send retained messages to all of them.

        Raises:
            ValueError: the filter is malformed, or the QoS is neither 0 nor 1.
        """
        wanted = self._subscriptions.add(topic_filter, handler, qos)
        if self._connection is not None and self._connection.is_open:
            self._send_subscribe(self._connection, wanted)

    def on_connection(self, handler: ConnectionHandler) -> None:
        """Calls ``handler(True)`` after every connect and ``handler(False)`` after every loss."""
        self._connection_handlers.append(handler)

    def publish(self, message: Message) -> int:
        """Hands a message to the connection and returns the bytes of its PUBLISH packet.

        Raises:
            NotConnectedError: there is no connection, or its send queue is full.
            PayloadTooLargeError: over our limit of a packet or the broker's.
            ValueError: no broker would take this message.
        """
        check_message(message)
        if self._connection is None or not self._connection.is_open:
            raise NotConnectedError(f"no connection to the broker at {self._address}")
        return self._connection.publish(message)

    async def close(self) -> None:
        """Sends what is queued (within a second), disconnects without the will."""
        self._is_closed = True
        async with self._closing:
            self._ready.clear()
            connection, self._connection = self._connection, None
            task, self._task = self._task, None
            try:
                if connection is not None:
                    await connection.close(_FLUSH_S)
            finally:
                if task is not None:
                    task.cancel()
                    await asyncio.wait({task})

    async def _keep_connected(self) -> None:
        while True:
            connection: PahoConnection | None = None
            try:
                connection = await self._connect()
            except OSError as error:  # what asyncio, ssl and paho raise, a timeout included
                self._outages.failed(str(error) or "timed out")
            else:
                await self._stay(connection)
            await asyncio.sleep(self._backoff.next_s())

    async def _connect(self) -> PahoConnection:
        """A connection that the broker accepted, with all subscriptions answered."""
        async with asyncio.timeout(self._connect_timeout_s):
            sock = await dial(self._address, self._tls)
            connection = PahoConnection(self._settings, sock, self._on_message, self._on_refused)
            try:
                await connection.open()
                # From here on publish works: a handler may be called before the last SUBACK.
                self._connection = connection
                answers = [
                    self._send_subscribe(connection, wanted) for wanted in self._subscriptions
                ]
                await asyncio.gather(*answers)
            except BaseException:
                self._connection = None
                connection.abort()
                raise
        return connection

    async def _stay(self, connection: PahoConnection) -> None:
        """Returns when the connection is lost."""
        began_s = self._clock.monotonic_s()
        self.num_connections += 1
        self._outages.connected()
        self._ready.set()
        self._tell(is_connected=True)
        reason = await connection.lost
        if self._is_closed:
            return  # ``close`` ends the connection itself
        self._ready.clear()
        self._connection = None
        connection.abort()
        held_s = self._clock.monotonic_s() - began_s
        self._outages.lost(reason, held_s)
        if held_s > _STABLE_AFTER_S:
            self._backoff.reset()
        self._tell(is_connected=False)

    def _tell(self, *, is_connected: bool) -> None:
        about = "connected" if is_connected else "lost"
        for handler in tuple(self._connection_handlers):
            self._runner.run(handler, is_connected, about=about)

    def _send_subscribe(
        self, connection: PahoConnection, wanted: Subscription
    ) -> asyncio.Future[ReasonCode]:
        answer = connection.subscribe(wanted.topic_filter, wanted.qos, wanted.identifier)
        answer.add_done_callback(lambda done: self._note_suback(wanted, done))
        return answer

    def _note_suback(self, wanted: Subscription, answer: asyncio.Future[ReasonCode]) -> None:
        if answer.cancelled() or answer.exception() is not None:
            return  # the connection ended, which is reported as such
        reason = answer.result()
        if reason.is_failure:
            self._log.error(
                "subscription.refused", topic_filter=wanted.topic_filter, reason=str(reason)
            )

    def _on_message(self, received: MQTTMessage) -> None:
        if self._is_closed:
            return
        try:
            message = from_paho(received)
        except ValueError:
            self.num_malformed += 1
            self._log.warning("message.malformed", num_malformed=self.num_malformed)
            return
        identifiers = subscription_identifiers(received)
        for handler in self._subscriptions.handlers_of(message.topic, identifiers):
            self._runner.run(handler, message, about=message.topic)

    def _on_refused(self, topic: str, reason: str) -> None:
        self.num_refused += 1
        # Counted each time and logged once: what an access rule refuses, it refuses every time.
        if (topic, reason) != self._last_refusal:
            self._last_refusal = (topic, reason)
            self._log.warning("publish.refused", topic=topic, reason=reason)

    def _report_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._log.critical("bus.died", exc_info=task.exception())
