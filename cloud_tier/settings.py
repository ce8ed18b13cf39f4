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
    PolicyFile,
    RequestSettings,
    StateSettings,
)
from runtime.update_settings import RepositorySettings


class TopSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is above the lower tiers' decisions: nothing climbs on, but a guarantee needs our word.

    A policy's guarantee holds only with the models that it was fitted with.
    """

    policy: PolicyFile = ""


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
    model: ModelSettings = ModelSettings(isolation="process")
    request: RequestSettings = RequestSettings(max_pending=1024)
    escalation: TopSettings = TopSettings()
    updates: RepositorySettings = RepositorySettings()
