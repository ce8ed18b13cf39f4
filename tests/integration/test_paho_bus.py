"""The bus over a real socket: outages, limits of the broker, and what a close leaves behind."""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import signal
import socket
import sys
import termios
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
from structlog.testing import capture_logs

from fakes.brokers import launch
from fakes.ports import free_port
from fakes.scripted_broker import CONNECT, DISCONNECT, PUBLISH, ScriptedBroker
from fakes.waiting import eventually
from runtime.adapters.broker import Preference, RunningBroker
from runtime.adapters.paho_bus import BrokerAddress, PahoBus
from runtime.adapters.stalling_proxy import StallingProxy
from runtime.errors import NotConnectedError, PayloadTooLargeError
from runtime.ports import Message

pytestmark = pytest.mark.integration


class Start(Protocol):
    """Starts a broker that is stopped after the test."""

    def __call__(self, kind: Preference = "auto", port: int = 0) -> RunningBroker: ...


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as running:
        yield lambda kind="auto", port=0: running.enter_context(launch(tmp_path, kind, port))


@pytest.fixture
def broker(start: Start) -> RunningBroker:
    return start()


@asynccontextmanager
async def bus_at(
    port: int,
    client_id: str = "b",
    *,
    connect: bool = True,
    will: Message | None = None,
    keep_alive_s: int = 15,
    connect_timeout_s: float = 5.0,
    max_queued_bytes: int = 1_000_000,
) -> AsyncIterator[PahoBus]:
    bus = PahoBus(
        BrokerAddress("127.0.0.1", port),
        client_id=client_id,
        backoff_min_s=0.01,
        backoff_max_s=0.05,
        random=random.Random(1),
        will=will,
        keep_alive_s=keep_alive_s,
        connect_timeout_s=connect_timeout_s,
        max_queued_bytes=max_queued_bytes,
    )
    await bus.start()
    try:
        if connect:
            assert await bus.wait_connected(10)
        yield bus
    finally:
        await bus.close()


def open_sockets() -> int:
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(entry.readlink()))
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
    return sum(link.startswith("socket:") for link in links)


def events(logs: list[Any], *names: str) -> list[str]:
    return [entry["event"] for entry in logs if not names or entry["event"] in names]


async def test_a_broker_that_starts_late_is_found_and_its_absence_logged_once(
    start: Start,
) -> None:
    port = free_port()
    with capture_logs() as logs:
        async with bus_at(port, connect=False) as bus:
            assert not await bus.wait_connected(0.3)  # some ten tries
            await asyncio.to_thread(start, port=port)
            assert await bus.wait_connected(10)

    assert events(logs, "connection.failed", "connection.recovered") == [
        "connection.failed",
        "connection.recovered",
    ]
    assert "Connect call failed" in logs[0]["reason"]


async def test_a_killed_broker_is_left_and_its_successor_on_the_port_found(
    start: Start,
) -> None:
    running = start()
    with capture_logs() as logs:
        async with bus_at(running.address.port) as bus:
            os.kill(running.pid, signal.SIGKILL)
            await eventually(lambda: not bus.is_connected)
            running.stop()

            await asyncio.to_thread(start, port=running.address.port)

            assert await bus.wait_connected(10)
    assert events(logs)[:2] == ["connection.established", "connection.lost"]
    assert events(logs)[-1] == "connection.recovered"
    assert bus.num_connections == 2


async def test_a_frozen_broker_is_noticed_within_about_two_keep_alives(
    broker: RunningBroker,
) -> None:
    async with bus_at(broker.address.port, keep_alive_s=1, connect_timeout_s=0.5) as bus:
        os.kill(broker.pid, signal.SIGSTOP)
        frozen_s = time.monotonic()
        try:
            await eventually(lambda: not bus.is_connected, timeout_s=8.0)
            noticed_s = time.monotonic() - frozen_s
        finally:
            os.kill(broker.pid, signal.SIGCONT)

        assert await bus.wait_connected(10)
    assert noticed_s > 0.9  # 1 to 2.25 keep alives, and what a busy machine adds


