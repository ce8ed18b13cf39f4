"""Our packed properties against paho's own reader of properties."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import MQTTMessage
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from runtime.adapters.mqtt_properties import (
    connect_properties,
    message_properties,
    subscribe_properties,
)
from runtime.adapters.paho_messages import from_paho, subscription_identifiers
from runtime.ports import Message

pytestmark = pytest.mark.unit

texts = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"), max_size=200
)
messages = st.builds(
    Message,
    topic=st.just("t"),
    response_topic=texts,
    correlation_data=st.binary(max_size=300),
    content_type=texts,
    expiry_s=st.none() | st.integers(0, 2**32 - 1),
    user=st.lists(st.tuples(texts, texts), max_size=5).map(tuple),
)


def read_by_paho(packed: bytes, packet_type: int) -> Properties:
    properties = Properties(packet_type)  # type: ignore[no-untyped-call]
    _, length = properties.unpack(packed)  # type: ignore[no-untyped-call]
    assert length == len(packed)
    return properties


@given(messages)
def test_what_is_packed_is_read_back_as_it_was(message: Message) -> None:
    packed = message_properties(message)
    received = MQTTMessage(topic=message.topic.encode())
    if packed is not None:
        received.properties = read_by_paho(packed.pack(), PacketTypes.PUBLISH)

    assert from_paho(received) == message


def test_a_message_without_properties_has_none() -> None:
    assert message_properties(Message("t", b"payload", qos=1, retain=True)) is None
    assert message_properties(replace(Message("t"), expiry_s=0)) is not None


@pytest.mark.parametrize("identifier", [1, 127, 128, 16_384, 268_435_455])
def test_a_subscription_identifier_is_read_back(identifier: int) -> None:
    received = MQTTMessage(topic=b"t")
    packed = subscribe_properties(identifier).pack()
    received.properties = read_by_paho(packed, PacketTypes.SUBSCRIBE)

    assert subscription_identifiers(received) == [identifier]


def test_the_session_ends_with_the_connection() -> None:
    read = read_by_paho(connect_properties().pack(), PacketTypes.CONNECT)

    assert vars(read)["SessionExpiryInterval"] == 0
