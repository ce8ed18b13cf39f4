"""Small cases for placements, and what brute force makes of them."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from fakes.decisions import decision, write_log
from runtime.core.placement.case import (
    RESIDENCIES,
    Case,
    Kind,
    Limits,
    Link,
    Load,
    Model,
    Place,
    Residency,
    Spread,
)
from runtime.core.placement.curves import Answers

PLACES = (
    Place("camera", Kind.DEVICE, 20, 0.0, 1e9, 4, 5.0, 2.0, 1),
    Place("gateway", Kind.EDGE_SERVER, 5, 0.02, 8e9, 4, 40.0, 10.0, 4),
    Place("region", Kind.REGION, 1, 0.2, 16e9, 8, max_machines=50),
    Place("cloud", Kind.CLOUD, 1, 0.4, 16e9, 8, max_machines=500),
)
LINKS = (
    Link("camera", "gateway", 2.0, 2.0, 1e8),
    Link("gateway", "region", 12.0, 10.0, 2e7, price_per_gb=0.01, availability_share=0.99),
    Link("region", "cloud", 20.0, 10.0, 1e9, price_per_gb=0.05),
)


def spread(p50_ms: float, p99_ms: float | None = None) -> Spread:
    return Spread(p50_ms, p50_ms if p99_ms is None else p99_ms)


def model(
    name: str, accuracy: float, row: int | None, ms: float = 1.0, first_place: int = 0
) -> Model:
    latency = {place.name: spread(ms, 2 * ms) for place in PLACES[first_place:]}
    return Model(name, accuracy, 1e6, 1e8, latency, row)


CASE = Case(
    models=(
        model("small", 0.8, 0),
        model("middle", 0.9, 1, 3.0),
        model("large", 0.95, 2, 8.0, first_place=1),
    ),
    places=PLACES,
    links=LINKS,
    load=Load((10.0, 40.0), 3000.0, 200.0, 0.1),
    limits=Limits(100.0, 0.9),
    price_per_kwh=0.25,
)


def answers(
    seed: int = 0, num: int = 400, rights: tuple[float, ...] = (0.82, 0.92, 0.98)
) -> Answers:
    """Harder examples are wrong more often, and scores know it, more or less."""
    draw = np.random.default_rng(seed)
    hard = draw.random(num)
    correct = np.asarray([hard + draw.normal(0, 0.05, num) < right for right in rights])
    score = np.asarray([1 - hard + draw.normal(0, 0.2, num) for _ in rights])
    return Answers(score, correct)


@st.composite
def small_cases(draw: st.DrawFn) -> tuple[Case, Answers]:
    """Few models, places and examples; nothing waits, and no latency varies."""
    num_models = draw(st.sampled_from((1, 2, 2, 3, 3)))
    kinds = draw(st.lists(st.sampled_from(list(Kind)), min_size=0, max_size=2, unique=True))
    kinds = sorted({*kinds, draw(st.sampled_from((Kind.DEVICE, Kind.DEVICE, Kind.REGION)))})
    prices = st.floats(0, 10)
    places = [
        Place(
            f"p{kind.height}", kind, 1, draw(prices), 10.0, 1,
            max_machines=1,
        )
        for kind in sorted(kinds, key=lambda one: one.height)
    ]  # fmt: skip
    models = [
        Model(
            f"m{number}", 0.5, 10.0, draw(st.sampled_from((5.0,) * 8 + (20.0,))),
            {place.name: spread(draw(st.integers(1, 20))) for place in places
             if draw(st.integers(0, 8))},
            number,
        )
        for number in range(num_models)
    ]  # fmt: skip
    links = [
        Link(one.name, other.name, draw(st.integers(1, 50)), price_per_gb=draw(prices) * 1e3)
        for one, other in itertools.pairwise(places)
    ]
    num = 8
    # Mostly right, so that a chain is often worth its price.
    bit = st.sampled_from((True, True, True, False))
    bits = st.lists(bit, min_size=num, max_size=num)
    scores = st.permutations([number / num for number in range(num)])
    found = Answers(
        np.asarray([draw(scores) for _ in models], np.float64),
        np.asarray([draw(bits) for _ in models]),
    )
    residency: Residency = draw(st.sampled_from((*RESIDENCIES, *("cloud",) * 5)))
    limits = Limits(
        budget_ms=draw(st.sampled_from((10, 40, 300, 300))) + 0.5,
        min_accuracy=draw(st.sampled_from((0.0, 0.5, 0.625, 0.75, 0.875))),
        residency=residency,
        max_leaving_share=draw(st.sampled_from((0, 4, 6, 6, 7, num))) / num,
        max_cost_per_million=draw(st.sampled_from((math.inf, math.inf, 5e9))),
        min_served_share=draw(st.sampled_from((0.0, 0.0, 1.0))),
    )
    load = Load((1e-6,), 1e5, 0.0)
    return Case(tuple(models), tuple(places), tuple(links), load, limits), found


def brute_force(case: Case, found: Answers) -> float | None:
    """The least cost per million of ``small_cases``, by trying each rule on each example."""
    best: float | None = None
    for count in range(1, len(case.models) + 1):
        for models in itertools.combinations(range(len(case.models)), count):
            for places in itertools.combinations(range(len(case.places)), count):
                cost = _cheapest(case, found, models, places)
                if cost is not None and (best is None or cost < best):
                    best = cost
    return best


def _cheapest(
    case: Case, found: Answers, models: tuple[int, ...], places: tuple[int, ...]
) -> float | None:
    chain = [(case.models[model], case.places[place]) for model, place in
             zip(models, places, strict=True)]  # fmt: skip
    start = places[0] if case.places[0].kind is Kind.DEVICE else None
    limits = case.limits
    if start is None or any(
        place.name not in model.latency or model.memory_bytes > place.memory_bytes
        for model, place in chain
    ):
        return None
    kinds = [RESIDENCIES.index(place.kind.residency) for _, place in chain]
    if max(kinds) > RESIDENCIES.index(limits.residency):
        return None
    if limits.min_served_share > 0 and start > 0:
        return None
    num = found.correct.shape[1]
    best: float | None = None
    rules = [[*sorted(found.score[model]), math.inf] for model in models[:-1]]
    for accept_at in itertools.product(*rules):
        right = leaving = late = 0
        bytes_paid = 0.0
        for example in range(num):
            elapsed_ms, answer_is_right = 0.0, False
            for position, (model, place) in enumerate(chain):
                first = places[position - 1] if position else 0
                hops = case.links[first : places[position]]
                elapsed_ms += math.fsum(link.rtt_ms for link in hops)
                carried = case.load.request_bytes * 8 / 1e9 * 1000
                elapsed_ms += carried * len(hops) + model.latency[place.name].p50_ms
                bytes_paid += math.fsum(link.price_per_gb for link in hops)
                leaving += (
                    places[position] > 0 and (position == 0 or places[0] == 0) and (position <= 1)
                )
                if elapsed_ms <= limits.budget_ms:
                    answer_is_right = bool(found.correct[models[position], example])
                if position == len(chain) - 1 or (
                    found.score[models[position], example] >= accept_at[position]
                ):
                    late += elapsed_ms > limits.budget_ms
                    break
            right += answer_is_right
        machines = math.fsum(place.price_per_hour for _, place in chain)
        mean = case.load.mean_per_s
        cost = machines * 1e6 / (mean * 3600) + bytes_paid / num * case.load.request_bytes * 1e-3
        if (
            right / num >= limits.min_accuracy
            and late / num <= 0.05
            and leaving / num <= limits.max_leaving_share
            and cost <= limits.max_cost_per_million
            and (best is None or cost < best)
        ):
            best = cost
    return best


def log_of(placed: dict[str, Any], folder: Path, *, num: int = 400, slower: float = 1.0) -> None:
    """A decision log of requests as they were predicted, but ``slower`` times as slow."""
    part = placed["recommended"]["parts"][0]["answered_share"]
    quantiles = placed["recommended"]["latency"]
    records = []
    for number in range(num):
        share = (number + 0.5) / num
        ms = next((one["ms"] for one in quantiles if share <= one["share"]), quantiles[-1]["ms"])
        records.append(
            decision(
                f"r{number}",
                wall_s=1000.0 + number / placed["mean_requests_per_s"],
                answered_by=placed["tiers"][0] if share <= part else placed["tiers"][-1],
                latency_ms=ms * slower,
            )
        )
    write_log(folder, *records)
