"""What a placement is decided on: models, places, links, the load and the limits.

Rules of this file:
  * every limit is a filter, and no cost depends on one: to relax a limit never costs more;
  * what no single field shows to be wrong is refused by ``check_case``, with what to change;
  * money is in one currency of the caller's choice.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from runtime.errors import SettingsError

MAX_MODELS = 8
MAX_PLACES = 16
HOURS = 24
Residency = Literal["device", "region", "cloud"]


class Kind(enum.StrEnum):
    """Where a place is, from the device upwards; an edge server stands on the devices' site."""

    DEVICE = "device"
    EDGE_SERVER = "edge-server"
    REGION = "region"
    CLOUD = "cloud"

    @property
    def height(self) -> int:
        """0 on the device, growing upwards."""
        return list(Kind).index(self)

    @property
    def residency(self) -> Residency:
        """What a payload must be allowed to reach; an edge server is a gateway."""
        if self is Kind.DEVICE:
            return "device"
        return "cloud" if self is Kind.CLOUD else "region"


RESIDENCIES: tuple[Residency, ...] = ("device", "region", "cloud")


class Spread(msgspec.Struct, frozen=True):
    """A latency in ms: lognormal by its median and 99th percentile."""

    p50_ms: float
    p99_ms: float
    is_estimate: bool = False


class Model(msgspec.Struct, frozen=True):
    """A candidate; ``latency`` is by place, and a place that is not in it cannot run the model.

    ``row`` is that of its predictions; None where nobody has collected any.
    """

    name: str
    accuracy: float
    size_bytes: float
    memory_bytes: float
    latency: Mapping[str, Spread]
    row: int | None = None


class Place(msgspec.Struct, frozen=True):
    """Machines of one kind, in ``num_groups`` that share no load (sites, or devices).

    ``num_workers`` inferences run at once on a machine; ``memory_bytes`` 0 is not known.
    """

    name: str
    kind: Kind
    num_groups: int
    price_per_hour: float = 0.0
    memory_bytes: float = 0.0
    num_workers: int = 1
    busy_w: float = 0.0
    idle_w: float = 0.0
    max_machines: int = 1


class Link(msgspec.Struct, frozen=True):
    """Between a place and one above it.

    ``jitter_ms`` is the 99th percentile of the round trip less its median, ``loss_share`` that of
    exchanges that never come back.
    """

    lower: str
    upper: str
    rtt_ms: float
    jitter_ms: float = 0.0
    bandwidth_bps: float = 1e9
    loss_share: float = 0.0
    price_per_gb: float = 0.0
    availability_share: float = 1.0

    @property
    def name(self) -> str:
        """``lower > upper``."""
        return f"{self.lower} > {self.upper}"


class Load(msgspec.Struct, frozen=True):
    """Requests of all sites together, by hour of the day, and what one weighs."""

    requests_per_s: tuple[float, ...]
    request_bytes: float
    reply_bytes: float
    updates_per_day: float = 0.0

    @property
    def mean_per_s(self) -> float:
        """Over the day."""
        return math.fsum(self.requests_per_s) / len(self.requests_per_s)

    @property
    def peak_per_s(self) -> float:
        """In the busiest hour."""
        return max(self.requests_per_s)


class Limits(msgspec.Struct, frozen=True):
    """What a placement has to keep; ``budget_ms`` is for 95 of 100 requests.

    ``max_leaving_share`` is the share of requests that may leave the device, ``residency`` the
    furthest that any may go, ``max_update_s`` how long a new version may travel,
    ``min_served_share`` the share still answered while any single link is down.
    """

    budget_ms: float
    min_accuracy: float
    residency: Residency = "cloud"
    max_leaving_share: float = 1.0
    max_update_s: float = math.inf
    max_cost_per_million: float = math.inf
    min_served_share: float = 0.0


class Case(msgspec.Struct, frozen=True):
    """Everything that a placement is decided on; models are in the order in which they climb."""

    models: tuple[Model, ...]
    places: tuple[Place, ...]
    links: tuple[Link, ...]
    load: Load
    limits: Limits
    max_utilization: float = 0.6
    price_per_kwh: float = 0.0

    def place(self, name: str) -> Place:
        """The place of that name."""
        return next(one for one in self.places if one.name == name)


