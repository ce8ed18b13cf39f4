"""Settings of the edge agent."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from runtime.common_settings import (
    BrokerSettings,
    EscalationSettings,
    HttpSettings,
    LogSettings,
    ModelSettings,
    Name,
    OptionalName,
    RequestSettings,
    StateSettings,
)
from runtime.review_settings import ReviewSettings
from runtime.tracing_settings import TracingSettings
from runtime.updating.settings import UpdateSettings


class EdgeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The edge agent: one process on a device."""

    agent: Annotated[
        Name,
        Meta(description="Id of this agent, unique in its region.", examples=["camera-1"]),
    ]
    region: Annotated[
        Name, Meta(description="Region whose gateways this agent asks.", examples=["plant-north"])
    ]
    gateway: Annotated[
        OptionalName,
        Meta(
            description="Id of the gateway to ask; empty: the best of those that say they are "
            "online."
        ),
    ] = ""
    upstream_tier: Annotated[
        Literal["regional", "regional-2", "regional-3", "regional-4", "cloud"],
        Meta(
            description="Tier that this agent asks; `cloud` with the cloud's region for devices "
            "without a gateway."
        ),
    ] = "regional"
    broker: BrokerSettings = BrokerSettings()
    http: HttpSettings = HttpSettings(port=8470)
    state: StateSettings = StateSettings(folder="state/edge")
    log: LogSettings = LogSettings()
    model: ModelSettings = ModelSettings()
    request: RequestSettings = RequestSettings()
    escalation: EscalationSettings = EscalationSettings()
    updates: UpdateSettings = UpdateSettings()
    tracing: TracingSettings = TracingSettings()
    review: ReviewSettings = ReviewSettings()
