"""Puts together what answers around a model: flow, pilot, auditor, reviewer."""

from __future__ import annotations

from dataclasses import dataclass, replace

from runtime.common_settings import EscalationSettings, RequestSettings
from runtime.core.gearbox import Gearbox
from runtime.exchange.correcting import CorrectionDesk
from runtime.exchange.flow import RequestFlow
from runtime.exchange.sampling import Sampler
from runtime.exchange.serving import Served
from runtime.exchange.station import Station, auditor_of, escalation_policy, pilot_of
from runtime.exchange.stopping import StopSwitch
from runtime.exchange.uplink import Uplink
from runtime.local_model import LocalModel
from runtime.ports import DecisionLog


@dataclass(frozen=True, slots=True)
class Assembly:
    """Builds what answers around a model; everything else of the process stays as it is."""

    escalation: EscalationSettings
    request: RequestSettings
    parts: Station
    switch: StopSwitch
    desk: CorrectionDesk | None = None
    uplink: Uplink | None = None

    def build(
        self,
        model: LocalModel,
        gearbox: Gearbox,
        *,
        release: str = "",
        log: DecisionLog | None = None,
    ) -> Served:
        """What answers with this model; it does nothing before it is exchanged for another."""
        escalation, uplink = self.escalation, self.uplink
        reviews = self.parts.reviews
        parts = replace(
            self.parts,
            model=model,
            gearbox=gearbox,
            log=log or self.parts.log,
            reviewer=reviews.reviewer(gearbox, model.manifest) if reviews else None,
        )
        pilot = pilot_of(parts, escalation) if uplink else None
        sampler = None
        if reviews is not None and parts.reviewer is not None and reviews.settings.samples:
            sampler = Sampler(
                parts.reviewer,
                reviews.settings,
                parts.clock,
                has_drifted=lambda: pilot is not None and pilot.has_drifted,
            )
        auditor = auditor_of(parts, escalation, uplink, pilot, sampler) if uplink else None
        flow = RequestFlow(
            parts.identity,
            model=model,
            policy=escalation_policy(escalation, self.request, model),
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
            tracer=parts.tracer,
            sampler=sampler,
        )
        return Served(model, flow, auditor, release)
