"""What every tier's composition root needs: settings turned into the parts of the exchange."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from runtime.adapters.clock import SystemClock
from runtime.adapters.control_latch import ControlLatch
from runtime.adapters.decision_log import SqliteDecisionLog
from runtime.adapters.metrics import TierMetrics
from runtime.adapters.paho_bus import BrokerAddress, PahoBus, TlsFiles
from runtime.adapters.rollup_reader import Place
from runtime.common_settings import (
    BrokerSettings,
    EscalationSettings,
    ModelSettings,
    RequestSettings,
    StateSettings,
)
from runtime.core.audit import AuditSettings
from runtime.core.escalation import EscalationPolicy
from runtime.core.gearbox import Gearbox
from runtime.core.link import LinkSettings
from runtime.exchange.alert_signs import AlertSigns, tell_signs
from runtime.exchange.auditing import Auditor
from runtime.exchange.course import Identity
from runtime.exchange.forwarding import Storage, open_storage
from runtime.exchange.loading import load_gearbox, load_model
from runtime.exchange.pilot import Pilot
from runtime.exchange.presence import next_epoch, will_of
from runtime.exchange.reporting import ReportingLog, Rollups, rolling_up
from runtime.exchange.reviewing import Reviewer
from runtime.exchange.reviews import Reviews
from runtime.exchange.sampling import Sampler
from runtime.exchange.span_shipping import tracing
from runtime.exchange.stopping import StopSwitch
from runtime.exchange.tracing import Tracer
from runtime.exchange.uplink import Uplink, UplinkSettings
from runtime.local_model import LocalModel
from runtime.manifest import ModelManifest
from runtime.messages import Birth, ServedModel, Tier
from runtime.ports import Clock, DecisionLog
from runtime.review_settings import ReviewSettings
from runtime.tracing_settings import TracingSettings
from runtime.version import software

Load = Callable[[], Awaitable[tuple[LocalModel, Gearbox]]]


@dataclass(frozen=True, slots=True)
class Station:
    """The parts that are there before a tier can say how it answers."""

    identity: Identity
    clock: Clock
    metrics: TierMetrics
    log: DecisionLog
    model: LocalModel
    gearbox: Gearbox
    epoch: int
    storage: Storage
    rollups: Rollups
    reviews: Reviews | None = None
    reviewer: Reviewer | None = None
    tracer: Tracer | None = None


@asynccontextmanager
async def station(
    identity: Identity,
    model_settings: ModelSettings,
    state: StateSettings,
    *,
    policy: str = "",
    clock: Clock | None = None,
    metrics: TierMetrics | None = None,
    load: Load | None = None,
    traces: TracingSettings | None = None,
    review: ReviewSettings | None = None,
) -> AsyncIterator[Station]:
    """Loads model and policy, opens the decision log, counts the start; closes them again.

    ``policy`` is the policy file of the settings. Who needs clock and metrics before the start
    brings its own. Who has models of its own to choose from loads one by ``load``.

    Raises:
        ArtifactError: the model cannot be used.
        PolicyError: the policy cannot be used, or is for another model.
        StartError: the state folder cannot be used, a process of the model ended at its start, or
            traces are wanted and their extra is not installed.
    """
    clock = clock or SystemClock()
    metrics = metrics or TierMetrics(identity.tier)
    async with AsyncExitStack() as stack:
        model: LocalModel
        if load is None:
            model = await load_model(model_settings, identity.tier, clock, metrics)
            stack.callback(model.close)
            gearbox = await load_gearbox(policy, model_settings, identity.tier, model.manifest)
        else:
            model, gearbox = await load()
            stack.callback(model.close)
        folder = Path(state.folder)
        metrics.state.measure(folder)
        file = stack.enter_context(
            SqliteDecisionLog(folder, max_bytes=state.decision_log_max_bytes)
        )
        log: DecisionLog = file
        storage = stack.enter_context(open_storage(folder, state, clock, metrics))
        epoch = next_epoch(folder, clock)
        place = Place(identity.region, identity.site, identity.tier.value)
        rollups = Rollups(
            file.path,
            storage.outbox,
            place,
            clock,
            settle=file.flush,
            max_samples=state.rollup_samples,
        )
        if identity.tier is not Tier.CLOUD:
            # Nobody is above the cloud tier to report to.
            log = ReportingLog(log, storage.outbox, clock)
            await stack.enter_async_context(rolling_up(rollups, state.rollup_interval_s))
            telling = asyncio.create_task(
                tell_signs(AlertSigns(metrics, clock), storage.outbox, clock), name="alerts.tell"
            )
            stack.callback(telling.cancel)
        reviews = Reviews(
            identity,
            state,
            storage,
            clock=clock,
            metrics=metrics,
            exits=stack,
            settings=review,
        )
        reviewer = reviews.reviewer(gearbox, model.manifest)
        tracer = await stack.enter_async_context(
            tracing(traces or TracingSettings(), identity, folder, clock=clock, metrics=metrics)
        )
        yield Station(
            identity,
            clock,
            metrics,
            log,
            model,
            gearbox,
            epoch,
            storage,
            rollups,
            reviews,
            reviewer,
            tracer,
        )


def bus_of(parts: Station, broker: BrokerSettings, *, suffix: str = "") -> PahoBus:
    """A connection of this process to a broker; its will says that the process is gone.

    A second connection to what may be the same broker takes a ``suffix`` and has no will.
    """
    return PahoBus(
        address=broker_address(broker),
        client_id=f"{parts.identity.site}{suffix}",
        will=None if suffix else will_of(parts.identity, parts.epoch),
        keep_alive_s=broker.keep_alive_s,
        clock=parts.clock,
    )


def switch_of(parts: Station, state: StateSettings) -> StopSwitch:
    """What operators have stopped, as it was latched."""
    return StopSwitch(
        parts.identity,
        parts.model.manifest,
        latch=ControlLatch(Path(state.folder), parts.identity.region),
        clock=parts.clock,
        metrics=parts.metrics,
    )


def birth_of(
    parts: Station,
    *,
    http_base: str,
    capacity: int = 0,
    queue_len: int = 0,
    serves: ModelManifest | None = None,
) -> Birth:
    """What a process says of itself when it is online; ``serves`` is another model by now."""
    manifest = serves or parts.model.manifest
    return Birth(
        tier=parts.identity.tier,
        site=parts.identity.site,
        region=parts.identity.region,
        epoch=parts.epoch,
        capacity=capacity,
        queue_len=queue_len,
        models=(ServedModel(manifest.name, manifest.version),),
        http_base=http_base,
        software=software(),
    )


def broker_address(settings: BrokerSettings) -> BrokerAddress:
    """Where and as whom to connect."""
    return BrokerAddress(
        host=settings.host,
        port=settings.port,
        username=settings.username,
        password=settings.password,
        tls=_tls(settings),
    )


def _tls(settings: BrokerSettings) -> TlsFiles | None:
    if not settings.tls_ca_file:
        return None
    return TlsFiles(
        ca=Path(settings.tls_ca_file),
        certificate=Path(settings.tls_cert_file) if settings.tls_cert_file else None,
        key=Path(settings.tls_key_file) if settings.tls_key_file else None,
    )


def escalation_policy(
    escalation: EscalationSettings, request: RequestSettings, model: LocalModel
) -> EscalationPolicy:
    """The numbers of this tier's decision."""
    return EscalationPolicy(
        accept_at=model.accept_at,
        min_chance=escalation.min_chance,
        margin_ms=request.margin_ms,
    )


