"""A tier that answers the tier below: its door, its presence and its HTTP port."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack

import structlog
from aiohttp import web

from runtime.adapters.http_server import operations_app
from runtime.adapters.http_server import serving as listening
from runtime.adapters.service_manager import telling_manager
from runtime.common_settings import (
    HttpSettings,
    RequestSettings,
)
from runtime.exchange.forwarding import taking_over
from runtime.exchange.ingress import Ingress, IngressLimits
from runtime.exchange.presence import Presence
from runtime.exchange.receiving import Applier
from runtime.exchange.serving import Serving
from runtime.exchange.station import Station, birth_of
from runtime.messages import Birth, ItemKind
from runtime.ports import MessageBus

DRAIN_S = 5.0
_log = structlog.get_logger()


async def answer_until(
    stop: asyncio.Event,
    parts: Station,
    bus: MessageBus,
    serving: Serving,
    *,
    request: RequestSettings,
    http: HttpSettings,
    dedupe_window: int = 4096,
    sends_on: bool = False,
    add_routes: Callable[[web.Application], None] | None = None,
    appliers: Mapping[ItemKind, Applier] | None = None,
    merge_interval_s: float = 60.0,
) -> None:
    """Serves until ``stop`` is set, then drains, says goodbye and closes the bus.

    ``sends_on`` says that what comes late from below goes on to the tier above. ``add_routes`` adds
    what else the HTTP port serves, ``appliers`` take items that end their way here.

    Raises:
        StartError: the HTTP port cannot be listened on.
    """
    limits = IngressLimits(
        default_budget_ms=request.default_budget_ms,
        max_budget_ms=request.max_budget_ms,
        margin_ms=request.margin_ms,
        max_pending=request.max_pending,
        max_body_bytes=request.max_body_bytes,
        dedupe_window=dedupe_window,
    )
    ingress = Ingress(bus, parts.clock, parts.metrics, serving, limits)
    switch = serving.current.flow.switch
    app = operations_app(
        parts.metrics, lambda: bus.is_connected, control=switch.shown if switch else None
    )
    if add_routes is not None:
        add_routes(app)
    async with AsyncExitStack() as stack:
        base = await stack.enter_async_context(listening(app, http.host, http.port))
        if switch is not None:
            stack.push_async_callback(switch.close)
        stack.push_async_callback(bus.close)
        bus.on_connection(parts.metrics.set_connected)

        def birth() -> Birth:
            born = birth_of(
                parts,
                http_base=base,
                capacity=limits.max_pending,
                queue_len=ingress.queue_len,
                serves=serving.current.model.manifest,
            )
            return switch.stated(born) if switch else born

        presence = Presence(bus, parts.identity, parts.epoch, birth)
        if switch is not None:
            switch.watch(presence.look)
        ingress.open()
        receiver = await stack.enter_async_context(
            taking_over(
                parts.storage,
                bus,
                serving,
                sends_on=sends_on,
                max_body_bytes=request.max_body_bytes,
            )
        )
        receiver.is_busy = lambda: ingress.queue_len > 0
        receiver.appliers = appliers or {}
        if sends_on:
            merging = asyncio.create_task(
                receiver.send_rollups_on(merge_interval_s), name="rollups.merge"
            )
            stack.callback(merging.cancel)
        # Whatever ends this: the bus closes without the will, and a birth would stay forever.
        stack.callback(presence.offline)
        refresh = asyncio.create_task(presence.refresh(), name="presence.refresh")
        stack.callback(refresh.cancel)
        serving.start()
        stack.push_async_callback(serving.halt)
        await bus.start()
        manifest = serving.current.model.manifest
        _log.info(
            "tier.started",
            model=manifest.name,
            version=manifest.version,
            policy=parts.gearbox.digest,
            url=base,
        )
        manager = await stack.enter_async_context(telling_manager())
        await stop.wait()
        manager.stopping()
        refresh.cancel()
        presence.draining()
        await ingress.drain(DRAIN_S)
