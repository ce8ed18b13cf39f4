"""What the ``MessageBus`` port promises, asked of every implementation."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.brokers import MemorySite, PahoSite, Site
from fakes.waiting import eventually
from runtime.adapters.packet_size import DEFAULT_MAX_PACKET_BYTES, publish_packet_bytes
from runtime.errors import NotConnectedError, PayloadTooLargeError
from runtime.ports import Message, MessageBus

pytestmark = pytest.mark.integration

FULL = Message(
    topic="site/a/ü",
    payload=b"\x00\xffpayload",
    qos=1,
    response_topic="site/b/rep",
    correlation_data=b"\x00" * 16,
    content_type="application/vnd.oip.v2",
    expiry_s=60,
    user=(("remaining-ms", "80"), ("hop", "1"), ("hop", "2"), ("name", "ü")),
)


class Hearer:
    """A handler that keeps what it heard."""

    def __init__(self) -> None:
        self.heard: list[Message] = []

    def __call__(self, message: Message) -> None:
        self.heard.append(message)

    @property
    def payloads(self) -> list[bytes]:
        return [message.payload for message in self.heard]


@pytest.fixture(params=["memory", "embedded", "mosquitto"])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    made: Site = MemorySite() if request.param == "memory" else PahoSite(tmp_path, request.param)
    yield made
    await made.close()


async def connect(*buses: MessageBus) -> None:
    for bus in buses:
        await bus.start()
    for bus in buses:
        assert await bus.wait_connected(10)


@pytest.mark.parametrize("qos", [0, 1])
async def test_a_message_arrives_at_every_matching_subscriber(site: Site, qos: int) -> None:
    sender, first, second, other = (site.bus(name) for name in ("s", "f", "g", "o"))
    hearers = [Hearer(), Hearer(), Hearer()]
    first.subscribe("a/+/c", hearers[0], qos=qos)
    second.subscribe("a/#", hearers[1], qos=qos)
    other.subscribe("a/b", hearers[2], qos=qos)
    await connect(sender, first, second, other)

    sender.publish(Message("a/b/c", b"1", qos=qos))

    await eventually(lambda: hearers[0].payloads == [b"1"] and hearers[1].payloads == [b"1"])
    assert hearers[2].heard == []
    assert hearers[0].heard[0].qos == qos


async def test_all_properties_arrive_as_they_were_sent(site: Site) -> None:
    sender, receiver = site.bus("s"), site.bus("r")
    hearer = Hearer()
    receiver.subscribe("site/#", hearer, qos=1)
    await connect(sender, receiver)

    sender.publish(FULL)

    await eventually(lambda: hearer.heard)
    heard = hearer.heard[0]
    assert heard.expiry_s is not None
    assert 58 <= heard.expiry_s <= 60
    assert (heard.topic, heard.payload, heard.qos) == (FULL.topic, FULL.payload, FULL.qos)
    assert (heard.response_topic, heard.correlation_data, heard.content_type, heard.user) == (
        FULL.response_topic,
        FULL.correlation_data,
        FULL.content_type,
        FULL.user,
    )


async def test_a_plain_message_has_no_properties(site: Site) -> None:
    bus = site.bus("b")
    hearer = Hearer()
    bus.subscribe("t", hearer)
    await connect(bus)

    bus.publish(Message("t"))

    await eventually(lambda: hearer.heard)
    assert hearer.heard == [Message("t")]


async def test_publish_returns_the_size_of_the_packet(site: Site) -> None:
    bus = site.bus("b")
    await connect(bus)

    assert bus.publish(FULL) == publish_packet_bytes(FULL)


async def test_a_retained_message_reaches_later_subscribers_until_it_is_cleared(
    site: Site,
) -> None:
    sender, early, late = site.bus("s"), site.bus("e"), site.bus("l")
    hearers = [Hearer(), Hearer(), Hearer()]
    await connect(sender, early, late)
    sender.publish(Message("gw/1/state", b"online", qos=1, retain=True, user=(("epoch", "1"),)))

    early.subscribe("gw/+/state", hearers[0], qos=1)
    await eventually(lambda: hearers[0].payloads == [b"online"])
    sender.publish(Message("gw/1/state", b"", qos=1, retain=True))
    await eventually(lambda: hearers[0].payloads == [b"online", b""])
    late.subscribe("gw/+/state", hearers[1], qos=1)
    late.subscribe("fence", hearers[2], qos=1)
    sender.publish(Message("fence", b"x", qos=1, retain=True))
    await eventually(lambda: hearers[2].payloads)

    assert hearers[0].heard[0].retain
    assert hearers[0].heard[0].property("epoch") == "1"
    assert hearers[1].heard == []


async def test_the_will_is_published_when_a_connection_just_ends(site: Site) -> None:
    watcher = site.bus("w")
    frail = site.bus("f", will=Message("f/state", b"offline", qos=1, retain=True))
    hearer = Hearer()
    watcher.subscribe("+/state", hearer, qos=1)
    await connect(watcher, frail)

    site.drop(frail)

    await eventually(lambda: hearer.payloads == [b"offline"])


async def test_the_will_is_not_published_after_a_close(site: Site) -> None:
    watcher = site.bus("w")
    tidy = site.bus("t", will=Message("t/state", b"offline", qos=1))
    hearer = Hearer()
    watcher.subscribe("#", hearer, qos=1)
    await connect(watcher, tidy)

    tidy.publish(Message("t/state", b"leaving", qos=1))
    await tidy.close()
    again = site.bus("t")
    await connect(again)
    again.publish(Message("t/state", b"back", qos=1))

    await eventually(lambda: b"back" in hearer.payloads)
    assert hearer.payloads == [b"leaving", b"back"]


async def test_members_of_a_shared_subscription_take_turns(site: Site) -> None:
    sender, outsider = site.bus("s"), site.bus("o")
    members = [site.bus(f"m{number}") for number in range(3)]
    hearers = [Hearer() for _ in members]
    everything = Hearer()
    for member, hearer in zip(members, hearers, strict=True):
        member.subscribe("$share/gw/any/req/+", hearer, qos=1)
    outsider.subscribe("any/req/+", everything, qos=1)
    await connect(sender, outsider, *members)

    for number in range(30):
        sender.publish(Message(f"any/req/{number}", qos=1))

    await eventually(lambda: sum(len(hearer.heard) for hearer in hearers) == 30)
    await eventually(lambda: len(everything.heard) == 30)
    assert [len(hearer.heard) for hearer in hearers] == [10, 10, 10]
    heard = Counter(message.topic for hearer in hearers for message in hearer.heard)
    assert set(heard.values()) == {1}


@pytest.mark.parametrize("qos", [0, 1])
async def test_messages_of_one_publisher_arrive_in_order(site: Site, qos: int) -> None:
    sender, receiver = site.bus("s"), site.bus("r")
    hearer = Hearer()
    receiver.subscribe("t", hearer, qos=qos)
    await connect(sender, receiver)

    sent = [str(number).encode() for number in range(1000)]
    for payload in sent:
        sender.publish(Message("t", payload, qos=qos))

    await eventually(lambda: len(hearer.heard) >= len(sent), timeout_s=10.0)
    assert hearer.payloads == sent


@pytest.mark.parametrize("size", [0, 1, 127, 16_384, 150_000, 1_048_576])
async def test_payloads_of_every_size_arrive_intact(site: Site, size: int) -> None:
    sender, receiver = site.bus("s"), site.bus("r")
    hearer = Hearer()
    receiver.subscribe("t", hearer, qos=1)
    await connect(sender, receiver)
    payload = bytes(range(256)) * (size // 256) + bytes(size % 256)

    packet_bytes = sender.publish(Message("t", payload, qos=1))

    assert packet_bytes > size
    await eventually(lambda: hearer.heard)
    assert hearer.payloads == [payload]


async def test_the_largest_packet_arrives_and_a_larger_one_is_refused(site: Site) -> None:
    bus = site.bus("b")
    hearer = Hearer()
    bus.subscribe("t", hearer)
    await connect(bus)

    size = 1_000_000
    around = publish_packet_bytes(Message("t", bytes(size))) - size
    fits = bytes(DEFAULT_MAX_PACKET_BYTES - around)

    with pytest.raises(PayloadTooLargeError):
        bus.publish(Message("t", fits + b"x"))
    assert bus.publish(Message("t", fits)) == DEFAULT_MAX_PACKET_BYTES

    await eventually(lambda: hearer.payloads == [fits])


async def test_publishing_without_a_connection_says_so(site: Site) -> None:
    bus = site.bus("b")

    with pytest.raises(NotConnectedError):
        bus.publish(Message("t"))
    await connect(bus)
    site.drop(bus)
    with pytest.raises(NotConnectedError):
        bus.publish(Message("t"))
    assert not bus.is_connected


@pytest.mark.parametrize("message", [Message("a/+"), Message(""), Message("a", qos=2)])
async def test_a_message_that_no_broker_takes_is_misuse(site: Site, message: Message) -> None:
    bus = site.bus("b")
    await connect(bus)

    with pytest.raises(ValueError, match=r"topic|QoS"):
        bus.publish(message)
    assert bus.is_connected


async def test_a_lost_connection_comes_back_with_its_subscriptions_and_births(
    site: Site,
) -> None:
    sender, receiver = site.bus("s"), site.bus("r")
    hearer = Hearer()
    events: list[bool] = []
    receiver.subscribe("t", hearer, qos=1)
    receiver.on_connection(events.append)
    await connect(sender, receiver)

    site.drop(receiver)
    await eventually(lambda: events == [True, False, True])
    sender.publish(Message("t", b"after", qos=1))

    await eventually(lambda: hearer.payloads == [b"after"])


async def test_a_broker_restart_under_load_is_survived_by_everyone(site: Site) -> None:
    """Requests and replies go on after the broker comes back, and births are there again."""
    asker, answerer, watcher = site.bus("asker"), site.bus("answerer"), site.bus("watcher")
    replies, births = Hearer(), Hearer()
    answerer.subscribe("req", lambda message: publish_if_connected(answerer, "rep", message))
    asker.subscribe("rep", replies)
    watcher.subscribe("+/state", births, qos=1)

    def birth(is_connected: bool) -> None:
        if is_connected:
            answerer.publish(Message("answerer/state", b"online", qos=1, retain=True))

    answerer.on_connection(birth)
    await connect(watcher, asker, answerer)
    stopped = asyncio.Event()
    load = asyncio.create_task(ask_until(stopped, asker))
    await eventually(lambda: len(replies.heard) > 10 and births.payloads == [b"online"])

    site.stop_broker()
    await eventually(lambda: not (asker.is_connected or answerer.is_connected))
    await asyncio.to_thread(site.start_broker)
    for bus in (asker, answerer, watcher):
        assert await bus.wait_connected(10.0)
    num_before = len(replies.heard)

    await eventually(lambda: len(replies.heard) > num_before + 10)
    await eventually(lambda: set(births.payloads[1:]) == {b"online"})
    stopped.set()
    await load


def publish_if_connected(bus: MessageBus, topic: str, message: Message) -> None:
    if bus.is_connected:
        bus.publish(Message(topic, message.payload))


async def ask_until(stopped: asyncio.Event, asker: MessageBus) -> None:
    while not stopped.is_set():
        publish_if_connected(asker, "req", Message("", b"x" * 100))
        await asyncio.sleep(0.001)


async def test_an_exception_in_a_handler_stops_nothing(site: Site) -> None:
    bus = site.bus("b")
    hearer = Hearer()
    events: list[bool] = []

    def fail(_: object) -> None:
        raise RuntimeError("handler")

    bus.subscribe("t", fail)
    bus.subscribe("t", hearer)
    bus.on_connection(fail)
    bus.on_connection(events.append)
    await connect(bus)

    bus.publish(Message("t", b"1"))
    bus.publish(Message("t", b"2"))

    await eventually(lambda: hearer.payloads == [b"1", b"2"])
    assert events == [True]
    assert bus.is_connected
    assert getattr(bus, "num_handler_errors") == 3  # noqa: B009  not part of the port


async def test_a_handler_may_publish_and_subscribe(site: Site) -> None:
    bus = site.bus("b")
    hearer = Hearer()

    def answer(message: Message) -> None:
        bus.subscribe("late", hearer)
        bus.publish(Message("late", message.payload))

    bus.subscribe("t", answer)
    await connect(bus)

    bus.publish(Message("t", b"1"))

    await eventually(lambda: hearer.payloads == [b"1"])


async def test_overlapping_filters_each_hear_a_message_once(site: Site) -> None:
    bus = site.bus("b")
    hearers = [Hearer(), Hearer(), Hearer()]
    bus.subscribe("a/#", hearers[0], qos=1)
    bus.subscribe("a/b", hearers[1], qos=1)
    bus.subscribe("end", hearers[2], qos=1)
    await connect(bus)

    bus.publish(Message("a/b", b"1", qos=1))
    bus.publish(Message("end", b"", qos=1))

    await eventually(lambda: hearers[2].heard)
    await eventually(lambda: all(hearer.heard for hearer in hearers))
    assert [hearer.payloads for hearer in hearers[:2]] == [[b"1"], [b"1"]]


async def test_a_bus_without_subscriptions_hears_nothing(site: Site) -> None:
    sender, idle = site.bus("s"), site.bus("i")
    hearer = Hearer()
    sender.subscribe("t", hearer)
    await connect(sender, idle)

    sender.publish(Message("t", b"1"))

    await eventually(lambda: hearer.heard)
    assert idle.is_connected


async def test_close_sends_what_is_queued(site: Site) -> None:
    sender, receiver = site.bus("s"), site.bus("r")
    hearer = Hearer()
    receiver.subscribe("t", hearer, qos=1)
    await connect(sender, receiver)

    for number in range(200):
        sender.publish(Message("t", number.to_bytes(2) * 500, qos=number % 2))
    await sender.close()

    await eventually(lambda: len(hearer.heard) == 200)


async def test_close_may_be_called_at_any_time_and_again(site: Site) -> None:
    never_started, connected = site.bus("n"), site.bus("c")
    await connect(connected)

    await never_started.close()
    await asyncio.gather(connected.close(), connected.close())
    await connected.close()

    assert not connected.is_connected
    with pytest.raises(NotConnectedError):
        connected.publish(Message("t"))
    with pytest.raises(RuntimeError):
        await connected.start()
