"""How many bytes a message takes on the wire (MQTT 5, 3.3).

Pure arithmetic, so that every bus, the real one and the one in memory, reports the same cost, and a
message over a broker's limit is refused before anything is built or sent.
"""

from __future__ import annotations

from runtime.ports import Message

# What our brokers are set to take, and what a bus sends to one that does not name its limit, as
# rumqttd: it closes the connection. A request of 600 KB fits; what is larger travels by HTTP.
DEFAULT_MAX_PACKET_BYTES = 2 * 1024 * 1024

_IDENTIFIER = 1
_LENGTH = 2


def publish_packet_bytes(message: Message) -> int:
    """The size of the PUBLISH packet that carries ``message``, fixed header included."""
    properties = _properties_bytes(message)
    remaining = (
        _LENGTH
        + _utf8_bytes(message.topic)
        + (2 if message.qos else 0)  # packet identifier
        + _varint_bytes(properties)
        + properties
        + len(message.payload)
    )
    return 1 + _varint_bytes(remaining) + remaining


def _properties_bytes(message: Message) -> int:
    """The properties without the length in front of them; an empty one is not sent at all."""
    size = 0
    if message.expiry_s is not None:
        size += _IDENTIFIER + 4
    for text in (message.response_topic, message.content_type):
        if text:
            size += _IDENTIFIER + _LENGTH + _utf8_bytes(text)
    if message.correlation_data:
        size += _IDENTIFIER + _LENGTH + len(message.correlation_data)
    for name, value in message.user:
        size += _IDENTIFIER + _LENGTH + _utf8_bytes(name) + _LENGTH + _utf8_bytes(value)
    return size


def _utf8_bytes(text: str) -> int:
    # Nearly every topic and property is ASCII, where no copy is needed to count.
    return len(text) if text.isascii() else len(text.encode())


def _varint_bytes(value: int) -> int:
    """How long a variable byte integer is: seven bits a byte (MQTT 5, 1.5.5)."""
    return max(1, -(-value.bit_length() // 7))
