"""Settings of the regional gateway."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from runtime.common_settings import (
    BrokerSettings,
    EscalationSettings,
    HttpSettings,
    LogSettings,
    ModelSettings,
    Name,
    RequestSettings,
    StateSettings,
)


class UpstreamSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The cloud tier, as this gateway reaches it."""

    enabled: Annotated[bool, Meta(description="false: nothing climbs past this gateway.")] = True
    region: Annotated[Name, Meta(description="Region of the cloud tier.")] = "cloud"
    broker: BrokerSettings = BrokerSettings()


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The regional gateway: one process that serves the agents of a region."""

    gateway: Annotated[
        Name,
        Meta(description="Id of this gateway, unique in its region.", examples=["gateway-1"]),
    ]
    region: Annotated[
        Name, Meta(description="Region that this gateway serves.", examples=["plant-north"])
    ]
    dedupe_window: Annotated[
        int,
        Meta(
            description="Latest requests that are remembered, so that one that arrives twice is "
            "worked on once.",
            ge=1,
            le=1_000_000,
        ),
    ] = 4096
    broker: BrokerSettings = BrokerSettings()
    upstream: UpstreamSettings = UpstreamSettings()
    http: HttpSettings = HttpSettings(port=8471)
    state: StateSettings = StateSettings(folder="state/gateway")
    log: LogSettings = LogSettings()
    model: ModelSettings = ModelSettings()
    request: RequestSettings = RequestSettings(max_pending=256)
    escalation: EscalationSettings = EscalationSettings()
