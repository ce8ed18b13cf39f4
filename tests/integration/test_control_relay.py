"""What gateways do for stops: take them down to their region, and keep them at its broker."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

from fakes.hierarchy import ask, cloud, edge, gateway, online
from fakes.stops import in_force, mode_of, said_of, state, stated, stop
from fakes.waiting import eventually
from runtime import topics
from runtime.adapters.memory_bus import MemoryBroker, MemoryBus
from runtime.ports import Message


async def test_the_clouds_stops_reach_the_devices_of_a_region(
    broker: MemoryBroker, desk: MemoryBus, stack: AsyncExitStack, tmp_path: Path
) -> None:
    device = edge(broker, state=tmp_path / "d")
    door = gateway(broker, state=tmp_path / "g")
    top = cloud(broker, state=tmp_path / "c")
    await online(stack, device, door, top)

    desk.publish(stated(state(3, stop("region", "r"), region="cloud")))
    await in_force(device)
    await in_force(door)
    answer, _ = await ask(device)

    assert mode_of(top) == ""
    assert said_of(answer) == ("abstained", "stopped", "none")
    assert device.switch is not None
    assert set(device.switch.known) == {"cloud"}
    desk.publish(stated(state(1, stop("device", "edge-1"))))
    await eventually(lambda: device.switch and len(device.switch.known) == 2)
    desk.publish(stated(state(4, region="cloud")))
    await in_force(door, "")
    assert mode_of(device) == "stop"


async def test_a_relay_takes_no_word_about_its_own_region_from_above(
    broker: MemoryBroker, desk: MemoryBus, stack: AsyncExitStack, tmp_path: Path
) -> None:
    door = gateway(broker, state=tmp_path)
    await online(stack, door)

    desk.publish(stated(state(3, stop()), at="cloud"))
    await eventually(
        lambda: door.counted('tierwise_regional_controls_total{result="malformed"}') == 1
    )

    assert mode_of(door) == ""


async def test_a_broker_that_lost_what_it_retained_is_told_again(
    broker: MemoryBroker, desk: MemoryBus, stack: AsyncExitStack, tmp_path: Path
) -> None:
    door = gateway(broker, state=tmp_path / "g")
    await online(stack, door)
    desk.publish(stated(state(3, stop("device", "edge-1"))))
    desk.publish(stated(state(7, stop("device", "edge-1"), region="cloud")))
    await eventually(lambda: door.switch and len(door.switch.known) == 2)

    broker.stop()
    broker.start()
    await eventually(lambda: door.switch and door.switch.is_heard)
    await eventually(lambda: desk.is_connected)
    late = edge(broker, state=tmp_path / "d")
    await online(stack, late)
    await in_force(late)
    desk.publish(stated(state(2)))
    desk.publish(Message(topics.control("r"), b"", qos=1, retain=True))
    later = edge(broker, state=tmp_path / "e", site="edge-2")
    await online(stack, later)

    for device in (late, later):
        await eventually(
            lambda: device.switch and door.switch and device.switch.known == door.switch.known  # noqa: B023  awaited here
        )
    assert (mode_of(late), mode_of(later)) == ("stop", "")
