"""What MQTT allows in a topic, a filter and a message, checked before anything reaches a broker.

A broker answers a malformed packet by closing the connection, and a message that is tried again
would close it again and again; so misuse is a ``ValueError`` at the caller, not a lost connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.ports import Message

_MAX_STRING_BYTES = 65_535
_MAX_EXPIRY_S = 2**32 - 1


def check_message(message: Message) -> None:
    """Refuses a message that no broker would take.

    Raises:
        ValueError: a wildcard or an empty topic, a QoS other than 0 and 1, an expiry out of range,
            or a string that MQTT cannot carry.
    """
    if not message.topic or "+" in message.topic or "#" in message.topic:
        raise ValueError(f"{message.topic!r} is no topic to publish to")
    if message.qos not in (0, 1):
        raise ValueError(f"QoS is 0 or 1, not {message.qos!r}")
    if message.expiry_s is not None and not 0 <= message.expiry_s <= _MAX_EXPIRY_S:
        raise ValueError(f"expiry is 0 to {_MAX_EXPIRY_S} s, not {message.expiry_s!r}")
    if len(message.correlation_data) > _MAX_STRING_BYTES:
        raise ValueError(f"correlation data is at most {_MAX_STRING_BYTES} bytes")
    _check_string(message.topic)
    _check_string(message.response_topic)
    _check_string(message.content_type)
    for name, value in message.user:
        _check_string(name)
        _check_string(value)


def check_filter(topic_filter: str, qos: int) -> None:
    """Refuses a subscription that no broker would take (MQTT 5, 4.7 and 4.8.2).

    Raises:
        ValueError: the filter is malformed, or the QoS is neither 0 nor 1.
    """
    if qos not in (0, 1):
        raise ValueError(f"QoS is 0 or 1, not {qos!r}")
    _check_string(topic_filter)
    pattern = topic_filter
    if topic_filter.startswith("$share/"):
        _, group, pattern = (*topic_filter.split("/", 2), "", "")[:3]
        if not group or "+" in group or "#" in group:
            raise ValueError(f"{topic_filter!r} names no group to share with")
    levels = pattern.split("/")
    if not pattern or "#" in levels[:-1]:
        raise ValueError(f"{topic_filter!r} is no topic filter")
    if any(len(level) > 1 and ("+" in level or "#" in level) for level in levels):
        raise ValueError(f"{topic_filter!r} has a wildcard inside a level")


def _check_string(text: str) -> None:
    """UTF-8 of at most 65,535 bytes without a null character (MQTT 5, 1.5.4)."""
    if "\0" in text:
        raise ValueError(f"{text[:40]!r} holds a null character")
    if len(text.encode()) > _MAX_STRING_BYTES:
        raise ValueError(f"{text[:40]!r}... is over {_MAX_STRING_BYTES} bytes")
