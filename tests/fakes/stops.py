"""Stops as operators make them, and tiers that obey."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fakes.tiers import FakeTier, manifest
from runtime import topics
from runtime.adapters.control_latch import ControlLatch
from runtime.adapters.memory_bus import MemoryBroker, MemoryBus
from runtime.exchange.control_relay import ControlRelay
from runtime.exchange.stopping import StopSwitch
from runtime.messages import ControlState, Stop, StopMode, StopScope, Tier, encode_control
from runtime.ports import Message, MessageBus


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
    return bus


def switch(tier: FakeTier, folder: Path, bus: MessageBus | None = None) -> StopSwitch:
    """Gives a tier a switch that hears its bus; before the tier is entered."""
    made = StopSwitch(
        tier.identity,
        manifest(tier.identity.tier),
        latch=ControlLatch(folder),
        clock=tier.clock,
        metrics=tier.metrics,
    )
    made.listen(bus or tier.bus)
    tier.flow.obey(made)
    return made


def relay(tier: FakeTier, made: StopSwitch, upstream_region: str = "") -> ControlRelay:
    """Has a tier keep what its region retains, and take over what the one above does."""
    given = ControlRelay(made, tier.bus, region=tier.identity.region, metrics=tier.metrics)
    if upstream_region:
        given.listen(tier.up_bus, upstream_region)
    return given


def said_of(answer: Any) -> tuple[str, str, str]:
    return answer.outcome.value, answer.reason.value, answer.guarantee.value


__all__ = ["Tier", "operator", "relay", "said_of", "state", "stated", "stop", "switch"]
