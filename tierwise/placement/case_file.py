"""The form of CASE.toml. Every number has its unit in its name; money is in one currency."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import msgspec

from runtime.core.placement.case import Kind, Residency

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+\Z")]


class UseFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked, how often, and what has to be kept.

    ``requests_per_s`` is the mean of one site; ``daily_profile`` weighs the 24 hours, in any unit,
    or ``requests_per_s_by_hour`` has them in its place.
    """

    num_sites: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]
    budget_ms: float
    min_accuracy: float
    request_bytes: float
    requests_per_s: float | None = None
    daily_profile: tuple[float, ...] = ()
    requests_per_s_by_hour: tuple[float, ...] = ()
    reply_bytes: float = 200.0
    devices_per_site: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1
    residency: Residency = "cloud"
    max_leaving_share: float = 1.0
    model_updates_per_day: float = 0.0
    max_update_s: float = math.inf
    max_cost_per_million: float = math.inf
    min_served_share_without_link: float = 0.0
    max_utilization_share: float = 0.6
    price_per_kwh: float = 0.0
    currency: str = "EUR"
    predictions: str = ""


class SpreadFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One inference in ms: half of them, and 99 of 100, are quicker."""

    p50_ms: float
    p99_ms: float


class ModelFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A candidate: a model ``folder``, a ``bundled`` one, or figures.

    ``latency`` is by hardware profile or place and counts before what a folder shows; ``places``
    are those where it may run (none: all); ``predicted_as`` is its name in the predictions.
    """

    name: Name
    folder: str = ""
    bundled: Literal["", "edge", "regional", "cloud"] = ""
    accuracy: float | None = None
    size_bytes: float | None = None
    memory_bytes: float | None = None
    latency: dict[str, SpreadFile] = {}
    places: tuple[str, ...] = ()
    predicted_as: str = ""


class PlaceFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Machines of one hardware profile; ``price_per_hour`` and watts are of one machine.

    There is one group of machines on each site, in each of ``num_regions`` or ``num_clouds``;
    ``max_machines`` are those of one group. Devices are there anyway: one each.
    """

    name: Name
    kind: Kind
    profile: str
    price_per_hour: float = 0.0
    num_workers: Annotated[int, msgspec.Meta(ge=1, le=100_000)] | None = None
    memory_bytes: float | None = None
    busy_w: float | None = None
    idle_w: float | None = None
    num_groups: Annotated[int, msgspec.Meta(ge=1, le=100_000_000)] | None = None
    max_machines: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None = None


class LinkFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Between two places, lower and upper. ``jitter_ms`` is p99 of the round trip less its median.

    ``bandwidth_mbit_s`` is that of one group of machines below.
    """

    lower: str
    upper: str
    rtt_ms: float
    bandwidth_mbit_s: float
    jitter_ms: float = 0.0
    loss_share: float = 0.0
    price_per_gb: float = 0.0
    availability_share: float = 1.0


class CaseFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of CASE.toml; models are in the order in which requests climb them."""

    name: Name
    use: UseFile
    models: tuple[ModelFile, ...]
    places: tuple[PlaceFile, ...]
    links: tuple[LinkFile, ...] = ()
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0


PARTS = (UseFile, SpreadFile, ModelFile, PlaceFile, LinkFile)

EXAMPLE = """\
# A case for `tierwise place`: what is asked for, with which models, where, over which links.
name = "shop-floor"

[use]
num_sites = 40
devices_per_site = 6
requests_per_s = 3.0          # of one site, on average
# The 24 hours from midnight, in any unit; or requests_per_s_by_hour with 24 numbers instead.
daily_profile = [1, 1, 1, 1, 1, 2, 5, 8, 9, 9, 9, 8, 8, 9, 9, 9, 8, 6, 4, 3, 2, 2, 1, 1]
request_bytes = 3200
reply_bytes = 200
budget_ms = 60                # 95 of 100 answers are there by then
min_accuracy = 0.948          # with late answers replaced by those of the tier below
residency = "cloud"           # the furthest a payload may go: device, region, cloud
max_leaving_share = 1.0       # of requests that may leave their device
model_updates_per_day = 0.1
max_update_s = 3600           # a new version has to be everywhere by then
min_served_share_without_link = 1.0
max_utilization_share = 0.6   # of a worker in the busiest hour
price_per_kwh = 0.25
currency = "EUR"
# What every model said about the same labelled examples: a file of `tierwise policy collect`, or
# bundled:calibration (the bundled models are run). Without it, accuracy is an estimate.
predictions = "bundled:calibration"

# Models in the order in which requests climb: bundled, a folder, or figures.
[[models]]
name = "edge"
bundled = "edge"

[[models]]
name = "regional"
bundled = "regional"
[models.latency.cloud-cpu]    # by hardware profile (or place); else measured or estimated
p50_ms = 0.6
p99_ms = 1.5

[[models]]
name = "cloud"
bundled = "cloud"
# accuracy = 0.946            # figures in place of bundled, with size_bytes and memory_bytes
[models.latency.cloud-cpu]
p50_ms = 6.0
p99_ms = 14.0
[models.latency.gateway]
p50_ms = 9.0
p99_ms = 25.0

[[places]]
name = "camera"
kind = "device"
profile = "raspberry-pi-5"    # a name of `tierwise hardware list`, or a .toml file
idle_w = 2.7

[[places]]
name = "gateway"
kind = "edge-server"          # on each site
profile = "gateway"
price_per_hour = 0.03
busy_w = 35
idle_w = 12
max_machines = 2

[[places]]
name = "region"
kind = "region"
profile = "cloud-cpu"
price_per_hour = 0.30
max_machines = 50

[[places]]
name = "cloud"
kind = "cloud"
profile = "cloud-cpu"
price_per_hour = 0.20
max_machines = 500

[[links]]
lower = "camera"
upper = "gateway"
rtt_ms = 2.0
jitter_ms = 4.0
bandwidth_mbit_s = 100
availability_share = 0.9995

[[links]]
lower = "gateway"
upper = "region"
rtt_ms = 12.0
jitter_ms = 15.0
bandwidth_mbit_s = 20
loss_share = 0.002
availability_share = 0.999

[[links]]
lower = "region"
upper = "cloud"
rtt_ms = 20.0
jitter_ms = 20.0
bandwidth_mbit_s = 1000
loss_share = 0.001
price_per_gb = 0.02
availability_share = 0.9995
"""
