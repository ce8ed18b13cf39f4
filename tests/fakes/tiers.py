"""Tiers without processes: real flows, doors and uplinks, models made of numbers."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import numpy as np

from runtime.adapters.breaker_signs import BreakerSigns
from runtime.adapters.clock import SystemClock
from runtime.adapters.control_latch import ControlLatch
from runtime.adapters.memory_bus import MemoryBroker, MemoryBus
from runtime.adapters.memory_link import LinkFaults
from runtime.adapters.metrics import TierMetrics
from runtime.core.audit import AuditSettings
from runtime.core.escalation import EscalationPolicy
from runtime.core.gearbox import Gearbox
from runtime.core.link import LinkSettings
from runtime.errors import BackendError
from runtime.exchange.auditing import Auditor
from runtime.exchange.control_relay import ControlRelay
from runtime.exchange.course import Identity
from runtime.exchange.flow import RequestFlow
from runtime.exchange.ingress import Ingress, IngressLimits
from runtime.exchange.pilot import Pilot
from runtime.exchange.presence import Presence
from runtime.exchange.reviewing import Reviewer
from runtime.exchange.serving import Served, Serving
from runtime.exchange.stopping import StopSwitch
from runtime.exchange.tracing import Tracer
from runtime.exchange.uplink import Uplink, UplinkSettings
from runtime.local_model import LoadedMember, LocalModel
from runtime.manifest import Member, ModelFile, ModelManifest
from runtime.messages import Answer, Birth, InferenceRequest, Tensors, TensorSpec, Tier
from runtime.ports import AuditRecord, Clock, DecisionRecord, ReviewQueue, SpanRecorder

INPUTS = (TensorSpec("x", "FP32", (-1, 2)),)
OUTPUTS = (TensorSpec("logits", "FP32", (-1, 3)),)
LABELS = ("cat", "dog", "owl")
SURE = (9.0, 0.0, 0.0)
UNSURE = (0.3, 0.2, 0.1)
LIMITS = IngressLimits(
    default_budget_ms=1000,
    max_budget_ms=60_000,
    margin_ms=2,
    max_pending=8,
    max_body_bytes=10_000,
    dedupe_window=64,
)
LINK = LinkSettings(half_life_s=1.0, prior_chance=0.9, probe_interval_s=0.2)


def manifest(tier: Tier, num_members: int = 1, accept_at: float = 0.8) -> ModelManifest:
    """A model of three classes."""
    members = tuple(Member(f"member-{n}", f"member-{n}.onnx") for n in range(num_members))
    return ModelManifest(
        name="animals",
        version=f"{tier.value}-1",
        tier=tier,
        files={member.file: ModelFile("0" * 64, 1) for member in members if member.file},
        members=members,
        inputs=INPUTS,
        outputs=OUTPUTS,
        labels=LABELS,
        accept_at=accept_at,
    )


@dataclass
class NumbersBackend:
    """Gives the same scores for every example; may be slow or broken."""

    scores: tuple[float, ...] = SURE
    delay_s: float = 0.0
    is_broken: bool = False
    num_runs: int = 0
    inputs: tuple[TensorSpec, ...] = INPUTS
    outputs: tuple[TensorSpec, ...] = OUTPUTS
    release: threading.Event | None = None
    # Beside the scores, by name; and what has been asked.
    more: Mapping[str, Any] = field(default_factory=dict)
    asked: list[Tensors] = field(default_factory=list)

    def run(self, inputs: Tensors) -> Tensors:
        self.num_runs += 1
        self.asked.append(inputs)
        if self.release is not None:
            self.release.wait(10)
        if self.delay_s:
            # A model that computes for a while; this runs in a thread of the model.
            time.sleep(self.delay_s)
        if self.is_broken:
            raise BackendError("the model is broken")
        batch = len(next(iter(inputs.values())))
        rows = {"logits": np.asarray(self.scores, np.float32), **self.more}
        return {name: np.tile(np.asarray(row), (batch, 1)) for name, row in rows.items()}

    def close(self) -> None:
        """Nothing to free."""


@dataclass
class ListLog:
    """A decision log in memory."""

    records: list[DecisionRecord] = field(default_factory=list)
    audits: list[AuditRecord] = field(default_factory=list)
    num_dropped: int = 0

    def append(self, record: DecisionRecord | AuditRecord) -> None:
        if isinstance(record, AuditRecord):
            self.audits.append(record)
        else:
            self.records.append(record)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing to flush."""


