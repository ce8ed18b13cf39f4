"""What answers in a process: one model with all that depends on it, exchanged between two requests.

Rules of this file:
  * a request is answered by one model to its end: who enters gets the one that serves then;
  * an exchange is one assignment; nothing waits for it and nothing fails by it;
  * what was exchanged is closed when its last request has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from runtime.exchange.auditing import Auditor
from runtime.exchange.flow import RequestFlow
from runtime.exchange.stopping import StopSwitch
from runtime.local_model import LocalModel


@dataclass(eq=False)
class Served:
    """A model that answers, or did; ``release`` is its manifest's digest, empty where none asks."""

    model: LocalModel
    flow: RequestFlow
    auditor: Auditor | None = None
    release: str = ""
    num_in_use: int = 0
    is_idle: asyncio.Event = field(default_factory=asyncio.Event)
    watch: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        """Nobody has entered yet."""
        self.is_idle.set()

    def enter(self) -> None:
        """One more request is answered by this one; it is not closed before that leaves."""
        self.num_in_use += 1
        self.is_idle.clear()

    def leave(self) -> None:
        """One that entered has ended."""
        self.num_in_use -= 1
        if not self.num_in_use:
            self.is_idle.set()

    def start(self) -> None:
        """Begins to look how late the event loop runs."""
        watching = self.flow.handing_over.watch()
        self.watch = asyncio.create_task(watching, name="handing_over.watch")

    async def halt(self) -> None:
        """Ends what goes on beside requests."""
        if self.watch is not None:
            self.watch.cancel()
        if self.auditor is not None:
            await self.auditor.close()

    async def close(self) -> None:
        """Frees all of it once its last request has ended."""
        await self.is_idle.wait()
        await self.halt()
        await asyncio.to_thread(self.model.close)


class Serving:
    """Which one answers now; ``start`` it on the event loop."""

    def __init__(self, first: Served, switch: StopSwitch | None = None) -> None:
        self._current, self._switch = first, switch

    def start(self) -> None:
        """Begins what goes on beside requests."""
        if self._current.watch is None:
            self._current.start()

    @property
    def current(self) -> Served:
        """The one that the next request gets."""
        return self._current

    @contextmanager
    def using(self) -> Iterator[Served]:
        """The one that answers this request, to its end."""
        served = self._current
        served.enter()
        try:
            yield served
        finally:
            served.leave()

    def exchange(self, new: Served) -> Served:
        """Lets another one answer from the next request on; gives the one before."""
        old, self._current = self._current, new
        if new.watch is None:
            new.start()
        if self._switch is not None:
            self._switch.serves(new.model.manifest)
        return old

    async def halt(self) -> None:
        """Ends what goes on beside requests; requests go on."""
        await self._current.halt()

    def close_model(self) -> None:
        """Frees the model that answers; safe to call twice."""
        self._current.model.close()
