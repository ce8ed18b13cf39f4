"""What is stopped is not answered later by the back door, and is when it may be."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

from fakes.hierarchy import ask
from fakes.stops import in_force, operator, state, stated, stop
from fakes.storing import storing_cloud, storing_edge, storing_gateway
from fakes.waiting import eventually, until
from runtime.adapters.memory_bus import MemoryBroker


async def test_a_gateway_that_lets_nothing_climb_puts_off_what_was_asked_for_later(
    tmp_path: Path,
) -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        desk = await operator(broker)
        stack.push_async_callback(desk.close)
        edge = await stack.enter_async_context(storing_edge(broker, tmp_path))
        await ask(edge)
        await until(edge.waiting, bool)

        desk.publish(stated(state(1, stop(mode="fallback"))))
        cloud = await stack.enter_async_context(storing_cloud(broker, tmp_path))
        gateway = await stack.enter_async_context(
            storing_gateway(broker, tmp_path, latch=tmp_path / "latch")
        )
        await in_force(gateway, "fallback")
        await eventually(lambda: gateway.backends[0].num_runs)
        held = await edge.waiting()
        ran_while_stopped = cloud.backends[0].num_runs
        desk.publish(stated(state(2)))
        (event,) = await until(edge.events, bool)

    assert len(held) == 1
    assert ran_while_stopped == 0
    assert event.now.label == 1