class FakeTier:
    """One tier over the in-memory bus; the model runs in threads unless ``inline``."""

    def __init__(
        self,
        broker: MemoryBroker,
        tier: Tier,
        *backends: NumbersBackend,
        site: str = "",
        above: Tier | None = None,
        link: LinkFaults | None = None,
        limits: IngressLimits = LIMITS,
        margin_ms: float = 2.0,
        inline: bool = False,
        gearbox: Gearbox | None = None,
        audits: AuditSettings | None = None,
        clock: Clock | None = None,
        hedge_share: float = 0.02,
        chooser: random.Random | None = None,
        reviews: ReviewQueue | None = None,
        live: bool = False,
        state: Path | None = None,
        described_as: Mapping[str, Any] | None = None,
        recorder: SpanRecorder | None = None,
        share: float = 1.0,
    ) -> None:
        site = site or f"{tier.value}-1"
        self.identity = Identity(tier, site, _region(tier))
        self.clock: Clock = clock or SystemClock()
        self.metrics = TierMetrics(tier)
        self.log = ListLog()
        self.tracer: Tracer | None = None
        if recorder is not None:
            self.tracer = Tracer(
                tier,
                site,
                recorder,
                clock=self.clock,
                metrics=self.metrics.tracing,
                share=share,
            )
        self.backends = backends or (NumbersBackend(),)
        described = msgspec.structs.replace(
            manifest(tier, len(self.backends)), **(described_as or {})
        )
        typical_ms = 0.1 if inline else 5.0
        members = [
            LoadedMember(member.name, member.weight, backend, typical_ms)
            for member, backend in zip(described.members, self.backends, strict=True)
        ]
        signs = BreakerSigns("member", self.metrics)
        self.model = LocalModel(described, members, self.clock, on_breaker=signs)
        self.bus = MemoryBus(broker, client_id=f"{tier.value}-{site}", link=link)
        self.up_bus = MemoryBus(broker, client_id=f"{tier.value}-{site}.up", link=link)
        self.uplink = self._uplink(above, hedge_share, chooser) if above else None
        self.pilot = self._pilot(audits, gearbox) if live else None
        self.auditor = self._auditor(audits, gearbox) if audits else None
        reviewer = None
        if reviews is not None:
            reviewer = Reviewer(
                self.identity, reviews, manifest=described, clock=self.clock, metrics=self.metrics
            )
        self._relay: ControlRelay | None = None
        self._ending: asyncio.Task[None] | None = None
        self.switch = None if state is None else self._switch(state, above)
        self.flow = RequestFlow(
            self.identity,
            model=self.model,
            policy=EscalationPolicy(accept_at=0.8, margin_ms=margin_ms),
            clock=self.clock,
            metrics=self.metrics,
            log=self.log,
            gearbox=gearbox,
            uplink=self.uplink,
            auditor=self.auditor,
            reviewer=reviewer,
            pilot=self.pilot,
            switch=self.switch,
            tracer=self.tracer,
        )
        self.serving = Serving(Served(self.model, self.flow), self.switch)
        self.ingress = Ingress(self.bus, self.clock, self.metrics, self.serving, limits)
        self.presence = Presence(self.bus, self.identity, 1, self._birth)

    def _uplink(self, above: Tier, hedge_share: float, chooser: random.Random | None) -> Uplink:
        return Uplink(
            self.up_bus,
            self.clock,
            self.metrics,
            UplinkSettings(
                tier_above=above,
                region=_region(above),
                asker=self.identity.site,
                pinned="",
                max_pending=8,
                reserve_ms=2,
                link=LINK,
                hedge_share=hedge_share,
            ),
            epoch=1,
            chooser=chooser,
            tracer=self.tracer,
        )

    def _auditor(self, audits: AuditSettings, gearbox: Gearbox | None) -> Auditor | None:
        if self.uplink is None:
            return None
        return Auditor(
            self.identity,
            audits,
            gearbox=gearbox or Gearbox(self.identity.tier),
            min_chance=0.25,
            uplink=self.uplink,
            clock=self.clock,
            metrics=self.metrics,
            log=self.log,
            chooser=random.Random(1),
            pilot=self.pilot,
        )

    def _pilot(self, audits: AuditSettings | None, gearbox: Gearbox | None) -> Pilot:
        return Pilot(
            self.identity.tier,
            gearbox.policy if gearbox else None,
            audit_rate=audits.rate if audits else 0.0,
            clock=self.clock,
            metrics=self.metrics,
        )

    def _switch(self, folder: Path, above: Tier | None) -> StopSwitch:
        switch = StopSwitch(
            self.identity,
            self.model.manifest,
            latch=ControlLatch(folder, self.identity.region),
            clock=self.clock,
            metrics=self.metrics,
        )
        switch.listen(self.bus)
        if self.identity.tier is not Tier.EDGE:
            relay = ControlRelay(
                switch,
                self.bus,
                region=self.identity.region,
                metrics=self.metrics,
                clock=self.clock,
            )
            self._relay = relay
            if above is not None:
                relay.listen(self.up_bus, _region(above))
        return switch

    def _birth(self) -> Birth:
        born = Birth(
            self.identity.tier,
            self.identity.site,
            self.identity.region,
            1,
            capacity=8,
            queue_len=self.ingress.queue_len,
        )
        return self.switch.stated(born) if self.switch else born

    async def __aenter__(self) -> Self:
        if self.identity.tier is not Tier.EDGE:
            self.ingress.open()
        if self._relay is not None:
            self._ending = asyncio.create_task(self._relay.end_overrides(0.05))
        await self.bus.start()
        await self.up_bus.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for backend in self.backends:
            if backend.release is not None:
                backend.release.set()
        if self._ending is not None:
            self._ending.cancel()
        await self.ingress.drain(1.0)
        if self.auditor is not None:
            await self.auditor.close()
        await self.up_bus.close()
        await self.bus.close()
        if self.switch is not None:
            await self.switch.close()
        self.model.close()

    def counted(self, sample: str) -> float:
        """The value of a metric sample, such as ``tierwise_edge_escalations_total{...}``."""
        text = self.metrics.render()[0].decode()
        values = [line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(sample)]
        return sum(map(float, values))


def _region(tier: Tier) -> str:
    """Agents and their gateways share a region; the tiers above have their own."""
    return "r" if tier in (Tier.EDGE, Tier.REGIONAL) else tier.value


def request(request_id: str = "q1", remaining_ms: float = 1000, **fields: Any) -> InferenceRequest:
    """A question, with one example unless ``inputs`` are given."""
    fields.setdefault("inputs", {"x": np.zeros((1, 2), np.float32)})
    return InferenceRequest(
        request_id=request_id, model_name="animals", remaining_ms=remaining_ms, **fields
    )


def tiers_that_worked(answer: Answer) -> Sequence[str]:
    """The tiers in an answer's provenance."""
    return [hop.tier.value for hop in answer.hops]
