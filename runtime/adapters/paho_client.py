"""A paho client set up the way a connection of ours needs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from runtime.adapters.mqtt_properties import message_properties

if TYPE_CHECKING:
    from runtime.adapters.buffered_socket import BufferedSocket
    from runtime.ports import Message


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """What a connection says of itself and how much it may hold back."""

    host: str
    port: int
    client_id: str
    keep_alive_s: int
    will: Message | None
    username: str
    password: str
    max_packet_bytes: int
    max_queued_bytes: int
    max_queued_messages: int


class _Client(mqtt.Client):
    """A paho client that takes a connected socket; paho itself would connect and block."""

    def __init__(self, sock: BufferedSocket, client_id: str) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
        )
        self._given_socket = sock

    def _create_socket(self) -> BufferedSocket:
        return self._given_socket


def create_client(settings: ConnectionSettings, sock: BufferedSocket) -> mqtt.Client:
    """A paho client that will speak over ``sock``; nothing is sent yet."""
    client = _Client(sock, settings.client_id)
    # 0 is no limit: paho cannot change its window once it is connecting, and the broker's is known
    # only after that, so the connection keeps the window itself.
    client.max_inflight_messages_set(0)
    if settings.username:
        client.username_pw_set(settings.username, settings.password)
    will = settings.will
    if will is not None:
        client.will_set(will.topic, will.payload, will.qos, will.retain, message_properties(will))
    return client