async def test_a_silent_link_is_noticed_and_used_again_after_it_heals(
    broker: RunningBroker,
) -> None:
    proxy = StallingProxy("127.0.0.1", broker.address.port)
    port = await proxy.start()
    async with bus_at(port, keep_alive_s=1, connect_timeout_s=0.3) as bus:
        proxy.cut()
        await eventually(lambda: not bus.is_connected, timeout_s=8.0)
        proxy.heal()

        assert await bus.wait_connected(10)
    await proxy.close()


async def test_a_full_send_queue_refuses_and_recovers(broker: RunningBroker) -> None:
    """While the broker does not read, messages pile up to the bound and not a byte further."""
    message = Message("t", bytes(100_000), qos=1)
    async with bus_at(broker.address.port) as bus:
        os.kill(broker.pid, signal.SIGSTOP)
        try:
            for _ in range(9):
                bus.publish(message)
            with pytest.raises(NotConnectedError, match="send queue is full: 9 messages"):
                bus.publish(message)
        finally:
            os.kill(broker.pid, signal.SIGCONT)

        assert bus.is_connected
        assert bus._connection is not None
        await asyncio.wait_for(bus._connection._queue.drained.wait(), 10.0)
        bus.publish(message)


async def test_nagle_is_off_on_the_real_socket(broker: RunningBroker) -> None:
    async with bus_at(broker.address.port) as bus:
        assert bus._connection is not None
        real = bus._connection._socket._socket

        assert real.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


@pytest.mark.parametrize("qos", [0, 1])
async def test_an_echo_does_not_wait_for_a_delayed_acknowledgement(start: Start, qos: int) -> None:
    """With Nagle's algorithm on at either end it takes 40 ms and more (measured: 44 or 92)."""
    running = start("embedded")
    port = running.address.port
    answers: list[Message] = []
    round_trips_ms = []
    async with bus_at(port, "asker") as asker, bus_at(port, "answerer") as answerer:

        def answer(request: Message) -> None:
            answerer.publish(Message("rep", request.payload, qos=qos))

        answerer.subscribe("req", answer, qos=qos)
        asker.subscribe("rep", answers.append, qos=qos)
        # Subscriptions made while connected hold some time later.
        await eventually(lambda: asker.publish(Message("req")) and answers)
        for number in range(30):
            began_s = time.perf_counter()
            payload = number.to_bytes(1000)
            asker.publish(Message("req", payload, qos=qos))
            await eventually(lambda: answers[-1].payload == payload)  # noqa: B023  awaited here
            round_trips_ms.append((time.perf_counter() - began_s) * 1e3)

    # The machine may be busy meanwhile, but not every time.
    assert min(round_trips_ms) < 40


def void(_: object) -> None:
    """Drops a value where a handler must return nothing."""


async def test_a_refused_connect_is_logged_once_with_the_reason_and_tried_again() -> None:
    with capture_logs() as logs:
        async with (
            ScriptedBroker(connack=b"\x87\x00") as broker,
            bus_at(broker.port, connect=False) as bus,
        ):
            await eventually(lambda: broker.num_received(CONNECT) > 3)
            assert not bus.is_connected
            broker.connack = b"\x00\x00"
            assert await bus.wait_connected(10)

    assert events(logs, "connection.failed", "connection.recovered") == [
        "connection.failed",
        "connection.recovered",
    ]
    assert logs[0]["reason"] == "refused by the broker: Not authorized"


async def test_a_refused_subscription_is_logged_and_harms_no_other() -> None:
    with capture_logs() as logs:
        async with ScriptedBroker(suback=0x87) as broker, bus_at(broker.port) as bus:
            bus.subscribe("secret/#", void)
            await eventually(lambda: events(logs, "subscription.refused"))
            assert bus.is_connected

    refused = next(entry for entry in logs if entry["event"] == "subscription.refused")
    assert refused["topic_filter"] == "secret/#"
    assert refused["reason"] == "Not authorized"


