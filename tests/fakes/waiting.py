from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from tierwise.cloud_client import CloudClient

T = TypeVar("T")
_POLL_S = 0.002
# Costs nothing while all is well; less than a test may take.
_PATIENCE_S = 15.0


async def eventually(condition: Callable[[], object], timeout_s: float = _PATIENCE_S) -> None:
    """Returns as soon as ``condition()`` is true; fails the test when it never is."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"still not true after {timeout_s} s: {condition}")
        await asyncio.sleep(_POLL_S)


async def until(
    look: Callable[[], Awaitable[T]],
    is_right: Callable[[T], object],
    timeout_s: float = _PATIENCE_S,
) -> T:
    """What is seen as soon as it is right; fails the test when it never is."""
    deadline_s = time.monotonic() + timeout_s
    while not is_right(found := await look()):
        assert time.monotonic() < deadline_s, found
        await asyncio.sleep(_POLL_S)
    return found


def eventually_sync(condition: Callable[[], object], timeout_s: float = _PATIENCE_S) -> None:
    """``eventually`` for a test without an event loop."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"still not true after {timeout_s} s: {condition}")
        time.sleep(_POLL_S)


async def rollout_is(client: CloudClient, rollout: str, **wanted: object) -> dict[str, Any]:
    """A rollout's status as soon as it is so."""
    async with asyncio.timeout(100):
        async for name, value in client.events(f"/rollouts/{rollout}/events"):
            if name == "status" and all(value[key] == one for key, one in wanted.items()):
                return value
    raise AssertionError("the service has ended its stream")
