"""Work that a handler starts and nobody waits for: finished, or ended, at the close.

What does a step again and again, of which half would be lost or done twice, is started as something
short, and looks between two steps whether the close has begun.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import structlog

from runtime.errors import TierwiseError

# What is being written at the close is finished first.
_FINISH_S = 2.0
_log = structlog.get_logger()


class Chores:
    """Owns its tasks; what goes wrong in one is logged and costs no other."""

    def __init__(self) -> None:
        self._short: set[asyncio.Task[Any]] = set()
        self._endless: set[asyncio.Task[Any]] = set()
        self._closing = asyncio.Event()

    @property
    def is_closing(self) -> bool:
        """Whether nothing new is to be begun."""
        return self._closing.is_set()

    async def pause(self, for_s: float) -> None:
        """Waits so long, or until the close begins."""
        with suppress(TimeoutError):
            async with asyncio.timeout(for_s):
                await self._closing.wait()

    def start(self, work: Coroutine[Any, Any, object], name: str) -> None:
        """Runs something short soon; nothing new is begun after the close."""
        self._own(work, name, self._short)

    def keep_up(self, work: Coroutine[Any, Any, object], name: str) -> None:
        """Runs something until the close."""
        self._own(work, name, self._endless)

    async def close(self) -> None:
        """Ends what has no end, and lets the rest finish within a moment."""
        self._closing.set()
        for task in self._endless:
            task.cancel()
        running = self._short | self._endless
        if running:
            _, late = await asyncio.wait(running, timeout=_FINISH_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _own(
        self, work: Coroutine[Any, Any, object], name: str, among: set[asyncio.Task[Any]]
    ) -> None:
        if self.is_closing:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work, name=name)
        among.add(task)
        task.add_done_callback(among.discard)
        task.add_done_callback(_note_end)


def _note_end(task: asyncio.Task[Any]) -> None:
    error = None if task.cancelled() else task.exception()
    if isinstance(error, TierwiseError):
        _log.warning("chore.failed", chore=task.get_name(), code=error.code, error=str(error))
    elif error is not None:
        _log.error("chore.crashed", chore=task.get_name(), exc_info=error)
