"""What answers in a process: one model with all that depends on it, exchanged between two requests.

Rules of this file:
  * a request is answered by one model to its end: who enters gets the one that serves then;
  * an exchange is one assignment; nothing waits for it and nothing fails by it;
  * what was exchanged is closed when its last request has ended;
  * another one may answer a share of the requests beside it (``runtime.core.splitting``): what is
    in no arm of that is marked, so that neither of the two is judged by it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from runtime.core.releases import Split
from runtime.core.splitting import Arm, arm_for
from runtime.exchange.auditing import Auditor
from runtime.exchange.flow import RequestFlow
from runtime.exchange.stopping import StopSwitch
from runtime.local_model import LocalModel
from runtime.messages import InferenceRequest

# Of the request in progress, and of what it leaves behind: whether it is in no arm.
is_apart: ContextVar[bool] = ContextVar("is_apart", default=False)
OnArm = Callable[[Arm], None]


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


@dataclass(frozen=True, slots=True)
class Beside:
    """What answers a share of the requests, which share, and who counts where they go."""

    served: Served
    split: Split
    on_arm: OnArm


class Serving:
    """Which one answers now; ``start`` it on the event loop."""

    def __init__(self, first: Served, switch: StopSwitch | None = None) -> None:
        self._current, self._switch = first, switch
        self._beside: Beside | None = None
        self._is_started = False

    def start(self) -> None:
        """Begins what goes on beside requests."""
        self._is_started = True
        for served in self.loaded:
            if served.watch is None:
                served.start()

    @property
    def current(self) -> Served:
        """The one that the next request gets, unless it is in the share of another one."""
        return self._current

    @property
    def loaded(self) -> tuple[Served, ...]:
        """All that answer."""
        return (self._current, *((self._beside.served,) if self._beside else ()))

    @contextmanager
    def using(self, request: InferenceRequest | None = None) -> Iterator[Served]:
        """The one that answers this request, to its end."""
        served, is_in_no_arm = self._chosen(request)
        served.enter()
        token = is_apart.set(is_in_no_arm)
        try:
            yield served
        finally:
            served.leave()
            is_apart.reset(token)

    def _chosen(self, request: InferenceRequest | None) -> tuple[Served, bool]:
        """Which one, and whether the hash has had no say in it."""
        if self._beside is None:
            return self._current, False
        beside, served = self._beside, self._current
        if request is not None and request.model_version:
            if request.model_version == beside.served.model.manifest.version:
                served = beside.served
            arm = Arm.NAMED
        else:
            arm = arm_for(beside.split, request.context if request is not None else {})
            if arm is Arm.TREATMENT:
                served = beside.served
        beside.on_arm(arm)
        return served, arm in (Arm.NAMED, Arm.UNKEYED)

    def divide(self, new: Served, split: Split, on_arm: OnArm) -> None:
        """Lets another one answer its share from the next request on, or another share."""
        self._beside = Beside(new, split, on_arm)
        if self._is_started and new.watch is None:
            new.start()
        self._tell_switch()

    def unite(self) -> None:
        """Lets one answer everything from the next request on."""
        self._beside = None
        self._tell_switch()

    def _tell_switch(self) -> None:
        if self._switch is not None:
            beside = self._beside.served.model.manifest if self._beside else None
            self._switch.serves(self._current.model.manifest, beside)

    def exchange(self, new: Served) -> Served:
        """Lets another one answer from the next request on; gives the one before."""
        old, self._current = self._current, new
        if self._beside is not None and self._beside.served is new:
            self._beside = None
        if new.watch is None:
            new.start()
        self._tell_switch()
        return old

    async def halt(self) -> None:
        """Ends what goes on beside requests; requests go on."""
        for served in self.loaded:
            await served.halt()

    def close_model(self) -> None:
        """Frees what answers; safe to call twice."""
        for served in self.loaded:
            served.model.close()