def check_case(case: Case) -> None:
    """Refuses what nothing can be decided on.

    Raises:
        SettingsError: a number out of range, a name twice or unknown, nothing to choose from.
    """
    for what, names, most in (
        ("models", [one.name for one in case.models], MAX_MODELS),
        ("places", [one.name for one in case.places], MAX_PLACES),
        ("links", [one.name for one in case.links], MAX_PLACES**2),
    ):
        if not names and what != "links":
            raise SettingsError(f"the case has no {what}: nothing can be placed")
        if len(names) > most:
            raise SettingsError(f"{len(names)} {what}; at most {most} can be tried exhaustively")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise SettingsError(f"{what}: {twice[0]!r} is there twice; give each a name of its own")
    _check_numbers(case)
    places = {one.name: one for one in case.places}
    for link in case.links:
        for end in (link.lower, link.upper):
            if end not in places:
                raise SettingsError(f"link {link.name}: there is no place {end!r}")
        if places[link.lower].kind.height >= places[link.upper].kind.height:
            raise SettingsError(f"link {link.name} does not lead upwards: turn it round")


def _check_numbers(case: Case) -> None:
    load, limits = case.load, case.limits
    if not load.requests_per_s:
        raise SettingsError("requests_per_s is empty: say how many there are")
    _in_range("requests_per_s", load.requests_per_s, 0.0, 1e9)
    if not load.mean_per_s > 0:
        raise SettingsError("requests_per_s is 0: without requests nothing needs a place")
    # One in thirty years: what is shared out among fewer is no number any more.
    _in_range("mean of requests_per_s", [load.mean_per_s], 1e-9, 1e9)
    _in_range("request_bytes", [load.request_bytes, load.reply_bytes], 0.0, 1e12)
    _in_range("updates_per_day", [load.updates_per_day], 0.0, 1e5)
    _in_range("budget_ms", [limits.budget_ms], 1e-6, 1e9)
    _in_range("min_accuracy", [limits.min_accuracy], 0.0, 1.0)
    _in_range("max_leaving_share", [limits.max_leaving_share], 0.0, 1.0)
    _in_range("min_served_share", [limits.min_served_share], 0.0, 1.0)
    _in_range("max_utilization", [case.max_utilization], 0.01, 0.99)
    _in_range("price_per_kwh", [case.price_per_kwh], 0.0, 1e6)
    for model in case.models:
        _in_range(f"accuracy of {model.name}", [model.accuracy], 0.0, 1.0)
        _in_range(f"bytes of {model.name}", [model.size_bytes, model.memory_bytes], 0.0, 1e15)
        for spread in model.latency.values():
            _in_range(f"latency of {model.name}", [spread.p50_ms], 1e-9, 1e9)
            _in_range(f"p99_ms of {model.name}", [spread.p99_ms], spread.p50_ms, 1e9)
    for place in case.places:
        _in_range(
            f"price or power of {place.name}",
            [place.price_per_hour, place.busy_w, place.idle_w, place.memory_bytes],
            0.0,
            1e15,
        )
        _in_range(f"machines of {place.name}",
                  [place.num_groups, place.max_machines, place.num_workers], 1, 1e9)  # fmt: skip
    for link in case.links:
        _in_range(f"rtt_ms, jitter_ms or price of {link.name}",
                  [link.rtt_ms, link.jitter_ms, link.price_per_gb], 0.0, 1e9)  # fmt: skip
        _in_range(f"bandwidth of {link.name}", [link.bandwidth_bps], 1.0, 1e15)
        _in_range(f"loss or availability of {link.name}",
                  [link.loss_share, link.availability_share], 0.0, 1.0)  # fmt: skip


def _in_range(what: str, values: Iterable[float], low: float, high: float) -> None:
    for value in values:
        if not low <= value <= high:
            raise SettingsError(f"{what}: {value:g} is outside {low:g} .. {high:g}")
