"""The cloud tier as a process: the ensemble behind its door on the broker."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from pathlib import Path

from cloud_tier.alerts.http_api import AlertApi
from cloud_tier.alerts.service import alerting
from cloud_tier.alerts.watching import watch_of
from cloud_tier.operators.absent import refusals
from cloud_tier.operators.dashboard import dashboard
from cloud_tier.operators.listener import operators_listening
from cloud_tier.reviews.service import KeptReviews, keeping_reviews
from cloud_tier.rollouts.service import rolling_out
from cloud_tier.settings import CloudSettings
from cloud_tier.telemetry.intake import KINDS
from cloud_tier.telemetry.service import Telemetry, keeping_telemetry
from cloud_tier.updates import published
from runtime.core.escalation import EscalationPolicy
from runtime.exchange.answering import answer_until
from runtime.exchange.control_relay import ControlRelay
from runtime.exchange.course import Identity
from runtime.exchange.flow import RequestFlow
from runtime.exchange.receiving import Applier
from runtime.exchange.reporting import telling_of_itself
from runtime.exchange.serving import Served, Serving
from runtime.exchange.station import Station, bus_of, station, switch_of
from runtime.messages import ItemKind, Tier
from runtime.ports import OutboxItem


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
            identity,
            settings.model,
            settings.state,
            policy=settings.escalation.policy,
            traces=settings.tracing,
        ) as parts,
        published(
            settings.updates, Path(settings.state.folder), parts.clock, parts.metrics
        ) as add_updates,
    ):
        bus = bus_of(parts, settings.broker)
        switch = switch_of(parts, settings.state)
        switch.listen(bus)
        relay = ControlRelay(
            switch, bus, region=settings.region, metrics=parts.metrics, clock=parts.clock
        )
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
            tracer=parts.tracer,
        )
        async with AsyncExitStack() as stack:
            ending = asyncio.create_task(relay.end_overrides(), name="overrides.end")
            stack.callback(ending.cancel)
            rollouts = await stack.enter_async_context(rolling_out(settings, parts, bus))
            telemetry = await stack.enter_async_context(
                keeping_telemetry(settings, parts.clock.wall_s)
            )
            reviews = await stack.enter_async_context(
                keeping_reviews(settings.review, parts, telemetry)
            )
            watch = watch_of(settings.alerts, telemetry, reviews)
            alerts = await stack.enter_async_context(
                alerting(
                    settings.alerts,
                    Path(settings.state.folder),
                    parts,
                    bus,
                    rollouts=rollouts,
                    watch=watch,
                )
            )
            adders = await stack.enter_async_context(
                dashboard(
                    settings,
                    parts,
                    switch=switch,
                    relay=relay,
                    rollouts=rollouts,
                    telemetry=telemetry,
                )
            )
            adders += [part.add_routes for part in (rollouts, telemetry, reviews) if part]
            adders.append(AlertApi(alerts).add_routes)
            adders += refusals(has_rollouts=bool(rollouts), has_telemetry=bool(telemetry))
            appliers: dict[ItemKind, Applier] = {ItemKind.ALERT: alerts.hear}
            if rollouts:
                appliers[ItemKind.UPDATE] = rollouts.hear
            if telemetry and reviews:
                appliers |= dict.fromkeys(KINDS, telemetry.apply)
                appliers[ItemKind.REVIEW] = reviews.apply
                await stack.enter_async_context(_telling(parts, telemetry, reviews, settings))
            await stack.enter_async_context(
                operators_listening(
                    Path(settings.state.folder), settings.operators.port, parts.clock, adders
                )
            )
            await answer_until(
                stop,
                parts,
                bus,
                Serving(Served(parts.model, flow), switch),
                request=settings.request,
                http=settings.http,
                add_routes=add_updates,
                appliers=appliers,
            )


def _telling(
    parts: Station, telemetry: Telemetry, reviews: KeptReviews, settings: CloudSettings
) -> AbstractAsyncContextManager[None]:
    """Has this tier's own decisions and reviews kept beside those of all others."""
    origin = f"{settings.region}/{settings.cloud}"
    if parts.reviews is not None:
        parts.reviews.is_told = True

    async def keep(item: OutboxItem) -> None:
        apply = reviews.apply if item.kind is ItemKind.REVIEW else telemetry.apply
        await apply(replace(item, origin=origin))

    return telling_of_itself(
        parts.rollups, parts.storage.outbox, keep, settings.state.rollup_interval_s
    )
