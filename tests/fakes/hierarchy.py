"""Hierarchies of fake tiers, entered in order, and a caller with a clock."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from fakes.tiers import (
    SURE,
    UNSURE,
    FakeTier,
    NumbersBackend,
    request,
)
from fakes.waiting import eventually
from runtime.adapters.memory_bus import MemoryBroker
from runtime.deadline import Deadline
from runtime.exchange.uplink import Uplink
from runtime.messages import (
    Answer,
    Tier,
)


async def ask(tier: FakeTier, budget_ms: float = 1000, **fields: Any) -> tuple[Answer, float]:
    """The answer and the milliseconds that it took."""
    began_s = time.monotonic()
    question = request(remaining_ms=budget_ms, **fields)
    tier.flow.check(question)
    answer = await tier.flow.answer(question, Deadline.after(began_s, budget_ms))
    return answer, (time.monotonic() - began_s) * 1000


def edge(broker: MemoryBroker, *backends: NumbersBackend, **options: Any) -> FakeTier:
    backends = backends or (NumbersBackend(UNSURE),)
    return FakeTier(broker, Tier.EDGE, *backends, above=Tier.REGIONAL, **options)


def gateway(
    broker: MemoryBroker,
    *backends: NumbersBackend,
    tier: Tier = Tier.REGIONAL,
    above: Tier = Tier.CLOUD,
    **options: Any,
) -> FakeTier:
    backends = backends or (NumbersBackend(UNSURE),)
    return FakeTier(broker, tier, *backends, above=above, **options)


def cloud(broker: MemoryBroker, *backends: NumbersBackend, **options: Any) -> FakeTier:
    return FakeTier(broker, Tier.CLOUD, *(backends or (NumbersBackend(SURE),)), **options)


def _has_gateway(uplink: Uplink) -> bool:
    return uplink.prospect(100).gateway is not None


async def online(stack: AsyncExitStack, *tiers: FakeTier) -> None:
    """Enters the tiers and waits until each can ask the one above it."""
    for tier in tiers:
        await stack.enter_async_context(tier)
    for tier in tiers:
        uplink = tier.uplink
        if uplink is None:
            continue
        if any(other.identity.tier is uplink.tier_above for other in tiers):
            await eventually(partial(_has_gateway, uplink))