def uplink_settings(
    escalation: EscalationSettings,
    *,
    tier_above: Tier,
    region: str,
    asker: str,
    pinned: str,
    max_pending: int,
) -> UplinkSettings:
    """How to ask the tier above."""
    return UplinkSettings(
        tier_above=tier_above,
        region=region,
        asker=asker,
        pinned=pinned,
        max_pending=max_pending,
        reserve_ms=escalation.reserve_ms,
        hedge_share=escalation.hedge_share,
        link=LinkSettings(
            window=escalation.link_window,
            half_life_s=escalation.link_half_life_s,
            prior_chance=escalation.prior_chance,
            probe_interval_s=escalation.probe_interval_s,
        ),
    )


def pilot_of(parts: Station, escalation: EscalationSettings) -> Pilot | None:
    """Who lets traffic choose among gears and their safer steps; None where that is off."""
    if not escalation.live_control:
        return None
    return Pilot(
        parts.identity.tier,
        parts.gearbox.policy,
        audit_rate=escalation.audit_rate,
        clock=parts.clock,
        metrics=parts.metrics,
    )


def auditor_of(
    parts: Station,
    escalation: EscalationSettings,
    uplink: Uplink,
    pilot: Pilot | None,
    sampler: Sampler | None = None,
) -> Auditor:
    """Who audits the answers that stand here; to be closed before the uplink is."""
    return Auditor(
        parts.identity,
        AuditSettings(
            rate=escalation.audit_rate,
            budget_ms=escalation.audit_budget_ms,
            max_in_progress=escalation.max_audits,
        ),
        gearbox=parts.gearbox,
        min_chance=escalation.min_chance,
        uplink=uplink,
        clock=parts.clock,
        metrics=parts.metrics,
        log=parts.log,
        pilot=pilot,
        sampler=sampler,
    )
