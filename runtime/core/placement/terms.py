"""What a placement asks of a policy: tiers, prices of a call, the loss allowed, round trips.

The price of a call is what one more costs: its share of machines that are as busy as they are
sized for, its bytes, and the power of its work. Machines that are there anyway (price 0) add
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec
import numpy as np

from runtime.core.placement.case import Case, Kind
from runtime.core.placement.chains import Option
from runtime.core.placement.curves import Floats
from runtime.core.placement.decide import Choice
from runtime.core.placement.travel import Sampler, mean_service_ms
from runtime.errors import PolicyError
from runtime.messages import Tier

NUM_ROUND_TRIPS = 1000
_HOUR_S = 3600.0
_GB = 1e9
# Of the top tier's price; below this the policy would have nothing to save.
_MIN_PRICE = 1e-12


class FitTerms(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``tierwise policy collect|fit --placement`` read.

    ``prices`` of a call are by tier, lowest first, in the case's currency per million calls;
    ``predicted_cost`` is in prices of the top tier, as policies count. ``trace`` is a file of round
    trips beside this one; ``models`` are folders by tier, where there are any.
    """

    placement: str
    prices: dict[str, float]
    max_loss: float
    budget_ms: float
    trace: str
    predicted_cost: float
    predicted_accuracy: float
    predicted_shares: dict[str, float]
    models: dict[str, str] = {}


def tiers_of(option: Option) -> tuple[Tier, ...]:
    """What the stops are called where they serve: edge, regional and up, cloud."""
    found: list[Tier] = []
    above = [Tier.REGIONAL, Tier.REGIONAL_2]
    for stop in option:
        if stop.place.kind is Kind.DEVICE:
            found.append(Tier.EDGE)
        elif stop.place.kind is Kind.CLOUD:
            found.append(Tier.CLOUD)
        else:
            found.append(above.pop(0))
    return tuple(found)


def call_prices(case: Case, option: Option) -> list[float]:
    """Of one more call at each stop, per million."""
    load, found = case.load, []
    for stop in option:
        place = stop.place
        busy_s = mean_service_ms(stop.model.latency[place.name]) / 1000 / place.num_workers
        # Machines are paid all day and sized for the busiest hour.
        paid_s = busy_s / case.max_utilization * load.peak_per_s / load.mean_per_s
        power = busy_s * max(0.0, place.busy_w - place.idle_w) / 1000 / _HOUR_S
        price_gb = math.fsum(link.price_per_gb for link in stop.path)
        found.append(
            1e6
            * (
                place.price_per_hour * paid_s / _HOUR_S
                + power * case.price_per_kwh
                + price_gb / _GB * (load.request_bytes + load.reply_bytes)
            )
        )
    return found


def terms_of(
    case: Case, choice: Choice, trace: str, models: Mapping[str, str] | None = None
) -> FitTerms:
    """The terms of a placement; ``models`` are folders by model name.

    Raises:
        PolicyError: one tier alone, or a free one on top: no policy is needed there.
    """
    option = choice.outcome.option
    if len(option) == 1:
        raise PolicyError(
            f"{choice.name} is one tier: it answers everything, and there is no policy to fit"
        )
    prices = call_prices(case, option)
    if prices[-1] <= _MIN_PRICE:
        raise PolicyError(
            f"a call of {choice.name.rpartition(' > ')[2]} costs nothing: ask it always, or state "
            "what its machines, bytes or power cost"
        )
    tiers = [tier.value for tier in tiers_of(option)]
    curve, point = choice.outcome.curve, choice.point
    above = np.append(curve.reach[point, 1:], 0.0)
    folders = models or {}
    return FitTerms(
        placement=choice.name,
        prices=dict(zip(tiers, prices, strict=True)),
        max_loss=max(0.0, float(option[-1].model.accuracy) - case.limits.min_accuracy),
        budget_ms=case.limits.budget_ms,
        trace=trace,
        predicted_cost=float(curve.reach[point] @ np.asarray(prices)) / prices[-1],
        predicted_accuracy=float(curve.accuracy[point]),
        predicted_shares=dict(zip(tiers, (curve.reach[point] - above).tolist(), strict=True)),
        models={
            tier: folders[stop.model.name]
            for tier, stop in zip(tiers, option, strict=True)
            if stop.model.name in folders
        },
    )


def round_trips_ms(case: Case, option: Option, seed: int = 0) -> Floats:
    """(rows, K - 1) simulated round trips to every stop but the first, infinite where lost."""
    sampler = Sampler(seed)
    columns = [
        np.sum([sampler.link_ms(link, case.load) for link in stop.path], axis=0)[:NUM_ROUND_TRIPS]
        for stop in option[1:]
    ]
    return np.column_stack(columns)
