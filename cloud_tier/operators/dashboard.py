"""The operators' dashboard as a part of the cloud tier: settings turned into its services."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cloud_tier.operators.audit import AuditLog
from cloud_tier.operators.control_api import ControlApi
from cloud_tier.operators.control_desk import ControlDesk
from cloud_tier.operators.drift import DriftApi
from cloud_tier.operators.fleet_view import FleetView
from cloud_tier.operators.listener import AddRoutes
from cloud_tier.operators.live import Live
from cloud_tier.operators.requests_api import RequestsApi
from cloud_tier.operators.retiring import RetiringApi
from cloud_tier.operators.told import keep_told
from cloud_tier.rollouts.service import Rollouts
from cloud_tier.rollouts.views import summary
from cloud_tier.settings import CloudSettings
from cloud_tier.telemetry.service import Telemetry
from runtime.adapters.policy_file import KnownPolicy, read_policy
from runtime.exchange.chores import Chores
from runtime.exchange.control_relay import ControlRelay
from runtime.exchange.station import Station, bus_of
from runtime.exchange.stopping import StopSwitch

# So many of the newest rollouts are told of as they change; the page asks for others.
MAX_ROLLOUTS = 20


@asynccontextmanager
async def dashboard(
    settings: CloudSettings,
    parts: Station,
    *,
    switch: StopSwitch,
    relay: ControlRelay,
    rollouts: Rollouts | None,
    telemetry: Telemetry | None,
) -> AsyncIterator[list[AddRoutes]]:
    """What the operators' port serves beside rollouts; gives who adds its routes.

    It has a connection of its own to the broker, so that ten thousand states do not delay a
    request.

    Raises:
        StartError: the audit's file cannot be used.
    """
    folder = Path(settings.state.folder)
    bus = bus_of(parts, settings.broker, suffix="-operators")
    features = {"rollouts": rollouts is not None, "telemetry": telemetry is not None}
    view = FleetView(parts.clock, settings.region, features=features)
    desk = ControlDesk(
        settings.region,
        switch=switch,
        relay=relay,
        bus=bus,
        fleet=view.fleet,
        clock=parts.clock,
    )
    requests = RequestsApi(
        [folder, *map(Path, settings.operators.folders)],
        parts.clock,
        labels=parts.model.manifest.labels,
        policies=await asyncio.to_thread(_policies, settings),
        samples=None if telemetry is None else telemetry.samples,
    )
    live = Live(view, requests, desk, parts.clock, rollouts=_lines_of(rollouts))
    audit = await asyncio.to_thread(AuditLog, folder)
    chores = Chores()
    adders: list[AddRoutes] = []
    try:
        view.listen(bus)
        desk.listen()
        await bus.start()
        chores.keep_up(live.run(), "operators.live")
        if telemetry is not None:
            told = keep_told(telemetry.ask, view.fleet, live, retired=telemetry.retired)
            chores.keep_up(told, "operators.told")
            adders.append(RetiringApi(telemetry.retired, audit, parts.clock, view.fleet).add_routes)
        control = ControlApi(desk, audit, parts.clock)
        drift = DriftApi(requests, parts.clock.wall_s)
        adders += [one.add_routes for one in (control, view, requests, live, drift)]
        yield adders
    finally:
        await chores.close()
        await bus.close()
        await asyncio.to_thread(audit.close)


def _policies(settings: CloudSettings) -> list[KnownPolicy]:
    # Only who runs the bundled task needs the package that holds it.
    from model_zoo.catalog import bundled_policy  # noqa: PLC0415

    own = Path(settings.escalation.policy) if settings.escalation.policy else bundled_policy()
    return [] if own is None else [read_policy(own)]


def _lines_of(rollouts: Rollouts | None) -> Callable[[], Awaitable[list[dict[str, Any]]]]:
    async def lines() -> list[dict[str, Any]]:
        if rollouts is None:
            return []
        return [summary(one) for one in (await rollouts.controller.store.all())[:MAX_ROLLOUTS]]

    return lines
