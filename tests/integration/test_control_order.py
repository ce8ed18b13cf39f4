"""That a broker sends what it retains before what comes later is what stops rely on."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from fakes.brokers import PahoSite
from fakes.stops import state, stated, stop
from fakes.tiers import manifest
from fakes.waiting import eventually
from runtime import topics
from runtime.adapters.broker import Preference
from runtime.adapters.clock import SystemClock
from runtime.adapters.control_latch import ControlLatch
from runtime.adapters.metrics import TierMetrics
from runtime.exchange.course import Identity
from runtime.exchange.stopping import StopSwitch
from runtime.messages import Tier
from runtime.ports import Message

NUM_STATES = 700


def note_once_heard(switch: StopSwitch, noted: list[dict[str, int]]) -> None:
    """What is known each time that something comes and everything is said to have come."""
    if switch.is_heard:
        noted.append({region: one.sequence for region, one in switch.known.items()})


def is_latest(noted: list[dict[str, int]], said: dict[str, int]) -> bool:
    return noted[-1] == said


@pytest.mark.parametrize("kind", ["embedded", "mosquitto"])
async def test_what_is_retained_is_heard_before_what_we_say_to_ourselves(
    tmp_path: Path, kind: Preference
) -> None:
    """With more QoS 1 messages retained than a broker has on their way at a time."""
    async with AsyncExitStack() as stack:
        site = PahoSite(tmp_path, kind)
        stack.push_async_callback(site.close)
        desk = site.bus("desk")
        await desk.start()
        await desk.wait_connected(10)
        heard: list[str] = []
        desk.subscribe(topics.gateway_state("r"), lambda message: heard.append(message.topic))
        for number in range(NUM_STATES):
            at = topics.gateway_state("r", f"gateway-{number}")
            desk.publish(Message(at, b"x" * 500, qos=1, retain=True))
        stops = [stop("device", f"agent-{number}", why="x" * 400) for number in range(200)]
        desk.publish(stated(state(7, stop("all"), *stops)))
        desk.publish(stated(state(8, stop("all"), *stops, region="cloud"), at="r"))
        await eventually(lambda: len(set(heard)) == NUM_STATES)
        clock, said = SystemClock(), {"r": 7, "cloud": 8}

        for number in range(10):
            bus = site.bus(f"agent-{number}")
            switch = StopSwitch(
                Identity(Tier.EDGE, f"agent-{number}", "r"),
                manifest(Tier.EDGE),
                latch=ControlLatch(tmp_path / str(number), "r"),
                clock=clock,
                metrics=TierMetrics(Tier.EDGE),
            )
            bus.subscribe(topics.gateway_state("r"), lambda _: None, qos=1)
            switch.listen(bus)
            once_heard: list[dict[str, int]] = []
            switch.watch(partial(note_once_heard, switch, once_heard))

            await bus.start()
            await eventually(partial(len, once_heard))

            if kind == "mosquitto":
                assert once_heard[0] == said
            # The embedded broker may bring what it retains after what was published later.
            await eventually(partial(is_latest, once_heard, said))
            await bus.close()
            await switch.close()
