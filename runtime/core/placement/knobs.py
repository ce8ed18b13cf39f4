"""Figures of a case that can be turned: limits that may give way, and inputs that may be wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from runtime.core.placement.case import RESIDENCIES, Case, Model, Spread

# No limit is relaxed by more than this.
WIDEST = 1e6
MAX_MEMORY_BYTES = 1e15


@dataclass(frozen=True, slots=True)
class Knob:
    """One figure; ``put`` is the same case with another value."""

    name: str
    value: float
    put: Callable[[float], Case]


@dataclass(frozen=True, slots=True)
class Limit(Knob):
    """What a placement has to keep; with ``loosest`` it excludes nothing that can be had.

    ``is_whole`` ones take whole numbers.
    """

    loosest: float
    is_whole: bool = False

    def told(self, value: float) -> str:
        """A value in words."""
        return RESIDENCIES[round(value)] if self.name == "residency" else f"{value:.4g}"


def limits_of(case: Case) -> list[Limit]:
    """All limits that exclude something."""
    limits = case.limits

    def limit(name: str, field: str, loosest: float) -> Limit:
        return Limit(
            name,
            getattr(limits, field),
            lambda value: replace(case, limits=replace(limits, **{field: value})),
            loosest,
        )

    found = [
        limit("min-accuracy", "min_accuracy", 0.0),
        limit("budget-ms", "budget_ms", limits.budget_ms * WIDEST),
        Limit(
            "residency",
            float(RESIDENCIES.index(limits.residency)),
            lambda value: replace(
                case, limits=replace(limits, residency=RESIDENCIES[round(value)])
            ),
            float(len(RESIDENCIES) - 1),
            is_whole=True,
        ),
        limit("max-leaving-share", "max_leaving_share", 1.0),
        limit("min-served-share", "min_served_share", 0.0),
    ]
    if math.isfinite(limits.max_update_s):
        found.append(limit("max-update-s", "max_update_s", max(1.0, limits.max_update_s) * WIDEST))
    if math.isfinite(limits.max_cost_per_million):
        found.append(
            limit(
                "max-cost-per-million",
                "max_cost_per_million",
                max(1.0, limits.max_cost_per_million) * WIDEST,
            )
        )
    for place in case.places:
        found.append(
            Limit(
                f"max-machines {place.name}",
                place.max_machines,
                _of_place(case, place.name, "max_machines", is_whole=True),
                place.max_machines * WIDEST,
                is_whole=True,
            )
        )
        if place.memory_bytes:
            found.append(
                Limit(
                    f"memory-bytes {place.name}",
                    place.memory_bytes,
                    _of_place(case, place.name, "memory_bytes"),
                    MAX_MEMORY_BYTES,
                )
            )
    return [knob for knob in found if knob.value != knob.loosest]


def inputs_of(case: Case) -> list[Knob]:
    """All figures above 0 whose error might change the recommendation."""
    limits, load = case.limits, case.load
    found = [
        Knob(
            "requests-per-s",
            load.mean_per_s,
            lambda value: replace(
                case,
                load=replace(
                    load,
                    requests_per_s=tuple(
                        one * value / load.mean_per_s for one in load.requests_per_s
                    ),
                ),
            ),
        ),
        Knob(
            "request-bytes",
            load.request_bytes,
            lambda value: replace(case, load=replace(load, request_bytes=value)),
        ),
        Knob(
            "budget-ms",
            limits.budget_ms,
            lambda value: replace(case, limits=replace(limits, budget_ms=value)),
        ),
        Knob(
            "errors-allowed",
            1 - limits.min_accuracy,
            lambda value: replace(case, limits=replace(limits, min_accuracy=max(0.0, 1 - value))),
        ),
        Knob("price-per-kwh", case.price_per_kwh, lambda value: replace(case, price_per_kwh=value)),
        Knob(
            "updates-per-day",
            load.updates_per_day,
            lambda value: replace(case, load=replace(load, updates_per_day=value)),
        ),
    ]
    found += [
        Knob(
            f"price-per-hour {place.name}",
            place.price_per_hour,
            _of_place(case, place.name, "price_per_hour"),
        )
        for place in case.places
    ]
    for link in case.links:
        for field in ("rtt_ms", "jitter_ms", "price_per_gb", "bandwidth_bps"):
            found.append(
                Knob(
                    f"{field.replace('_', '-')} {link.name}",
                    getattr(link, field),
                    _of_link(case, link.name, field),
                )
            )
    for model in case.models:
        for name, spread in model.latency.items():
            found.append(
                Knob(f"p50-ms {model.name}@{name}", spread.p50_ms, _of_model(case, model, name))
            )
    return [knob for knob in found if knob.value > 0]


def _of_model(case: Case, model: Model, place: str) -> Callable[[float], Case]:
    """The latency of a model at a place; its tail moves along."""

    def put(value: float) -> Case:
        spread = model.latency[place]
        changed = Spread(value, spread.p99_ms * value / spread.p50_ms, spread.is_estimate)
        other = replace(model, latency={**model.latency, place: changed})
        return replace(
            case, models=tuple(other if one.name == model.name else one for one in case.models)
        )

    return put


def _of_place(
    case: Case, name: str, field: str, *, is_whole: bool = False
) -> Callable[[float], Case]:
    def put(value: float) -> Case:
        changed = {field: round(value) if is_whole else value}
        return replace(
            case,
            places=tuple(
                replace(one, **changed) if one.name == name else one for one in case.places
            ),
        )

    return put


def _of_link(case: Case, name: str, field: str) -> Callable[[float], Case]:
    def put(value: float) -> Case:
        return replace(
            case,
            links=tuple(
                replace(one, **{field: value}) if one.name == name else one for one in case.links
            ),
        )

    return put
