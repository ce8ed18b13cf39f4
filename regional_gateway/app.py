"""The regional gateway as a process: its door below, its own model, and its way up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from regional_gateway.assignment_relay import AssignmentRelay
from regional_gateway.prefetching import Prefetcher
from regional_gateway.settings import GatewaySettings
from regional_gateway.updates import Mirrored, mirrored, prefetching
from runtime.adapters.clock import SystemClock
from runtime.adapters.dial import is_loopback
from runtime.adapters.http_server import errors_as_json
from runtime.adapters.metrics import TierMetrics
from runtime.common_settings import HttpSettings
from runtime.exchange.answering import answer_until
from runtime.exchange.assembly import Assembly
from runtime.exchange.control_relay import ControlRelay
from runtime.exchange.correction_relay import CorrectionRelay
from runtime.exchange.course import Identity
from runtime.exchange.forwarding import upward
from runtime.exchange.station import (
    Station,
    bus_of,
    station,
    switch_of,
    uplink_settings,
)
from runtime.exchange.stopping import StopSwitch
from runtime.exchange.uplink import Uplink
from runtime.messages import Tier
from runtime.ports import MessageBus
from runtime.updating.http_api import UpdatesApi
from runtime.updating.new_models import NewModels
from runtime.updating.place import Place

if TYPE_CHECKING:
    from runtime.updating.updater import Updater


async def serve(settings: GatewaySettings, stop: asyncio.Event) -> None:
    """Runs until ``stop`` is set, then drains.

    Raises:
        ArtifactError: the model cannot be used.
        PolicyError: the policy cannot be used, or is for another model.
        StartError: the port, the state folder or the mirror's folder cannot be used.
    """
    identity = Identity(Tier(settings.tier), settings.gateway, settings.region)
    clock, metrics = SystemClock(), TierMetrics(identity.tier)
    models = NewModels(
        Place(identity, settings.model, settings.state, settings.escalation, settings.own_updates),
        clock,
        metrics,
    )
    async with AsyncExitStack() as stack:
        parts = await stack.enter_async_context(
            station(
                identity,
                settings.model,
                settings.state,
                policy=settings.escalation.policy,
                clock=clock,
                metrics=metrics,
                load=models.loader(stack),
                traces=settings.tracing,
                review=settings.review,
            )
        )
        updates = await stack.enter_async_context(
            mirrored(
                settings.updates,
                Path(settings.state.folder),
                clock,
                (settings.region, *settings.below),
                metrics=metrics,
            )
        )
        bus = bus_of(parts, settings.broker)
        switch = switch_of(parts, settings.state)
        switch.listen(bus)
        relay = ControlRelay(
            switch, bus, region=settings.region, metrics=parts.metrics, clock=clock
        )
        ending = asyncio.create_task(relay.end_overrides(), name="overrides.end")
        stack.callback(ending.cancel)
        assignments = AssignmentRelay(
            switch,
            bus,
            region=settings.region,
            metrics=parts.metrics.relays,
            below=settings.below,
        )
        stack.callback(assignments.close)
        hear = [relay.listen, assignments.listen]
        if updates:
            prefetcher = Prefetcher(
                updates.mirror,
                updates.entries,
                bus,
                region=settings.region,
                metrics=parts.metrics.relays,
                assigned=assignments.paths,
                below=settings.below,
            )
            assignments.watch(prefetcher.wake)
            hear.append(prefetcher.listen)
            await stack.enter_async_context(prefetching(prefetcher))
        uplink = await _uplink(settings, parts, switch, hear, stack)
        assembly = Assembly(settings.escalation, settings.request, parts, switch, uplink=uplink)
        serving = models.serve(assembly)
        stack.callback(serving.close_model)
        stack.push_async_callback(serving.halt)
        # What the gateway relays to its region is for itself, too.
        models.listen(bus)
        models.start()
        stack.push_async_callback(models.close)
        await answer_until(
            stop,
            parts,
            bus,
            serving,
            request=settings.request,
            http=settings.http,
            dedupe_window=settings.dedupe_window,
            sends_on=uplink is not None,
            merge_interval_s=settings.state.rollup_interval_s,
            add_routes=partial(_add_routes, updates, models.updater, settings.http),
        )


def _add_routes(
    updates: Mirrored | None, updater: Updater | None, http: HttpSettings, app: web.Application
) -> None:
    """The mirror for the region, and the gateway's own model."""
    if updates is not None:
        updates.server.add_routes(app)
    if updater is not None:
        app.middlewares.append(errors_as_json)
        UpdatesApi(updater).add_to(app, may_roll_back=is_loopback(http.host))


async def _uplink(
    settings: GatewaySettings,
    parts: Station,
    switch: StopSwitch,
    hear: Sequence[Callable[[MessageBus, str], None]],
    stack: AsyncExitStack,
) -> Uplink | None:
    """The way to the tier above: a connection of its own, so that its stalls hold no replies up."""
    if not (settings.upstream.enabled and settings.escalation.enabled):
        return None
    bus = bus_of(parts, settings.upstream.broker, suffix=".up")
    uplink = Uplink(
        bus,
        parts.clock,
        parts.metrics,
        uplink_settings(
            settings.escalation,
            tier_above=Tier(settings.upstream.tier),
            region=settings.upstream.region,
            asker=settings.gateway,
            pinned="",
            max_pending=settings.request.max_pending,
        ),
        epoch=parts.epoch,
        tracer=parts.tracer,
    )
    for listen in hear:
        listen(bus, settings.upstream.region)
    stack.push_async_callback(bus.close)
    stack.push_async_callback(uplink.close)
    sender = upward(
        parts.storage,
        bus,
        region=settings.upstream.region,
        site=settings.gateway,
        is_reachable=lambda: switch.stop is None and uplink.choose() is not None,
        is_busy=lambda: uplink.num_pending > 0,
        tracer=parts.tracer,
    )
    stack.push_async_callback(sender.close)
    corrections = CorrectionRelay(
        parts.storage,
        bus,
        parts.identity,
        region=settings.upstream.region,
        above=uplink.choose,
    )
    stack.push_async_callback(corrections.close)
    await bus.start()
    sender.start()
    corrections.start()
    return uplink
