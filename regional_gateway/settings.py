"""Settings of the regional gateway."""

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
    RequestSettings,
    StateSettings,
)
from runtime.messages import Tier
from runtime.review_settings import ReviewSettings
from runtime.tracing_settings import TracingSettings
from runtime.update_settings import MirrorSettings
from runtime.updating.settings import UpdateSettings


class UpstreamSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The tier above, as this gateway reaches it: the cloud, or a gateway of gateways."""

    enabled: Annotated[bool, Meta(description="false: nothing climbs past this gateway.")] = True
    tier: Annotated[
        Literal["regional-2", "regional-3", "regional-4", "cloud"],
        Meta(description="Tier that this gateway asks."),
    ] = "cloud"
    region: Annotated[
        Name, Meta(description="Region of the tier above: the one that it serves.")
    ] = "cloud"
    broker: BrokerSettings = BrokerSettings()


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The regional gateway: one process that serves the agents, or gateways, of a region."""

    gateway: Annotated[
        Name,
        Meta(description="Id of this gateway, unique in its region.", examples=["gateway-1"]),
    ]
    region: Annotated[
        Name, Meta(description="Region that this gateway serves.", examples=["plant-north"])
    ]
    tier: Annotated[
        Literal["regional", "regional-2", "regional-3", "regional-4"],
        Meta(
            description="Where it stands: `regional` serves agents, `regional-2` and up serve "
            "gateways below."
        ),
    ] = "regional"
    regions_below: Annotated[
        str,
        Meta(
            description="Regions whose gateways are below this one, with commas between them: "
            "assignments and announcements for them are passed on. For tier `regional-2` and up.",
            pattern=r"^(?:[A-Za-z0-9][A-Za-z0-9._-]{0,63}(?:, *(?!$)|$)){0,256}(?!\n)$",
            examples=["plant-north, plant-south"],
            extra={"constraints": "names with commas between them, or empty"},
        ),
    ] = ""
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
    model: ModelSettings = ModelSettings(isolation="process")
    request: RequestSettings = RequestSettings(max_pending=256)
    escalation: EscalationSettings = EscalationSettings()
    updates: MirrorSettings = MirrorSettings()
    own_updates: UpdateSettings = UpdateSettings()
    tracing: TracingSettings = TracingSettings()
    review: ReviewSettings = ReviewSettings()

    def __post_init__(self) -> None:
        """Refuses an upstream that is not above, or regions that cannot be below."""
        above = Tier(self.upstream.tier)
        if above.height <= Tier(self.tier).height:
            raise ValueError(f"upstream.tier {above.value} is not above tier {self.tier}")
        if self.upstream.enabled and self.upstream.region == self.region:
            raise ValueError("upstream.region is this gateway's own: give every tier its region")
        if self.regions_below and self.tier == Tier.REGIONAL.value:
            raise ValueError("regions_below: below tier regional there are devices only")
        if {self.region, self.upstream.region} & set(self.below):
            raise ValueError("regions_below names this gateway's own region, or the one above")

    @property
    def below(self) -> tuple[str, ...]:
        """The names in ``regions_below``."""
        names = (name.strip() for name in self.regions_below.split(","))
        return tuple(dict.fromkeys(name for name in names if name))