async def test_a_refused_publish_is_counted_each_time_and_logged_once() -> None:
    with capture_logs() as logs:
        async with ScriptedBroker(puback=0x87) as broker, bus_at(broker.port) as bus:
            for _ in range(3):
                bus.publish(Message("secret", qos=1))
            await eventually(lambda: bus.num_refused == 3)

    assert events(logs, "publish.refused") == ["publish.refused"]


async def test_no_more_is_unacknowledged_than_the_broker_takes() -> None:
    """The receive maximum of CONNACK (MQTT 5, 4.9); QoS 0 is not under it."""
    receive_maximum_2 = b"\x00\x03\x21\x00\x02"
    broker = ScriptedBroker(connack=receive_maximum_2, puback=None)
    async with broker, bus_at(broker.port) as bus:
        for payload in (b"1", b"2", b"3", b"4"):
            bus.publish(Message("t", payload, qos=1))
        bus.publish(Message("t", b"fence"))
        await eventually(lambda: broker.num_received(PUBLISH) == 3)
        broker.acknowledge(1)
        await eventually(lambda: broker.num_received(PUBLISH) == 4)
        broker.acknowledge(2)
        await eventually(lambda: broker.num_received(PUBLISH) == 5)
        for packet_identifier in (4, 5):  # 3 is what paho gave the message of QoS 0
            broker.acknowledge(packet_identifier)

    ends = [body[-1:] for kind, body in broker.received if kind == PUBLISH]
    assert ends == [b"1", b"2", b"e", b"3", b"4"]


async def test_the_brokers_maximum_packet_size_is_respected() -> None:
    maximum_packet_size_100 = b"\x00\x05\x27\x00\x00\x00\x64"
    broker = ScriptedBroker(connack=maximum_packet_size_100)
    async with broker, bus_at(broker.port) as bus:
        assert bus.publish(Message("t", bytes(94))) == 100
        with pytest.raises(PayloadTooLargeError, match="101 bytes is over the limit of 100"):
            bus.publish(Message("t", bytes(95)))


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\x00",  # no such packet type
        b"\x30\xff\xff\xff\xff\xff",  # a length of five bytes
        b"\x30\x03\x00\x09t",  # a topic longer than its packet
        b"\x30\x06\x00\x01t\x02\xff\x00",  # no such property
        b"\xe0\x00",  # DISCONNECT, which is no garbage but an end
    ],
)
async def test_what_is_not_mqtt_ends_the_connection_and_another_one_begins(
    garbage: bytes,
) -> None:
    async with ScriptedBroker() as broker, bus_at(broker.port) as bus:
        broker.send(garbage)

        await eventually(lambda: bus.num_connections == 2)
        assert await bus.wait_connected(10)


async def test_a_topic_that_is_not_utf8_is_dropped_and_counted() -> None:
    heard: list[Message] = []
    async with ScriptedBroker() as broker, bus_at(broker.port) as bus:
        bus.subscribe("#", heard.append)
        broker.send(b"\x30\x04\x00\x01\xff\x00")
        broker.send(b"\x30\x05\x00\x01t\x00x")

        await eventually(lambda: heard)
    assert [message.payload for message in heard] == [b"x"]
    assert bus.num_malformed == 1


async def test_a_close_while_connecting_is_quick_and_leaves_nothing() -> None:
    proxy = StallingProxy("127.0.0.1", 1)
    port = await proxy.start()
    proxy.cut()
    num_tasks, num_sockets = len(asyncio.all_tasks()), open_sockets()
    async with bus_at(port, connect=False) as bus:
        await eventually(lambda: proxy.num_connections == 1)
        began_s = time.monotonic()
        await bus.close()
        took_s = time.monotonic() - began_s
    await proxy.close()

    assert took_s < 4.0
    assert len(asyncio.all_tasks()) <= num_tasks
    assert open_sockets() < num_sockets  # the proxy's listener is gone, too


