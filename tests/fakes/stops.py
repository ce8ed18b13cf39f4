"""Stops as operators make them."""

from __future__ import annotations

from typing import Any

from fakes.tiers import FakeTier
from fakes.waiting import eventually
from runtime import topics
from runtime.adapters.memory_bus import MemoryBroker, MemoryBus
from runtime.messages import ControlState, Stop, StopMode, StopScope, encode_control
from runtime.ports import Message


def stop(
    scope: str = "all", target: str = "", mode: str = "stop", why: str = "it is wrong"
) -> Stop:
    return Stop(StopScope(scope), StopMode(mode), why, "kim@desk", 1_790_000_000.0, target)


def state(sequence: int, *stops: Stop, region: str = "r") -> ControlState:
    return ControlState(region, sequence, stops)


def stated(said: ControlState, *, at: str = "") -> Message:
    """The message with which an operator, or with ``at`` a relay to that region, says it."""
    topic = topics.control(at, said.region) if at else topics.control(said.region)
    return Message(topic, encode_control(said), qos=1, retain=True)


async def operator(broker: MemoryBroker) -> MemoryBus:
    bus = MemoryBus(broker, client_id="operator")
    await bus.start()
    await bus.wait_connected(10)
    return bus


def said_of(answer: Any) -> tuple[str, str, str]:
    return answer.outcome.value, answer.reason.value, answer.guarantee.value


def mode_of(tier: FakeTier) -> str:
    assert tier.switch is not None
    return tier.switch.stop.mode.value if tier.switch.stop else ""


async def in_force(tier: FakeTier, mode: str = "stop") -> None:
    await eventually(lambda: mode_of(tier) == mode)
