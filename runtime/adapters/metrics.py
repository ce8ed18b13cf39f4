"""Prometheus metrics of one tier, and the handler that serves them.

Names are ``tierwise_<tier>_<noun>_<unit>``; a gateway of gateways has those of a gateway. Labels
only take values of closed sets (outcomes, reasons, tiers, models that are served), so that nobody
outside can grow the number of series. Every process has its own registry; nothing is global.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from functools import cached_property
from math import nan
from typing import Any, Literal, TypeVar

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.openmetrics import exposition as openmetrics

from runtime.adapters.outbox_metrics import OutboxMetrics
from runtime.adapters.policy_metrics import PolicyMetrics
from runtime.adapters.relay_metrics import RelayMetrics
from runtime.adapters.review_metrics import ReviewMetrics
from runtime.adapters.rollout_metrics import RolloutMetrics
from runtime.adapters.state_metrics import StateMetrics
from runtime.adapters.tracing_metrics import TracingMetrics
from runtime.adapters.transfer_metrics import TransferMetrics
from runtime.adapters.update_metrics import UpdateMetrics
from runtime.core.providers import EngineReport
from runtime.messages import Guarantee, StopMode, Tier

_Metric = TypeVar("_Metric", Counter, Gauge, Histogram)
IgnoredKind = Literal["late_reply", "duplicate", "undecodable", "unknown_topic", "stale_state"]
AuditResult = Literal["agreed", "disagreed", "failed", "skipped"]
ControlResult = Literal["applied", "stale", "malformed", "unheard"]

_LATENCY_BUCKETS_S = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 10.0,
)  # fmt: skip
_INFERENCE_BUCKETS_S = (
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0,
)  # fmt: skip


class TierMetrics(PolicyMetrics):
    """What one tier counts and measures."""

    def __init__(self, tier: Tier | str) -> None:
        self._registry = CollectorRegistry()
        self._name = name = f"tierwise_{Tier(tier).kind.value}"
        registry = self._registry
        super().__init__(name, registry)
        Gauge(f"{name}_tier_info", "Which tier this is", ("tier",), registry=registry).labels(
            Tier(tier).value
        ).set(1)
        self._received = Counter(
            f"{name}_received_requests_total",
            "Requests that arrived here, copies among them, audits not",
            registry=registry,
        )
        self._sent = Counter(
            f"{name}_sent_requests_total",
            "Requests passed up, hedges among them, audits not",
            registry=registry,
        )
        self._unsent_replies = Counter(
            f"{name}_unsent_replies_total",
            "Replies that could not be sent; the asker's own timer ends its wait",
            registry=registry,
        )
        self._answers = Counter(
            f"{name}_answers_total",
            "Requests that ended here, each once",
            ("outcome", "reason", "answered_by"),
            registry=registry,
        )
        self._guarantees = Counter(
            f"{name}_guarantees_total",
            "Answers by what stands behind them",
            ("guarantee",),
            registry=registry,
        )
        # Known from the start, so that the first one is seen to grow.
        self._guarantees.labels(Guarantee.SUSPENDED.value)
        self._routes = Counter(
            f"{name}_routes_total",
            "Requests passed up, by the tiers that were to answer",
            ("route",),
            registry=registry,
        )
        self._unknown_gears = Counter(
            f"{name}_unknown_gears_total",
            "Requests that follow a gear which this tier does not have",
            registry=registry,
        )
        self._latency = Histogram(
            f"{name}_latency_seconds",
            "From taking a request in to its answer",
            ("outcome",),
            buckets=_LATENCY_BUCKETS_S,
            registry=registry,
        )
        self._inference = Histogram(
            f"{name}_inference_seconds",
            "One run of the model of this tier",
            ("model",),
            buckets=_INFERENCE_BUCKETS_S,
            registry=registry,
        )
        self._escalations = Counter(
            f"{name}_escalations_total",
            "Requests passed to the tier above, by what came of it",
            ("result",),
            registry=registry,
        )
        self._hedges = Counter(
            f"{name}_hedges_total", "Second gateways asked beside a slow one", registry=registry
        )
        self._uplink_bytes = Counter(
            f"{name}_uplink_bytes_total", "MQTT bytes sent to the tier above", registry=registry
        )
        self._refusals = Counter(
            f"{name}_refused_requests_total",
            "Requests that ended without an answer of this tier, by error code",
            ("code",),
            registry=registry,
        )
        self._ignored = Counter(
            f"{name}_ignored_messages_total",
            "Messages that were received and not acted on",
            ("kind",),
            registry=registry,
        )
        self._log_drops = Counter(
            f"{name}_decision_log_dropped_records_total",
            "Decisions that the log could not take",
            registry=registry,
        )
        self._late = Counter(
            f"{name}_late_answers_total",
            "Answers that were ready only after their deadline",
            registry=registry,
        )
        self._pending = Gauge(f"{name}_pending_requests", "Requests in progress", registry=registry)
        self._link_chance = Gauge(
            f"{name}_link_chance_ratio",
            "Estimated chance of an answer from above in time",
            registry=registry,
        )
        self._connected = Gauge(
            f"{name}_broker_connected_ratio", "1 while the broker is connected", registry=registry
        )
        self._audits = Counter(
            f"{name}_audits_total",
            "Audits of answers that stood here, by whether the top tier says the same",
            ("result",),
            registry=registry,
        )
        self._served_audits = Counter(
            f"{name}_served_audits_total",
            "Audits of tiers below, by outcome or error code; no other count has them",
            ("result",),
            registry=registry,
        )
        self._audit_loss = Gauge(
            f"{name}_audit_loss_ratio",
            "Share of the answers that stood here which the top tier disagrees with, estimated",
            registry=registry,
        )
        self._audit_loss.set(nan)
        self._stopped = Gauge(
            f"{name}_stopped_ratio",
            "1 while an operator has stopped this process, or lets nothing climb from it",
            ("mode",),
            registry=registry,
        )
        self._controls = Counter(
            f"{name}_controls_total",
            "Control states by what became of them, and requests that could not wait for one",
            ("result",),
            registry=registry,
        )
        self.set_stopped(None)
        self._breaker_changes = Counter(
            f"{name}_breaker_changes_total",
            "Changes of a breaker's state, of gateways above and of members of the model",
            ("of", "state"),
            registry=registry,
        )
        self._breakers = Gauge(
            f"{name}_breakers",
            "Breakers that are not closed now",
            ("of", "state"),
            registry=registry,
        )
        self._process_ends = Counter(
            f"{name}_model_process_ends_total",
            "Processes of models that ended and were started again",
            ("member", "cause"),
            registry=registry,
        )
        self._engine_info = Gauge(
            f"{name}_engine_info",
            "What runs a member of the model, and on what",
            ("member", "engine", "runs_on"),
            registry=registry,
        )
        self._engine_fallbacks = Counter(
            f"{name}_engine_fallbacks_total",
            "Accelerators that were given up for the CPU, at the start or later",
            ("member",),
            registry=registry,
        )
        self._engines: dict[str, tuple[str, str, str]] = {}
        self._load.set(nan)
        self._score_p.set(nan)
        self._log_drops_seen = 0
        self._children: dict[tuple[object, tuple[str, ...]], Any] = {}
        self.outbox = OutboxMetrics(name, registry)
        self.relays = RelayMetrics(name, registry)
        self.state = StateMetrics(name, registry)

    @cached_property
    def updates(self) -> UpdateMetrics:
        """Those of new models; only who takes any has them."""
        return UpdateMetrics(self._name, self._registry)

    @cached_property
    def transfers(self) -> TransferMetrics:
        """Those of model files that are handed out; only who does has them."""
        return TransferMetrics(self._name, self._registry)

    @cached_property
    def rollouts(self) -> RolloutMetrics:
        """Those of rollouts; only who drives them has them."""
        return RolloutMetrics(self._name, self._registry)

    @cached_property
    def reviews(self) -> ReviewMetrics:
        """Those of answers that wait for people; only who keeps them has them."""
        return ReviewMetrics(self._name, self._registry)

    @cached_property
    def tracing(self) -> TracingMetrics:
        """Those of spans; only who traces has them."""
        return TracingMetrics(self._name, self._registry)

    def observe_answer(
        self, outcome: str, reason: str, answered_by: str, latency_ms: float, trace_id: str = ""
    ) -> None:
        """Counts a request that ended; ``answered_by`` is a tier, or empty when nobody answered.

        With the id of a recorded trace, its latency becomes an exemplar.
        """
        self._child(self._answers, outcome, reason, answered_by or "none").inc()
        exemplar = {"trace_id": trace_id} if trace_id else None
        self._child(self._latency, outcome).observe(latency_ms / 1000, exemplar)

    def _child(self, metric: _Metric, *labels: str) -> _Metric:
        """The series of these labels; remembered, as finding it costs more than counting."""
        key = metric, labels
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        found: _Metric = child
        return found

    def count_received(self) -> None:
        """Counts a request that arrived, whatever becomes of it."""
        self._received.inc()

    def count_sent(self) -> None:
        """Counts a request that was put on its way up."""
        self._sent.inc()

    def count_unsent_reply(self) -> None:
        """Counts a reply that could not be sent."""
        self._unsent_replies.inc()

    def count_guarantee(self, guarantee: Guarantee) -> None:
        """Counts an answer by its guarantee."""
        self._child(self._guarantees, guarantee.value).inc()

    def count_route(self, route: Sequence[Tier]) -> None:
        """Counts a request that is passed up; without named tiers, to the next one above."""
        self._child(self._routes, ",".join(route) or "next").inc()

    def count_unknown_gear(self) -> None:
        """Counts a request that came with the gear of another policy."""
        self._unknown_gears.inc()

    def observe_inference(self, model: str, service_us: float) -> None:
        """Measures one run of the model."""
        self._child(self._inference, model).observe(service_us / 1_000_000)

    def count_escalation(self, result: str) -> None:
        """Counts an escalation by what came of it."""
        self._child(self._escalations, result).inc()

    def count_hedge(self) -> None:
        """Counts a second gateway that was asked beside a slow one."""
        self._hedges.inc()

    def count_audit(self, result: AuditResult) -> None:
        """Counts an audit of ours that ended, or that found no place."""
        self._audits.labels(result).inc()

    def count_served_audit(self, result: str) -> None:
        """Counts an audit of a tier below that ended here."""
        self._served_audits.labels(result).inc()

    def set_audit_loss(self, loss: float | None) -> None:
        """Says how often the top tier is thought to disagree; not a number while unknown."""
        self._audit_loss.set(nan if loss is None else loss)

    def count_breaker_change(self, of: str, state: str) -> None:
        """Counts a breaker's new state."""
        self._breaker_changes.labels(of, state).inc()

    def set_breakers(self, of: str, state: str, num: int) -> None:
        """Says how many breakers are in a state."""
        self._breakers.labels(of, state).set(num)

    def count_process_end(self, member: str, cause: str) -> None:
        """Counts a process of a model that ended; called from any thread."""
        self._process_ends.labels(member, cause).inc()

    def set_engine(self, member: str, report: EngineReport) -> None:
        """Says what runs a member of the model; called from any thread."""
        labels = (member, report.engine, ",".join(report.taken))
        before = self._engines.get(member)
        if before is not None:
            self._engine_info.remove(*before)
        self._engines[member] = labels
        self._engine_info.labels(*labels).set(1)

    def count_engine_fallback(self, member: str, report: EngineReport) -> None:
        """Counts an accelerator that was given up for the CPU; called from any thread."""
        self._engine_fallbacks.labels(member).inc()
        self.set_engine(member, report)

    def add_uplink_bytes(self, num_bytes: int) -> None:
        """Adds bytes that were sent to the tier above."""
        self._uplink_bytes.inc(num_bytes)

    def count_refusal(self, code: str) -> None:
        """Counts a request that was refused, cancelled or could not be replied to."""
        self._refusals.labels(code).inc()

    def count_late(self) -> None:
        """Counts an answer that was ready only after its deadline."""
        self._late.inc()

    def count_ignored(self, kind: IgnoredKind) -> None:
        """Counts a message that was received and not acted on."""
        self._ignored.labels(kind).inc()

    def count_decision_log_drops(self, total: int) -> None:
        """Takes over the total that the decision log counted."""
        self._log_drops.inc(max(0, total - self._log_drops_seen))
        self._log_drops_seen = max(self._log_drops_seen, total)

    def set_stopped(self, stopped: StopMode | None) -> None:
        """Says what an operator has stopped here."""
        for mode in StopMode:
            self._stopped.labels(mode.value).set(1 if mode is stopped else 0)

    def count_control(self, result: ControlResult) -> None:
        """Counts a control state, or a request that went ahead before all were heard."""
        self._controls.labels(result).inc()

    def set_pending(self, num_pending: int) -> None:
        """Says how many requests are in progress."""
        self._pending.set(num_pending)

    def set_link_chance(self, chance: float) -> None:
        """Says how likely an answer from above in time is thought to be."""
        self._link_chance.set(chance)

    def set_connected(self, is_connected: bool) -> None:  # noqa: FBT001 - a setter of a flag
        """Says whether the broker is connected."""
        self._connected.set(1 if is_connected else 0)

    def total(self, name: str, **labels: str) -> float:
        """The sum of all series of a metric, named without its prefix, that have these labels."""
        full = f"{self._name}_{name}"
        return sum(
            sample.value
            for family in self._registry.restricted_registry([full]).collect()
            for sample in family.samples
            if sample.name == full and labels.items() <= sample.labels.items()
        )

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The metrics and their content type: OpenMetrics for who accepts it, else plain text.

        Only OpenMetrics has exemplars.
        """
        if _accepts_openmetrics(accept):
            body: bytes = openmetrics.generate_latest(self._registry)  # type: ignore[no-untyped-call]
            return body, openmetrics.CONTENT_TYPE_LATEST
        return generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4


def _accepts_openmetrics(accept: str) -> bool:
    for media_range in accept.lower().split(","):
        kind, *parameters = (part.strip() for part in media_range.split(";"))
        if kind == "application/openmetrics-text":
            return not any(re.fullmatch(r"q=0(?:\.0*)?", one) for one in parameters)
    return False


def metrics_handler(
    metrics: TierMetrics,
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """An aiohttp handler for ``GET /metrics``."""

    async def handle(request: web.Request) -> web.StreamResponse:
        body, content_type = metrics.render(request.headers.get("Accept", ""))
        # As a header: aiohttp refuses a charset inside its content_type argument.
        return web.Response(body=body, headers={"Content-Type": content_type})

    return handle
