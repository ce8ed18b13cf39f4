"""What only the bus in memory can do: faults on demand, the same ones for the same seed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.waiting import eventually
from runtime.adapters.memory_bus import LinkFaults, MemoryBroker, MemoryBus
from runtime.errors import NotConnectedError, PayloadTooLargeError
from runtime.ports import Message

pytestmark = pytest.mark.unit

Make = Callable[..., MemoryBus]


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker(seed=1)


@pytest.fixture
async def make(broker: MemoryBroker) -> AsyncIterator[Make]:
    made: list[MemoryBus] = []

    def bus(client_id: str, **options: object) -> MemoryBus:
        made.append(MemoryBus(broker, client_id=client_id, **options))  # type: ignore[arg-type]
        return made[-1]

    yield bus
    for each in made:
        await each.close()


async def connect(*buses: MemoryBus) -> None:
    for bus in buses:
        await bus.start()
    for bus in buses:
        assert await bus.wait_connected(2.0)


async def heard_over(faults: LinkFaults, *, qos: int, seed: int = 1, count: int = 200) -> list[int]:
    """The numbers that arrive, in order, out of ``count`` sent over a link with faults."""
    broker = MemoryBroker(seed=seed)
    sender = MemoryBus(broker, client_id="s", link=faults)
    receiver = MemoryBus(broker, client_id="r")
    heard: list[int] = []
    receiver.subscribe("t", lambda message: heard.append(int(message.payload)), qos=1)
    await connect(sender, receiver)
    for number in range(count):
        sender.publish(Message("t", str(number).encode(), qos=qos))
    await sender.close()
    ended: list[Message] = []
    receiver.subscribe("end", ended.append, qos=1)
    receiver.publish(Message("end", qos=1))
    await eventually(lambda: ended)
    await receiver.close()
    return heard


async def test_delay_counts_on_the_way_up_and_on_the_way_down(make: Make) -> None:
    link = LinkFaults(delay_s=0.03)
    sender, receiver = make("s", link=link), make("r", link=link)
    heard: list[float] = []
    loop = asyncio.get_running_loop()
    receiver.subscribe("t", lambda _: heard.append(loop.time()))
    await connect(sender, receiver)

    sent_s = loop.time()
    sender.publish(Message("t"))
    await eventually(lambda: heard)

    assert 0.06 <= heard[0] - sent_s < 0.5


async def test_jitter_keeps_the_order() -> None:
    heard = await heard_over(LinkFaults(delay_s=0.001, jitter_s=0.02), qos=0)

    assert heard == list(range(200))


async def test_loss_takes_about_its_share_of_qos_0() -> None:
    heard = await heard_over(LinkFaults(loss=0.3), qos=0)

    assert 100 < len(heard) < 180
    assert heard == sorted(set(heard))


async def test_loss_only_delays_qos_1() -> None:
    heard = await heard_over(LinkFaults(delay_s=0.001, loss=0.3), qos=1)

    assert heard == list(range(200))


async def test_duplication_doubles_qos_1_and_never_qos_0() -> None:
    faults = LinkFaults(duplication=0.5)

    doubled, single = await heard_over(faults, qos=1), await heard_over(faults, qos=0)

    assert single == list(range(200))
    assert sorted(set(doubled)) == single
    assert doubled == sorted(doubled)
    assert 250 < len(doubled) < 350


@given(st.integers(0, 10_000), st.sampled_from([0, 1]))
def test_the_same_seed_gives_the_same_faults(seed: int, qos: int) -> None:
    faults = LinkFaults(loss=0.3, duplication=0.3)

    first, second = (
        asyncio.run(heard_over(faults, qos=qos, seed=seed, count=40)) for _ in range(2)
    )

    assert first == second


async def test_another_seed_gives_other_faults() -> None:
    faults = LinkFaults(loss=0.3)

    assert await heard_over(faults, qos=0, seed=1) != await heard_over(faults, qos=0, seed=2)


async def test_a_partition_stalls_and_a_short_one_loses_nothing(make: Make) -> None:
    sender, receiver = make("s", keep_alive_s=5), make("r")
    heard: list[bytes] = []
    fence: list[Message] = []
    receiver.subscribe("t", lambda message: heard.append(message.payload))
    receiver.subscribe("fence", fence.append)
    await connect(sender, receiver)

    sender.partition()
    for number in range(3):
        sender.publish(Message("t", str(number).encode()))
    receiver.publish(Message("fence"))
    await eventually(lambda: fence)
    assert heard == []
    assert sender.is_connected
    sender.heal()

    await eventually(lambda: heard == [b"0", b"1", b"2"])
    assert sender.num_connections == 1


async def test_a_long_partition_ends_the_connection_at_both_ends(make: Make) -> None:
    lone = make("l", keep_alive_s=0.04, will=Message("l/state", b"offline", qos=1))
    watcher = make("w")
    states: list[bytes] = []
    events: list[bool] = []
    watcher.subscribe("l/state", lambda message: states.append(message.payload))
    lone.on_connection(events.append)
    await connect(lone, watcher)

    lone.partition()
    lone.publish(Message("l/state", b"lost in between"))
    await eventually(lambda: events == [True, False])
    assert not lone.is_connected
    with pytest.raises(NotConnectedError):
        lone.publish(Message("t"))
    assert not await lone.wait_connected(0.05)
    lone.heal()

    assert await lone.wait_connected(2.0)
    assert states == [b"offline"]
    assert events == [True, False, True]


async def test_a_partition_fills_the_send_queue_up_to_its_bound(make: Make) -> None:
    bus = make("b", keep_alive_s=5, max_queued_bytes=1000)
    await connect(bus)
    bus.partition()

    bus.publish(Message("t", bytes(900)))
    with pytest.raises(NotConnectedError, match="send queue is full"):
        bus.publish(Message("t", bytes(900)))
    bus.heal()

    await eventually(lambda: bus._queue.num_messages == 0)
    bus.publish(Message("t", bytes(900)))


async def test_what_is_on_its_way_when_the_connection_drops_is_lost(make: Make) -> None:
    sender, receiver = make("s", link=LinkFaults(delay_s=0.02)), make("r")
    heard: list[bytes] = []
    receiver.subscribe("t", lambda message: heard.append(message.payload), qos=1)
    await connect(sender, receiver)

    sender.publish(Message("t", b"lost", qos=1))
    sender.drop_connection()
    assert not sender.is_connected
    assert await sender.wait_connected(2.0)
    sender.publish(Message("t", b"kept", qos=1))

    await eventually(lambda: heard == [b"kept"])


async def test_an_expired_message_is_not_delivered(broker: MemoryBroker, make: Make) -> None:
    sender, receiver = make("s"), make("r")
    heard: list[Message] = []
    receiver.subscribe("t", heard.append)
    await connect(sender, receiver)

    sender.publish(Message("t", b"old", expiry_s=0))
    sender.publish(Message("t", b"new", expiry_s=9))

    await eventually(lambda: heard == [Message("t", b"new", expiry_s=9)])
    assert broker.num_expired == 1


async def test_a_stopped_broker_forgets_what_was_retained(broker: MemoryBroker, make: Make) -> None:
    bus, late = make("b"), make("l")
    heard: list[Message] = []
    late.subscribe("+", heard.append)
    await connect(bus)
    bus.publish(Message("state", b"x", retain=True))

    broker.stop()
    assert not bus.is_connected
    broker.start()
    await connect(late)
    assert await bus.wait_connected(2.0)
    bus.publish(Message("fence"))

    await eventually(lambda: heard == [Message("fence")])


async def test_a_client_with_the_same_id_takes_the_connection_over(
    broker: MemoryBroker, make: Make
) -> None:
    first = MemoryBus(broker, client_id="same", will=Message("will"), backoff_min_s=1.0)
    watcher = make("w")
    heard: list[str] = []
    watcher.subscribe("will", lambda message: heard.append(message.topic))
    await connect(first, watcher)

    second = make("same")
    await connect(second)

    assert not first.is_connected
    await eventually(lambda: heard == ["will"])
    await first.close()


async def test_the_brokers_limit_is_kept(broker: MemoryBroker, make: Make) -> None:
    broker.max_packet_bytes = 100
    bus = make("b")
    await connect(bus)

    assert bus.publish(Message("t", bytes(94))) == 100
    with pytest.raises(PayloadTooLargeError):
        bus.publish(Message("t", bytes(95)))


@pytest.mark.parametrize(
    "values", [{"delay_s": -1}, {"jitter_s": -1}, {"loss": 1.0}, {"duplication": 1.1}]
)
def test_a_link_that_cannot_be_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"arrive|share"):
        LinkFaults(**values)
