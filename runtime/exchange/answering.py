"""A tier that answers the tier below: its door, its presence and its HTTP port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from runtime.adapters.clock import SystemClock
from runtime.adapters.decision_log import SqliteDecisionLog
from runtime.adapters.http_server import operations_app, serving
from runtime.adapters.metrics import TierMetrics
from runtime.adapters.paho_bus import PahoBus
from runtime.common_settings import (
    BrokerSettings,
    HttpSettings,
    ModelSettings,
    RequestSettings,
    StateSettings,
)
from runtime.exchange.flow import Identity, RequestFlow
from runtime.exchange.ingress import Ingress, IngressLimits
from runtime.exchange.presence import Presence, next_epoch, will_of
from runtime.exchange.station import broker_address, load_model
from runtime.local_model import LocalModel
from runtime.messages import Birth, ServedModel
from runtime.ports import Clock, DecisionLog, MessageBus
from runtime.version import software

DRAIN_S = 5.0
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Station:
    """The parts that are there before a tier can say how it answers."""

    identity: Identity
    clock: Clock
    metrics: TierMetrics
    log: DecisionLog
    model: LocalModel
    epoch: int


@asynccontextmanager
async def station(
    identity: Identity, model_settings: ModelSettings, state: StateSettings
) -> AsyncIterator[Station]:
    """Loads the model, opens the decision log, counts the start; closes them again.

    Raises:
        ArtifactError: the model cannot be used.
        StartError: the state folder cannot be used.
    """
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        model = await load_model(model_settings, identity.tier, clock)
        stack.callback(model.close)
        folder = Path(state.folder)
        log = stack.enter_context(SqliteDecisionLog(folder, max_bytes=state.decision_log_max_bytes))
        yield Station(
            identity, clock, TierMetrics(identity.tier), log, model, next_epoch(folder, clock)
        )


def bus_of(station: Station, broker: BrokerSettings, *, suffix: str = "") -> PahoBus:
    """A connection of this process to a broker; its will says that the process is gone.

    A second connection to what may be the same broker takes a ``suffix`` and has no will.
    """
    return PahoBus(
        address=broker_address(broker),
        client_id=f"{station.identity.site}{suffix}",
        will=None if suffix else will_of(station.identity, station.epoch),
        keep_alive_s=broker.keep_alive_s,
        clock=station.clock,
    )


async def answer_until(
    stop: asyncio.Event,
    parts: Station,
    bus: MessageBus,
    flow: RequestFlow,
    *,
    request: RequestSettings,
    http: HttpSettings,
    dedupe_window: int = 4096,
) -> None:
    """Serves until ``stop`` is set, then drains, says goodbye and closes the bus.

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
    ingress = Ingress(bus, parts.clock, parts.metrics, flow, limits)
    app = operations_app(parts.metrics, lambda: bus.is_connected)
    async with AsyncExitStack() as stack:
        base = await stack.enter_async_context(serving(app, http.host, http.port))
        stack.push_async_callback(bus.close)
        bus.on_connection(parts.metrics.set_connected)
        presence = Presence(
            bus, parts.identity, parts.epoch, lambda: _birth(parts, ingress, limits, base)
        )
        ingress.open()
        # Whatever ends this: the bus closes without the will, and a birth would stay forever.
        stack.callback(presence.offline)
        refresh = asyncio.create_task(presence.refresh(), name="presence.refresh")
        stack.callback(refresh.cancel)
        await bus.start()
        manifest = parts.model.manifest
        _log.info("tier.started", model=manifest.name, version=manifest.version, url=base)
        await stop.wait()
        refresh.cancel()
        presence.draining()
        await ingress.drain(DRAIN_S)


def _birth(parts: Station, ingress: Ingress, limits: IngressLimits, base: str) -> Birth:
    manifest = parts.model.manifest
    return Birth(
        tier=parts.identity.tier,
        site=parts.identity.site,
        region=parts.identity.region,
        epoch=parts.epoch,
        capacity=limits.max_pending,
        queue_len=ingress.queue_len,
        models=(ServedModel(manifest.name, manifest.version),),
        http_base=base,
        software=software(),
    )
