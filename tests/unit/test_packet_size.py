"""The computed size of a packet against what paho really puts on a socket."""

from __future__ import annotations

import asyncio
import socket

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runtime.adapters.packet_size import publish_packet_bytes
from runtime.adapters.paho_client import ConnectionSettings
from runtime.adapters.paho_connection import PahoConnection
from runtime.ports import Message

pytestmark = pytest.mark.unit

_CONNACK = bytes.fromhex("20 03 00 00 00")

texts = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"), max_size=200
)
topics = texts.filter(lambda text: text and not set(text) & set("+#"))
messages = st.builds(
    Message,
    topic=topics,
    payload=st.binary(max_size=300) | st.integers(0, 300_000).map(bytes),
    qos=st.sampled_from([0, 1]),
    retain=st.booleans(),
    response_topic=texts,
    correlation_data=st.binary(max_size=300),
    content_type=texts,
    expiry_s=st.none() | st.integers(0, 2**32 - 1),
    user=st.lists(st.tuples(texts, texts), max_size=5).map(tuple),
)


async def sent_by_paho(message: Message) -> tuple[int, bytes]:
    """What ``publish`` returned, and the bytes that then came out of a socket pair."""
    settings = ConnectionSettings(
        host="pair",
        port=1,
        client_id="c",
        keep_alive_s=60,
        will=None,
        username="",
        password="",
        max_packet_bytes=10_000_000,
        max_queued_bytes=10_000_000,
        max_queued_messages=10,
    )
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        theirs.setblocking(False)
        loop = asyncio.get_running_loop()
        connection = PahoConnection(settings, ours, lambda _: None, lambda *_: None)
        opening = asyncio.create_task(connection.open())
        connect = await loop.sock_recv(theirs, 1000)
        assert connect[0] == 0x10
        await loop.sock_sendall(theirs, _CONNACK)
        await opening
        returned = connection.publish(message)
        received = b""
        while len(received) < returned:
            received += await loop.sock_recv(theirs, 1_000_000)
        connection.abort()
        # What follows would be the end of the connection and not one byte more.
        assert await loop.sock_recv(theirs, 10) == b""
    return returned, received


@given(messages)
@example(Message("t"))
@example(Message("t", b"x" * 123))  # the largest that has one byte of length
@example(Message("t", b"x" * 124))
@example(Message("t", b"x" * 16_379))
@example(Message("t", b"x" * 16_380))
@example(Message("t", b"x" * 2_097_147))
@example(Message("t", b"x" * 2_097_148))
@example(Message("t", user=(("k", "v" * 118),)))  # properties of 123 to 128 bytes
@example(Message("t", user=(("k", "v" * 121),)))
@example(Message("t", user=(("k", "v" * 122),)))
@example(Message("t", user=(("k", "v" * 123),)))
def test_the_size_is_that_of_the_packet_that_paho_sends(message: Message) -> None:
    returned, received = asyncio.run(sent_by_paho(message))

    assert returned == publish_packet_bytes(message) == len(received)
    assert received[0] == 0x30 | message.qos << 1 | message.retain
    assert received.endswith(message.payload)
