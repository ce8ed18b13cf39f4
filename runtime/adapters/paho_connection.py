"""One MQTT 5 connection, from CONNECT to its end; a new one is made for every try.

A paho client carries unacknowledged messages, half-read packets and a changed keep alive into its
next connection. Nothing of ours may survive that way (nothing is queued while there is no
connection), so each connection has a client of its own and reconnecting is not left to paho.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as mqtt
import structlog
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from runtime.adapters.buffered_socket import BufferedSocket
from runtime.adapters.mqtt_properties import (
    connect_properties,
    message_properties,
    subscribe_properties,
)
from runtime.adapters.packet_size import publish_packet_bytes
from runtime.adapters.paho_client import create_client
from runtime.adapters.paho_driver import PahoDriver
from runtime.adapters.send_queue import SendQueue
from runtime.errors import NotConnectedError, PayloadTooLargeError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

    from runtime.adapters.paho_client import ConnectionSettings
    from runtime.ports import Message

_log = structlog.get_logger(__name__)

# MQTT 5, 3.2.2.3.3: without a receive maximum in CONNACK the broker takes this many.
_DEFAULT_RECEIVE_MAXIMUM = 65_535


class PahoConnection:
    """A connection on the running loop; every method must be called there.

    Attributes:
        lost: done with the reason as soon as the connection has ended.
    """

    def __init__(
        self,
        settings: ConnectionSettings,
        sock: socket.socket,
        on_message: Callable[[mqtt.MQTTMessage], None],
        on_refused: Callable[[str, str], None],
    ) -> None:
        """Takes the socket over.

        Args:
            settings: what to say in CONNECT, and the bounds.
            sock: connected and non-blocking.
            on_message: called with every message received.
            on_refused: called with the topic of a QoS 1 message and why the broker refused it.
        """
        loop = asyncio.get_running_loop()
        self._settings = settings
        self._log = _log.bind(client_id=settings.client_id)
        self.lost: asyncio.Future[str] = loop.create_future()
        self._is_closing = False
        self._on_refused = on_refused
        self._accepted: asyncio.Future[None] = loop.create_future()
        self._subacks: dict[int, asyncio.Future[ReasonCode]] = {}
        self._max_packet_bytes = settings.max_packet_bytes
        self._queue = SendQueue(
            max_bytes=settings.max_queued_bytes, max_messages=settings.max_queued_messages
        )
        self._on_their_way: dict[int, deque[_Sent]] = {}
        self._waiting: deque[tuple[Message, int]] = deque()
        self._receive_maximum = _DEFAULT_RECEIVE_MAXIMUM
        self._num_unacknowledged = 0
        self._socket = BufferedSocket(sock)
        self._client = create_client(settings, self._socket)
        self._client.on_connect = self._on_connack
        self._client.on_disconnect = lambda *args: self._end(str(args[3]))
        self._client.on_message = lambda *args: on_message(args[2])
        self._client.on_publish = self._on_sent
        self._client.on_subscribe = self._on_suback
        self._driver = PahoDriver(self._client, self._socket, on_malformed=self._break)

    @property
    def is_open(self) -> bool:
        """Whether the broker accepted us and the connection has not ended."""
        return self._accepted.done() and not self.lost.done()

    async def open(self) -> None:
        """Sends CONNECT and waits until the broker accepts it; the caller limits the time.

        Raises:
            ConnectionError: refused, or the connection ended first; the text is the reason.
        """
        settings = self._settings
        self._client.connect(
            settings.host,
            settings.port,
            settings.keep_alive_s,
            clean_start=True,
            properties=connect_properties(),
        )
        await self._accepted

    def subscribe(self, topic_filter: str, qos: int, identifier: int) -> asyncio.Future[ReasonCode]:
        """Sends SUBSCRIBE; the result is the broker's answer, or ConnectionError if it is lost."""
        answer: asyncio.Future[ReasonCode] = asyncio.get_running_loop().create_future()
        _, mid = self._client.subscribe(
            topic_filter,
            options=SubscribeOptions(qos=qos),
            properties=subscribe_properties(identifier),
        )
        if mid is None:
            answer.set_exception(ConnectionResetError("the connection ended"))
        else:
            self._subacks[mid] = answer
        return answer

    def publish(self, message: Message) -> int:
        """Hands a message over and returns the bytes of its packet.

        Raises:
            NotConnectedError: the connection has ended or the send queue is full.
            PayloadTooLargeError: over our limit of a packet or the broker's.
        """
        size = publish_packet_bytes(message)
        if size > self._max_packet_bytes:
            raise PayloadTooLargeError(
                f"a packet of {size} bytes is over the limit of {self._max_packet_bytes}"
            )
        self._queue.check_room(size)
        if message.qos and not self._window_is_open(has_waiting=bool(self._waiting)):
            self._waiting.append((message, size))
        elif not self._send(message, size):
            raise NotConnectedError("the connection has just ended")
        self._queue.add(size)
        return size

    async def close(self, timeout_s: float) -> None:
        """Sends what is queued, disconnects without the will and closes; never takes longer."""
        self._is_closing = True
        try:
            async with asyncio.timeout(timeout_s):
                await self._queue.drained.wait()
                if self.is_open:
                    self._socket.keep_open = True
                    self._client.disconnect()
                    await self.lost
                    self._driver.stop()
                    await self._socket.finish()
        except TimeoutError:
            self._log.warning(
                "connection.cut_short",
                num_unsent=self._queue.num_messages,
                unsent_bytes=self._queue.num_bytes,
            )
        finally:
            self._is_closing = False
            self.abort()

    def abort(self) -> None:
        """Ends the connection at once, and the broker publishes the will; leaves a close alone."""
        if self._is_closing:
            return
        self._end("closed here")
        self._driver.stop()
        self._socket.abort()

    def _break(self, reason: str) -> None:
        self._end(reason)
        self.abort()

    def _end(self, reason: str) -> None:
        """Tells everyone who waits; safe to call again."""
        if self.lost.done():
            return
        self.lost.set_result(reason)
        self._queue.drained.set()
        futures: list[asyncio.Future[Any]] = [self._accepted, *self._subacks.values()]
        for future in futures:
            if not future.done():
                future.set_exception(ConnectionResetError(reason))
                future.exception()  # marked as seen: after a cancelled try nobody waits for it
        self._subacks.clear()

    def _on_connack(
        self,
        _client: mqtt.Client,
        _userdata: object,
        _flags: mqtt.ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if self._accepted.done():
            return
        if reason.is_failure:
            self._accepted.set_exception(ConnectionRefusedError(f"refused by the broker: {reason}"))
            return
        given = vars(properties) if properties else {}
        self._max_packet_bytes = min(
            self._max_packet_bytes, given.get("MaximumPacketSize", self._max_packet_bytes)
        )
        self._receive_maximum = given.get("ReceiveMaximum", _DEFAULT_RECEIVE_MAXIMUM)
        self._accepted.set_result(None)

    def _on_suback(
        self,
        _client: mqtt.Client,
        _userdata: object,
        mid: int,
        reasons: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        answer = self._subacks.pop(mid, None)
        if answer is not None and not answer.done() and reasons:
            answer.set_result(reasons[0])

    def _on_sent(
        self,
        _client: mqtt.Client,
        _userdata: object,
        mid: int,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        """A QoS 0 message was written, or a QoS 1 message was acknowledged."""
        same_number = self._on_their_way.get(mid)
        if not same_number:
            return
        sent = same_number.popleft()
        if not same_number:
            del self._on_their_way[mid]
        self._queue.remove(sent.size)
        self._num_unacknowledged -= sent.qos
        if reason.is_failure:
            self._on_refused(sent.topic, str(reason))
        while self._waiting and self._window_is_open(has_waiting=False):
            if not self._send(*self._waiting[0]):
                return  # the connection is ending
            self._waiting.popleft()

    def _window_is_open(self, *, has_waiting: bool) -> bool:
        """Whether one more QoS 1 message may go out (MQTT 5, 4.9); those that wait go first."""
        return not has_waiting and self._num_unacknowledged < self._receive_maximum

    def _send(self, message: Message, size: int) -> bool:
        given = self._client.publish(
            message.topic, message.payload, message.qos, message.retain, message_properties(message)
        )
        if given.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            return False
        # paho numbers QoS 0 and QoS 1 alike and starts over at 65,536: an old unacknowledged
        # message and a new one can share a number.
        sent = _Sent(message.topic, message.qos, size)
        self._on_their_way.setdefault(given.mid, deque()).append(sent)
        self._num_unacknowledged += message.qos
        return True


@dataclass(frozen=True, slots=True)
class _Sent:
    topic: str
    qos: int
    size: int
