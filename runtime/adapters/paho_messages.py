"""Turns what paho received into our messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runtime.ports import Message

if TYPE_CHECKING:
    from paho.mqtt.client import MQTTMessage


def from_paho(message: MQTTMessage) -> Message:
    """The message as it was received.

    Raises:
        ValueError: the topic is not UTF-8.
    """
    given = _given(message)
    return Message(
        topic=message.topic,
        payload=bytes(message.payload),
        qos=message.qos,
        retain=bool(message.retain),
        response_topic=given.get("ResponseTopic", ""),
        correlation_data=bytes(given.get("CorrelationData", b"")),
        content_type=given.get("ContentType", ""),
        expiry_s=given.get("MessageExpiryInterval"),
        user=tuple((name, value) for name, value in given.get("UserProperty", ())),
    )


def subscription_identifiers(message: MQTTMessage) -> list[int]:
    """Which of our subscriptions the broker had in mind; empty when it does not say."""
    identifiers: list[int] = _given(message).get("SubscriptionIdentifier", [])
    return identifiers


def _given(message: MQTTMessage) -> dict[str, Any]:
    # paho keeps the properties that were there, and no others, each as an attribute.
    return vars(message.properties) if message.properties else {}
