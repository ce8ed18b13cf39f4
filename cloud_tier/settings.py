"""Settings of the cloud tier."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from runtime.common_settings import (
    BrokerSettings,
    HttpSettings,
    LogSettings,
    ModelSettings,
    Name,
    RequestSettings,
    StateSettings,
)


class CloudSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The cloud tier: the top of the hierarchy."""

    cloud: Annotated[
        Name, Meta(description="Id of this process, unique in its region.", examples=["cloud-1"])
    ]
    region: Annotated[
        Name, Meta(description="Region under which gateways find the cloud tier.")
    ] = "cloud"
    broker: BrokerSettings = BrokerSettings()
    http: HttpSettings = HttpSettings(port=8472)
    state: StateSettings = StateSettings(folder="state/cloud")
    log: LogSettings = LogSettings()
    model: ModelSettings = ModelSettings()
    request: RequestSettings = RequestSettings(max_pending=1024)
