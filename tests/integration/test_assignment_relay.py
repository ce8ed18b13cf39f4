"""Assignments on their way through gateways, as devices of the region hear them."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from fakes.assigned import Desk, Gateway, assigned, retained
from fakes.waiting import eventually
from runtime import topics
from runtime.adapters.memory_bus import MemoryBroker
from runtime.assignments import MAX_ASSIGNMENT_BYTES, SignedAssignment, encode

ONE = topics.assignment("r", "pi-1")
EVERYTHING = "tierwise/v1/r/assign/#"


@pytest.fixture
def above() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
def here() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
async def cloud(above: MemoryBroker, stack: AsyncExitStack) -> Desk:
    return await Desk(above, "nothing").start(stack)


@pytest.fixture
async def device(here: MemoryBroker, stack: AsyncExitStack) -> Desk:
    return await Desk(here, EVERYTHING).start(stack)


async def newcomer(here: MemoryBroker, stack: AsyncExitStack) -> Desk:
    return await Desk(here, EVERYTHING, name="newcomer").start(stack)


async def test_assignments_go_down_byte_for_byte_and_are_cleared_again(
    above: MemoryBroker, here: MemoryBroker, cloud: Desk, stack: AsyncExitStack, tmp_path: Path
) -> None:
    cloud.say(assigned(1, site="pi-2"), site="pi-2")
    gateway = await Gateway(above, here, tmp_path).start(stack)
    cloud.say(assigned(1))
    cloud.say(assigned(2))
    cloud.say(assigned(9), below="elsewhere")
    await eventually(lambda: gateway.counted("relayed") >= 2)
    late = await newcomer(here, stack)
    await eventually(lambda: late.heard.get(ONE) == assigned(2))

    assert late.heard == {
        ONE: assigned(2),
        topics.assignment("r", "pi-2"): assigned(1, site="pi-2"),
    }
    cloud.say(b"")
    await eventually(lambda: late.heard[ONE] == b"")
    assert gateway.counted("cleared") == 1
    assert gateway.relay.paths() == {"m/1.json"}


async def test_a_gateway_of_gateways_passes_on_those_of_regions_below_it(
    above: MemoryBroker, here: MemoryBroker, cloud: Desk, stack: AsyncExitStack, tmp_path: Path
) -> None:
    lowest = MemoryBroker()
    deep = await Desk(lowest, "tierwise/v1/plant/assign/#").start(stack)
    await Gateway(above, here, tmp_path / "a", below=("plant",)).start(stack)
    await Gateway(here, lowest, tmp_path / "b", site="g2", region="plant", upstream="r").start(
        stack
    )
    payload = assigned(1, region="plant")

    cloud.say(payload, below="plant")
    cloud.say(assigned(1, region="strange"), below="strange")

    await eventually(lambda: deep.heard == {topics.assignment("plant", "pi-1"): payload})


async def test_an_older_one_is_not_put_over_what_the_region_knows(
    above: MemoryBroker, here: MemoryBroker, cloud: Desk, device: Desk, stack: AsyncExitStack,
    tmp_path: Path,
) -> None:  # fmt: skip
    device.bus.publish(retained(ONE, assigned(5)))
    cloud.say(assigned(4))
    gateway = await Gateway(above, here, tmp_path).start(stack)
    await eventually(gateway.relay.paths)
    cloud.say(assigned(1, site="pi-2"), site="pi-2")

    await eventually(lambda: gateway.counted("relayed") == 1)
    assert device.heard[ONE] == assigned(5)
    cloud.say(assigned(6))
    await eventually(lambda: device.heard[ONE] == assigned(6))
    cloud.say(assigned(3))
    await eventually(lambda: gateway.counted("stale") == 1)


async def test_a_broker_that_has_lost_all_is_told_again_also_without_the_cloud(
    above: MemoryBroker, here: MemoryBroker, cloud: Desk, device: Desk, stack: AsyncExitStack,
    tmp_path: Path,
) -> None:  # fmt: skip
    await Gateway(above, here, tmp_path).start(stack)
    cloud.say(assigned(1))
    await eventually(lambda: device.heard.get(ONE) == assigned(1))
    above.stop()

    here.stop()
    here.start()
    late = await newcomer(here, stack)

    await eventually(lambda: late.heard.get(ONE) == assigned(1))


async def test_two_gateways_say_the_same_and_come_to_an_end(
    above: MemoryBroker, here: MemoryBroker, cloud: Desk, device: Desk, stack: AsyncExitStack,
    tmp_path: Path,
) -> None:  # fmt: skip
    gateways = [
        await Gateway(above, here, tmp_path / site, site=site).start(stack) for site in ("g1", "g2")
    ]
    for seq in range(1, 20):
        cloud.say(assigned(seq))

    await eventually(lambda: device.heard.get(ONE) == assigned(19))
    cloud.say(b"")
    await eventually(lambda: device.heard[ONE] == b"")
    late = await newcomer(here, stack)
    late.bus.publish(retained(topics.assignment("r", "marker"), b"x"))
    await eventually(lambda: late.heard)
    assert ONE not in late.heard
    assert sum(gateway.counted("relayed") for gateway in gateways) <= 38


@pytest.mark.parametrize(
    "payload",
    [
        b"garbage",
        b"{}",
        encode(SignedAssignment(b'{"seq": 0}', "k", "s")),
        b" " * (2 * MAX_ASSIGNMENT_BYTES + 1),
    ],
)
async def test_what_is_malformed_is_counted_and_stays_above(
    above: MemoryBroker, here: MemoryBroker, cloud: Desk, device: Desk, stack: AsyncExitStack,
    tmp_path: Path, payload: bytes,
) -> None:  # fmt: skip
    gateway = await Gateway(above, here, tmp_path).start(stack)

    cloud.say(payload)
    await eventually(lambda: gateway.counted("malformed") == 1)
    cloud.say(assigned(1))

    await eventually(lambda: device.heard.get(ONE))
    assert [message.payload for message in device.all] == [assigned(1)]


async def test_what_is_malformed_below_is_replaced(
    above: MemoryBroker, here: MemoryBroker, cloud: Desk, device: Desk, stack: AsyncExitStack,
    tmp_path: Path,
) -> None:  # fmt: skip
    device.bus.publish(retained(ONE, b"garbage"))
    await Gateway(above, here, tmp_path).start(stack)

    cloud.say(assigned(1))

    await eventually(lambda: device.heard.get(ONE) == assigned(1))


async def test_of_too_many_devices_the_oldest_are_forgotten_and_counted(
    above: MemoryBroker, here: MemoryBroker, cloud: Desk, device: Desk, stack: AsyncExitStack,
    tmp_path: Path,
) -> None:  # fmt: skip
    gateway = await Gateway(above, here, tmp_path, max_places=3).start(stack)
    await eventually(lambda: gateway.switch.is_heard)

    for number in range(8):
        site = f"pi-{number}"
        cloud.say(assigned(1, site=site, path=f"m/{number}.json"), site=site)

    await eventually(lambda: len(device.heard) == 8)
    assert gateway.counted("forgotten") == 5
    assert gateway.relay.paths() == {"m/5.json", "m/6.json", "m/7.json"}


async def test_what_a_full_send_queue_does_not_take_is_sent_later(
    above: MemoryBroker, here: MemoryBroker, cloud: Desk, device: Desk, stack: AsyncExitStack,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("regional_gateway.assignment_relay.RETRY_S", 0.01)
    for number in range(20):
        cloud.say(assigned(1, site=f"pi-{number}"), site=f"pi-{number}")
    gateway = await Gateway(above, here, tmp_path, max_queued_messages=2, delay_s=0.005).start(
        stack
    )

    await eventually(lambda: len(device.heard) == 20)
    assert gateway.counted("relayed") == 20
