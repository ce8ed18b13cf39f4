"""Answers that no policy has chosen, handed to people: by audits, disagreement, drift, chance."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from typing import Any

import numpy as np
import pytest

from fakes.clock import FakeClock
from fakes.hierarchy import ask, cloud, edge, gateway, online
from fakes.reviews import ListQueue
from fakes.tiers import SURE, FakeTier, NumbersBackend
from fakes.waiting import eventually
from runtime.adapters.memory_bus import MemoryBroker
from runtime.core.audit import AuditSettings
from runtime.exchange.reviewing import Reviewer
from runtime.exchange.sampling import Sampler
from runtime.review_settings import ReviewSettings

OTHER = (0.0, 9.0, 0.0)


def sampling(
    tier: FakeTier, settings: ReviewSettings, clock: Any = None, *, has_drifted: bool = False
) -> ListQueue:
    """Has a tier sample its answers."""
    queue = ListQueue()
    reviewer = Reviewer(
        tier.identity,
        queue,
        manifest=tier.model.manifest,
        clock=tier.clock,
        metrics=tier.metrics,
    )
    sampler = Sampler(
        reviewer,
        settings,
        clock or tier.clock,
        has_drifted=lambda: has_drifted,
        chooser=random.Random(1),
    )
    tier.flow._ledger._sampler = sampler
    if tier.auditor is not None:
        tier.auditor._sampler = sampler
    return queue


@pytest.mark.parametrize(
    ("settings", "has_drifted", "source"),
    [
        (ReviewSettings(random_share=1.0), False, "random"),
        (ReviewSettings(drift_share=1.0), True, "drift"),
        (ReviewSettings(drift_share=1.0), False, None),
        (ReviewSettings(disagreement_share=1.0), False, None),
        (ReviewSettings(), True, None),
    ],
)
async def test_shares_of_answers_are_handed_over(
    settings: ReviewSettings, has_drifted: bool, source: str | None
) -> None:
    device = edge(MemoryBroker(), NumbersBackend(SURE))
    queue = sampling(device, settings, has_drifted=has_drifted)
    inputs = {"x": np.ones((1, 2), np.float32)}
    async with device:
        answer, _ = await ask(device, inputs=inputs)
        inputs["x"][:] = 7
        if source:
            await eventually(lambda: queue.items)

    assert answer.outcome == "answered"
    assert [one.source for one in queue.items] == ([source] if source else [])
    if source:
        assert queue.items[0].labels == ("cat", "dog", "owl")
        # As it was when it was asked.
        assert b"7" not in queue.items[0].body[queue.items[0].header_length :]


async def test_tiers_that_disagree_are_looked_at() -> None:
    broker = MemoryBroker()
    device, middle = edge(broker), gateway(broker, NumbersBackend(OTHER))
    queue = sampling(device, ReviewSettings(disagreement_share=1.0))
    async with device, middle:
        await eventually(lambda: device.uplink is not None and device.uplink.choose() is not None)
        answer, _ = await ask(device)
        await eventually(lambda: queue.items)

    assert answer.label == 1
    assert (queue.items[0].source, queue.items[0].label) == ("disagreement", 0)
    assert '{"tier":"regional","label":1}' in queue.items[0].answers


async def test_no_more_than_so_many_an_hour() -> None:
    device, clock = edge(MemoryBroker(), NumbersBackend(SURE)), FakeClock()
    queue = sampling(device, ReviewSettings(random_share=1.0, sampled_per_hour=8), clock)
    async with device:
        for number in range(6):
            await ask(device, request_id=f"q{number}")
        await eventually(lambda: len(queue.items) >= 2)
        clock.advance(450)
        await ask(device, request_id="later")
        await eventually(lambda: len(queue.items) >= 3)

    assert [one.request_id for one in queue.items] == ["q0", "q1", "later"]


async def test_batches_are_not() -> None:
    device = edge(MemoryBroker(), NumbersBackend(SURE))
    queue = sampling(device, ReviewSettings(random_share=1.0))
    async with device:
        await ask(device, inputs={"x": np.ones((2, 2), np.float32)})

    assert queue.items == []


async def test_an_audit_that_disagrees_is_looked_at() -> None:
    broker = MemoryBroker()
    device = edge(broker, NumbersBackend(SURE), audits=AuditSettings(rate=2.0))
    tiers = device, gateway(broker), cloud(broker, NumbersBackend(OTHER))
    queue = sampling(device, ReviewSettings(audits=True))
    async with AsyncExitStack() as stack:
        await online(stack, *tiers)
        answer, _ = await ask(device)
        await eventually(lambda: queue.items)

    assert answer.outcome == "answered"
    assert (queue.items[0].source, queue.items[0].label) == ("audit", 0)
    assert '{"tier":"cloud","label":1}' in queue.items[0].answers
