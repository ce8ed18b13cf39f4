"""Work in a thread that is never left running behind the back of who was cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs ``work`` in a thread; where the caller is cancelled, that is raised once it has ended.

    For work that ends by itself soon, such as one step on a disk: the next one, of whoever comes
    after, must not find it in progress.
    """
    running = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await _ended(running)
        raise


async def made_in_thread(make: Callable[[], T], close: Callable[[T], object]) -> T:
    """What ``make`` gives; where the caller is cancelled meanwhile, it is closed, in a thread too.

    For what holds processes or memory: nobody else could give it back.
    """
    made: list[T] = []
    try:
        await in_thread(lambda: made.append(make()))
    except asyncio.CancelledError:
        for one in made:
            await in_thread(close, one)
        raise
    return made[0]


async def _ended(running: asyncio.Future[T]) -> None:
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError:
            continue
    if not running.cancelled():
        # What went wrong is no news to who does not wait any more.
        running.exception()
