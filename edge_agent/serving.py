"""What answers on a device: one model with all that depends on it, exchanged between two requests.

Rules of this file:
  * a request is answered by one model to its end: who enters gets the one that serves then;
  * an exchange is one assignment; nothing waits for it and nothing fails by it;
  * what was exchanged is closed when its last request has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from edge_agent.settings import EdgeSettings
from runtime.core.gearbox import Gearbox
from runtime.exchange.auditing import Auditor
from runtime.exchange.correcting import CorrectionDesk
from runtime.exchange.flow import RequestFlow
from runtime.exchange.station import Station, auditor_of, escalation_policy, pilot_of
from runtime.exchange.stopping import StopSwitch
from runtime.exchange.uplink import Uplink
from runtime.local_model import LocalModel
from runtime.ports import DecisionLog


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

    def start(self) -> None:
        """Begins to look how late the event loop runs."""
        self.is_idle.set()
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
    """Which one answers now."""

    def __init__(self, first: Served, switch: StopSwitch) -> None:
        self._current, self._switch = first, switch
        first.start()

    @property
    def current(self) -> Served:
        """The one that the next request gets."""
        return self._current

    @contextmanager
    def using(self) -> Iterator[Served]:
        """The one that answers this request, to its end."""
        served = self._current
        served.num_in_use += 1
        served.is_idle.clear()
        try:
            yield served
        finally:
            served.num_in_use -= 1
            if not served.num_in_use:
                served.is_idle.set()

    def exchange(self, new: Served) -> Served:
        """Lets another one answer from the next request on; gives the one before."""
        old, self._current = self._current, new
        if new.watch is None:
            new.start()
        self._switch.serves(new.model.manifest)
        return old

    async def halt(self) -> None:
        """Ends what goes on beside requests; requests go on."""
        await self._current.halt()

    def close_model(self) -> None:
        """Frees the model that answers; safe to call twice."""
        self._current.model.close()


@dataclass(frozen=True, slots=True)
class Assembly:
    """Builds what answers around a model; everything else of the agent stays as it is."""

    settings: EdgeSettings
    parts: Station
    switch: StopSwitch
    desk: CorrectionDesk
    uplink: Uplink | None

    def build(
        self,
        model: LocalModel,
        gearbox: Gearbox,
        *,
        release: str = "",
        log: DecisionLog | None = None,
    ) -> Served:
        """What answers with this model; it does nothing before it is exchanged for another."""
        escalation, uplink = self.settings.escalation, self.uplink
        reviews = self.parts.reviews
        parts = replace(
            self.parts,
            model=model,
            gearbox=gearbox,
            log=log or self.parts.log,
            reviewer=reviews.reviewer(gearbox, model.manifest) if reviews else None,
        )
        pilot = pilot_of(parts, escalation) if uplink else None
        auditor = auditor_of(parts, escalation, uplink, pilot) if uplink else None
        flow = RequestFlow(
            parts.identity,
            model=model,
            policy=escalation_policy(escalation, self.settings.request, model),
            clock=parts.clock,
            metrics=parts.metrics,
            log=parts.log,
            gearbox=gearbox,
            uplink=uplink,
            auditor=auditor,
            reviewer=parts.reviewer,
            pilot=pilot,
            switch=self.switch,
            desk=self.desk,
        )
        return Served(model, flow, auditor, release)
