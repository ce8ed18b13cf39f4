"""Settings of the cloud tier."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from cloud_tier.alerts.settings import AlertSettings
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
from runtime.tracing_settings import TracingSettings
from runtime.update_settings import RepositorySettings


class TopSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is above the lower tiers' decisions: nothing climbs on, but a guarantee needs our word.

    A policy's guarantee holds only with the models that it was fitted with.
    """

    policy: PolicyFile = ""


class RolloutSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rollouts of new versions to devices, driven by this process."""

    key_file: Annotated[
        str,
        Meta(
            description="PEM file of the Ed25519 key that signs what devices are told to run; its "
            "passphrase, if it has one, is TIERWISE_KEY_PASSPHRASE in the environment. Needs "
            "`updates.repository`. Empty: no rollouts.",
            examples=["/srv/tierwise/keys/rollout.pem"],
        ),
    ] = ""
    tick_interval_s: Annotated[
        float, Meta(description="How often all rollouts are looked at, in s.", ge=0.05, le=60)
    ] = 1.0
    retention_s: Annotated[
        float,
        Meta(
            description="How long counts of requests are kept, in s: a gate compares with the day "
            "before the change.",
            ge=600,
        ),
    ] = 172_800.0
    bucket_s: Annotated[
        int, Meta(description="Counts of so many seconds are kept as one.", ge=1, le=3600)
    ] = 300
    counted_max_rows: Annotated[
        int,
        Meta(description="Rows of counts that are kept; over it the oldest are dropped.", ge=1000),
    ] = 2_000_000
    repeat_s: Annotated[
        float,
        Meta(
            description="How long a device has to say that it knows what it was told, in s; then "
            "it is told again.",
            ge=0.1,
        ),
    ] = 60.0


class OperatorsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The port of those who operate Tierwise: dashboard, rollouts, metrics. On loopback alone."""

    port: Annotated[
        int,
        Meta(
            description="TCP port on 127.0.0.1; 0: any free one. The tier writes address and token "
            "into operator.json in its state folder.",
            ge=0,
            le=65535,
        ),
    ] = 8473
    decision_logs: Annotated[
        str,
        Meta(
            description="State folders of other tiers on this machine, with commas between them, "
            "whose decision logs the dashboard shows beside the cloud's own; a folder may also "
            "hold one folder a site.",
            examples=["/var/lib/tierwise"],
        ),
    ] = ""

    @property
    def folders(self) -> tuple[str, ...]:
        """Those of ``decision_logs``."""
        return tuple(filter(None, map(str.strip, self.decision_logs.split(","))))


class TelemetrySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What tiers tell of their decisions, as counts that can be asked (`tierwise metrics`)."""

    enabled: Annotated[
        bool, Meta(description="Whether it is kept; needs the extra `cloud`, else it is not.")
    ] = True
    url: Annotated[
        str,
        Meta(
            description="Database: postgresql+psycopg://user@host/name (extra `postgres`), or "
            "sqlite:////folder/file. Empty: telemetry.sqlite in the state folder.",
            examples=["postgresql+psycopg://tierwise@localhost/telemetry"],
        ),
    ] = ""
    gateways: Annotated[
        str,
        Meta(
            description="Regions that gateways may speak for: comma-separated gateway:region, a "
            "pair for each. Empty: who is connected directly speaks for any other region.",
            examples=["gw-eu-1:eu, gw-eu-2:eu, gw-us:us"],
        ),
    ] = ""
    minute_retention_s: Annotated[
        float, Meta(description="How long counts of minutes are kept, in s.", ge=3600)
    ] = 172_800.0
    hour_retention_s: Annotated[
        float, Meta(description="How long counts of hours are kept, in s.", ge=86_400)
    ] = 7_776_000.0
    day_retention_s: Annotated[
        float, Meta(description="How long counts of days are kept, in s.", ge=86_400)
    ] = 158_112_000.0
    max_rows: Annotated[
        int,
        Meta(
            description="Rows that are kept at all; over it the oldest of the finest go.", ge=10_000
        ),
    ] = 20_000_000
    sample_retention_s: Annotated[
        float,
        Meta(
            description="How long decisions that tiers tell whole (`state.rollup_samples`) are "
            "kept, in s.",
            ge=60,
        ),
    ] = 604_800.0
    max_samples: Annotated[
        int,
        Meta(
            description="How many of them are kept at all; over it the oldest go. 0: none is kept.",
            ge=0,
        ),
    ] = 200_000

    def __post_init__(self) -> None:
        """Refuses coarse counts that go before the fine ones."""
        if not self.minute_retention_s <= self.hour_retention_s <= self.day_retention_s:
            raise ValueError(
                "telemetry.minute_retention_s is at most hour_retention_s, and that at most "
                "day_retention_s"
            )
        for pair in self._pairs:
            if not all(pair.partition(":")):
                raise ValueError(f"telemetry.gateways: {pair[:60]!r} is no gateway:region")

    @property
    def speakers(self) -> dict[str, tuple[str, ...]]:
        """The regions of ``gateways``, by gateway."""
        found: dict[str, tuple[str, ...]] = {}
        for pair in self._pairs:
            gateway, _, region = pair.partition(":")
            found[gateway] = (*found.get(gateway, ()), region)
        return found

    @property
    def _pairs(self) -> list[str]:
        return [pair.strip() for pair in self.gateways.split(",") if pair.strip()]


class CloudReviewSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What waits for people, of all tiers; needs telemetry, whose database it is in."""

    shows_answers: Annotated[
        bool,
        Meta(
            description="Whether people see what tiers have answered before they label; then they "
            "tend to say the same."
        ),
    ] = False
    labellers: Annotated[
        int, Meta(description="People who have to say the same about an item.", ge=1, le=2)
    ] = 1
    lease_s: Annotated[
        float,
        Meta(description="Time in s for which an item is one person's alone.", ge=10, le=86_400),
    ] = 600.0
    retention_s: Annotated[
        float,
        Meta(
            description="Time in s after which an item that nobody has labelled is over, and its "
            "inputs are deleted.",
            ge=3600,
        ),
    ] = 2_592_000.0
    max_items: Annotated[
        int,
        Meta(
            description="Items that are kept; over it the least valuable, and of these the oldest, "
            "makes room.",
            ge=10,
        ),
    ] = 20_000
    max_bytes: Annotated[int, Meta(description="Size of all of them in bytes.", ge=1_048_576)] = (
        1_073_741_824
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
    model: ModelSettings = ModelSettings(isolation="process")
    request: RequestSettings = RequestSettings(max_pending=1024)
    escalation: TopSettings = TopSettings()
    updates: RepositorySettings = RepositorySettings()
    rollouts: RolloutSettings = RolloutSettings()
    operators: OperatorsSettings = OperatorsSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    tracing: TracingSettings = TracingSettings()
    alerts: AlertSettings = AlertSettings()
    review: CloudReviewSettings = CloudReviewSettings()

    def __post_init__(self) -> None:
        """Refuses rollouts of what nobody hands out."""
        if self.rollouts.key_file and not self.updates.repository:
            raise ValueError(
                "rollouts.key_file needs updates.repository: what is rolled out is what is there"
            )
