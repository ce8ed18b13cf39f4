"""Reviews made of a few numbers, and queues in memory."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from fakes.gears import CHAIN, policy
from fakes.tiers import LABELS
from runtime.codec import encode_request
from runtime.messages import Tensors
from runtime.policy import Policy, Review
from runtime.ports import ReviewItem, ReviewResult

T = TypeVar("T")
# Below this score of the top tier a person is asked.
ASKED_BELOW = 0.9
REVIEW = Review(
    price=2.0,
    latency_ms=60_000.0,
    accuracy=0.95,
    rows=(0,) * len(LABELS),
    edges=((ASKED_BELOW,),) * 2,
    chance=((0.5, 0.9),) * 2,
)


def reviewed(followed: Policy = CHAIN, review: Review = REVIEW, **fields: Any) -> Policy:
    """A policy whose gears have people look at unsure answers of the top tier."""
    gears = [msgspec.structs.replace(gear, review=review) for gear in followed.gears]
    return policy(*gears, **fields)


def item(name: str = "i1", inputs: Tensors | None = None, **changes: Any) -> ReviewItem:
    """An item that waits."""
    body, header_length = encode_request(inputs or {}, request_id="r1")
    now_s = time.time()
    made = ReviewItem(
        item=name,
        request_id="r1",
        wall_s=now_s,
        due_s=now_s + 60,
        tier="cloud",
        site="cloud-1",
        region="cloud",
        model="animals",
        model_version="1",
        policy="0123456789ab",
        gear="g",
        label=1,
        label_name="dog",
        confidence=0.5,
        chance=0.5,
        answers='[{"tier":"edge","label":0},{"tier":"cloud","label":1,"score":0.5}]',
        residency="cloud",
        header_length=header_length,
        body=body,
    )
    return dataclasses.replace(made, **changes)


@dataclass
class ListQueue:
    """A review queue in memory that says what it is told to."""

    says: ReviewResult = "queued"
    items: list[ReviewItem] = field(default_factory=list)

    async def put(self, item: ReviewItem, timeout_s: float) -> ReviewResult:
        assert timeout_s > 0
        if self.says == "queued":
            self.items.append(item)
        return self.says


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result, on an event loop of its own."""
    return asyncio.run(coroutine)
