"""MQTT 5 properties as bytes (MQTT 5, 2.2.2).

paho builds four tables for every ``Properties`` it makes and searches them for every value, which
is most of what sending a small message costs; it needs no more of one than ``pack``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paho.mqtt.properties import Properties

if TYPE_CHECKING:
    from runtime.ports import Message

_EXPIRY = b"\x02"
_CONTENT_TYPE = b"\x03"
_RESPONSE_TOPIC = b"\x08"
_CORRELATION_DATA = b"\x09"
_SUBSCRIPTION_IDENTIFIER = b"\x0b"
_SESSION_EXPIRY = b"\x11"
_USER = b"\x26"


class PackedProperties(Properties):
    """Properties that are bytes already, in the shape that paho takes."""

    def __init__(self, content: bytes) -> None:
        # Not the base's: its tables are what this class is there to avoid.
        object.__setattr__(self, "_packed", _varint(len(content)) + content)

    def pack(self) -> bytes:
        """The properties with their length in front."""
        packed: bytes = object.__getattribute__(self, "_packed")
        return packed

    def __str__(self) -> str:
        return f"[{len(self.pack())} bytes]"


def message_properties(message: Message) -> PackedProperties | None:
    """The properties of a PUBLISH or of a will; None when there are none."""
    parts = []
    if message.expiry_s is not None:
        parts += [_EXPIRY, message.expiry_s.to_bytes(4)]
    if message.content_type:
        parts += [_CONTENT_TYPE, _prefixed(message.content_type.encode())]
    if message.response_topic:
        parts += [_RESPONSE_TOPIC, _prefixed(message.response_topic.encode())]
    if message.correlation_data:
        parts += [_CORRELATION_DATA, _prefixed(message.correlation_data)]
    for name, value in message.user:
        parts += [_USER, _prefixed(name.encode()), _prefixed(value.encode())]
    return PackedProperties(b"".join(parts)) if parts else None


def connect_properties() -> PackedProperties:
    """The properties of CONNECT: the session ends with the connection."""
    return PackedProperties(_SESSION_EXPIRY + (0).to_bytes(4))


def subscribe_properties(identifier: int) -> PackedProperties:
    """The properties of SUBSCRIBE: how the broker shall name this subscription to us."""
    return PackedProperties(_SUBSCRIPTION_IDENTIFIER + _varint(identifier))


def _prefixed(data: bytes) -> bytes:
    return len(data).to_bytes(2) + data


def _varint(value: int) -> bytes:
    """A variable byte integer: seven bits a byte, the low ones first (MQTT 5, 1.5.5)."""
    encoded = bytearray()
    while value > 0x7F:  # noqa: PLR2004  seven bits
        encoded.append(0x80 | value & 0x7F)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
