"""The cloud tier as a process: the ensemble behind its door on the broker."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aiohttp import web

from cloud_tier.rollouts.service import rolling_out
from cloud_tier.settings import CloudSettings
from cloud_tier.telemetry.service import keeping_telemetry
from cloud_tier.updates import published
from runtime.core.escalation import EscalationPolicy
from runtime.exchange.answering import answer_until
from runtime.exchange.control_relay import ControlRelay
from runtime.exchange.course import Identity
from runtime.exchange.flow import RequestFlow
from runtime.exchange.serving import Served, Serving
from runtime.exchange.station import bus_of, station, switch_of
from runtime.messages import Tier


async def serve(settings: CloudSettings, stop: asyncio.Event) -> None:
    """Runs until ``stop`` is set, then drains.

    Raises:
        ArtifactError: the model cannot be used.
        PolicyError: the policy cannot be used, or is for another model.
        StartError: the port, the state folder, the repository, the key of rollouts or the database
            of telemetry cannot be used.
    """
    identity = Identity(Tier.CLOUD, settings.cloud, settings.region)
    async with (
        station(
            identity, settings.model, settings.state, policy=settings.escalation.policy
        ) as parts,
        published(settings.updates, Path(settings.state.folder), parts.clock) as add_updates,
    ):
        bus = bus_of(parts, settings.broker)
        switch = switch_of(parts, settings.state)
        switch.listen(bus)
        ControlRelay(switch, bus, region=settings.region, metrics=parts.metrics)
        flow = RequestFlow(
            identity,
            model=parts.model,
            policy=EscalationPolicy(
                accept_at=parts.model.accept_at, margin_ms=settings.request.margin_ms
            ),
            clock=parts.clock,
            metrics=parts.metrics,
            log=parts.log,
            gearbox=parts.gearbox,
            reviewer=parts.reviewer,
            switch=switch,
        )
        async with (
            rolling_out(settings, parts, bus) as rollouts,
            keeping_telemetry(settings, parts.clock.wall_s) as telemetry,
        ):
            adders = [
                add_updates,
                rollouts.add_routes if rollouts else None,
                telemetry.add_routes if telemetry else None,
            ]

            def add_routes(app: web.Application) -> None:
                for add in adders:
                    if add is not None:
                        add(app)

            await answer_until(
                stop,
                parts,
                bus,
                Serving(Served(parts.model, flow), switch),
                request=settings.request,
                http=settings.http,
                add_routes=add_routes,
                on_update=rollouts.hear if rollouts else None,
            )