@pytest.mark.parametrize("num_messages", [0, 200])
async def test_a_close_on_a_frozen_broker_ends_soon_and_leaves_nothing(
    broker: RunningBroker, num_messages: int
) -> None:
    num_tasks, num_sockets = len(asyncio.all_tasks()), open_sockets()
    async with bus_at(broker.address.port, max_queued_bytes=100_000_000) as bus:
        os.kill(broker.pid, signal.SIGSTOP)
        try:
            for _ in range(num_messages):
                bus.publish(Message("t", bytes(100_000), qos=1))
            began_s = time.monotonic()
            await bus.close()
            took_s = time.monotonic() - began_s
        finally:
            os.kill(broker.pid, signal.SIGCONT)

    assert took_s < 4.0
    assert len(asyncio.all_tasks()) == num_tasks
    assert open_sockets() == num_sockets


async def test_connecting_and_closing_many_times_leaves_nothing(broker: RunningBroker) -> None:
    async with bus_at(broker.address.port):
        pass
    num_tasks, num_sockets = len(asyncio.all_tasks()), open_sockets()

    for _ in range(20):
        async with bus_at(broker.address.port) as bus:
            bus.publish(Message("t", qos=1))

    assert len(asyncio.all_tasks()) == num_tasks
    assert open_sockets() == num_sockets


@pytest.mark.parametrize("kind", ["embedded", "mosquitto"])
async def test_a_close_under_incoming_load_publishes_no_will(
    start: Start, kind: Preference
) -> None:
    """Closing with unread bytes sends a reset, which a broker may see before the DISCONNECT."""
    port = start(kind).address.port
    wills: list[str] = []
    loads: list[Message] = []
    loop = asyncio.get_running_loop()
    async with bus_at(port, "watcher") as watcher, bus_at(port, "sender") as sender:
        watcher.subscribe("will/#", lambda message: wills.append(message.topic), qos=1)
        for number in range(10):
            will = Message(f"will/{number}", b"lost", qos=1)
            loads.clear()
            async with bus_at(port, f"busy{number}", will=will) as busy:
                busy.subscribe("load", loads.append)
                await eventually(lambda: sender.publish(Message("load")) and loads)
                assert busy._connection is not None
                unread = busy._connection._socket._socket
                loop.remove_reader(unread)
                for _ in range(100):
                    sender.publish(Message("load", bytes(5000)))
                await eventually(lambda: num_unread_bytes(unread) > 5000)  # noqa: B023  awaited here
        sender.publish(Message("will/end", qos=1))
        await eventually(lambda: wills)

    assert wills == ["will/end"]


def num_unread_bytes(sock: socket.socket) -> int:
    return int.from_bytes(fcntl.ioctl(sock, termios.FIONREAD, bytes(4)), sys.byteorder)


async def test_a_clean_close_says_disconnect() -> None:
    async with ScriptedBroker() as broker:
        async with bus_at(broker.port):
            pass
        await eventually(lambda: broker.num_received(DISCONNECT) == 1)


async def test_two_clients_with_one_id_end_each_other_visibly(broker: RunningBroker) -> None:
    with capture_logs() as logs:
        async with bus_at(broker.address.port, "same"), bus_at(broker.address.port, "same"):
            await eventually(lambda: events(logs, "connection.lost"))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"client_id": ""}, "client id"),
        ({"client_id": "c", "keep_alive_s": 0}, "keep alive"),
        ({"client_id": "c", "will": Message("a/#")}, "topic"),
        ({"client_id": "c", "backoff_min_s": 0.0}, "min_s"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        PahoBus(BrokerAddress("h"), **options)
