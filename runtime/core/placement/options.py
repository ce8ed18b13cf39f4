"""What every option comes to at every setting: money, accuracy, latency, limits that it misses.

No cost depends on a limit, and every limit is a filter.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from runtime.core.placement.case import RESIDENCIES, Case, Kind, Link
from runtime.core.placement.chains import Option, Stop, options, way_down
from runtime.core.placement.curves import Answers, Curve, Floats, curve_of, estimated_curve
from runtime.core.placement.travel import Sampler, mean_service_ms, paths, utilization_at_most

# So much of the answers may be late: the budget is for 95 of 100.
LATE_SHARE = 0.05
MILLION = 1e6
_GB = 1e9
_HOUR_S = 3600.0
_DAY_S = 86400.0
_BITS = 8


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an option comes to at each of P settings; arrays are (P,) unless said otherwise.

    Money is per million requests. ``machines`` is (P, K), ``samples`` (K, n) latencies of the
    answers at each stop, ``served`` and ``left_accuracy`` (P, L) the share that is answered while a
    link is down and how many of those rightly; ``missed`` the limits that each setting violates.
    """

    option: Option
    curve: Curve
    compute: Floats
    transfer: Floats
    power: Floats
    accuracy: Floats
    late: Floats
    machines: Floats
    samples: Floats
    served: Floats
    left_accuracy: Floats
    missed: dict[str, np.ndarray[tuple[int], np.dtype[np.bool_]]]

    @property
    def cost(self) -> Floats:
        """Per million requests."""
        total: Floats = self.compute + self.transfer + self.power
        return total

    @property
    def is_possible(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Which settings keep every limit."""
        bad = np.zeros(self.curve.num, np.bool_)
        for one in self.missed.values():
            bad |= one
        return ~bad

    @property
    def links(self) -> tuple[Link, ...]:
        """All on the way from the device to the last stop."""
        return tuple(itertools.chain.from_iterable(stop.path for stop in self.option))


class Evaluator:
    """Evaluates options; curves of models and draws are made once and serve every case."""

    def __init__(self, answers: Answers | None = None, seed: int = 0) -> None:
        self._answers, self._sampler = answers, Sampler(seed)
        self._curves: dict[tuple[object, ...], Curve] = {}

    def curve(self, option: Option) -> Curve:
        """What the chain of models can do, wherever it stands."""
        models = [stop.model for stop in option]
        rows = [model.row for model in models if model.row is not None]
        if self._answers is not None and len(rows) == len(models):
            key: tuple[object, ...] = ("rows", *rows)
            if key not in self._curves:
                self._curves[key] = curve_of(self._answers, rows)
            return self._curves[key]
        key = ("accuracies", *(model.accuracy for model in models))
        if key not in self._curves:
            self._curves[key] = estimated_curve([model.accuracy for model in models])
        return self._curves[key]

    def outcome(self, case: Case, option: Option) -> Outcome:
        """What one option comes to."""
        curve = self.curve(option)
        machines = _machines(case, option, curve)
        samples = self._samples(case, option)
        late_at = (samples > case.limits.budget_ms).mean(axis=1)
        answered = answered_shares(curve)
        late = answered @ late_at
        # A late answer is not waited for; the one below stands, if there is one.
        below = np.column_stack([np.zeros(curve.num), curve.cut[:, :-1]])
        loses = np.maximum(0.0, curve.accuracy[:, None] - below)
        # Never less at a lower stop, so that no wider budget is ever worth less.
        loses = np.maximum.accumulate(loses[:, ::-1], axis=1)[:, ::-1]
        newly_late = np.diff(late_at, prepend=0.0).clip(0.0)
        accuracy = np.maximum(0.0, curve.accuracy - loses @ newly_late)
        served, left = _without_links(option, curve)
        compute = machines @ np.asarray([stop.place.price_per_hour for stop in option])
        per_million = MILLION / (case.load.mean_per_s * _HOUR_S)
        outcome = Outcome(
            option=option,
            curve=curve,
            compute=compute * per_million,
            transfer=_transfer(case, option, curve, machines),
            power=_power(case, option, curve, machines),
            accuracy=accuracy,
            late=late,
            machines=machines,
            samples=samples,
            served=served,
            left_accuracy=left,
            missed={},
        )
        outcome.missed.update(_missed(case, outcome))
        return outcome

    def outcomes(self, case: Case) -> Iterator[Outcome]:
        """What every option comes to."""
        for option in options(case):
            yield self.outcome(case, option)

    def _samples(self, case: Case, option: Option) -> Floats:
        found: list[Floats] = []
        for stop in option:
            spread = stop.model.latency[stop.place.name]
            mean_ms = mean_service_ms(spread)
            name = f"{stop.model.name}@{stop.place.name}"
            here = self._sampler.spread_ms(name, spread) + self._sampler.wait_ms(
                name, mean_ms, utilization_at_most(case, stop.place, mean_ms)
            )
            for link in stop.path:
                here = here + self._sampler.link_ms(link, case.load)
            found.append(here + found[-1] if found else here)
        return np.asarray(found)


def answered_shares(curve: Curve) -> Floats:
    """(P, K) share of requests that each stop answers."""
    above = np.column_stack([curve.reach[:, 1:], np.zeros(curve.num)])
    shares: Floats = curve.reach - above
    return shares


def _service_s(stop: Stop) -> float:
    return mean_service_ms(stop.model.latency[stop.place.name]) / 1000.0


def _machines(case: Case, option: Option, curve: Curve) -> Floats:
    """(P, K) machines of all groups together, for the busiest hour."""
    columns = []
    for position, stop in enumerate(option):
        a_group = case.load.peak_per_s / stop.place.num_groups * curve.reach[:, position]
        room = stop.place.num_workers * case.max_utilization / _service_s(stop)
        each = np.maximum(1.0, np.ceil(a_group / room - 1e-9))
        columns.append(each * stop.place.num_groups)
    return np.column_stack(columns)


def _transfer(case: Case, option: Option, curve: Curve, machines: Floats) -> Floats:
    """Of requests and replies on their way, and of new versions to every machine."""
    load, ways = case.load, paths(case)
    per_request = np.zeros(curve.num)
    per_day = np.zeros(curve.num)
    for position, stop in enumerate(option):
        price = math.fsum(link.price_per_gb for link in stop.path) / _GB
        per_request += curve.reach[:, position] * price * (load.request_bytes + load.reply_bytes)
        down = math.fsum(link.price_per_gb for link in way_down(case, ways, stop.place)) / _GB
        per_day += machines[:, position] * load.updates_per_day * stop.model.size_bytes * down
    total: Floats = MILLION * (per_request + per_day / (load.mean_per_s * _DAY_S))
    return total


def _power(case: Case, option: Option, curve: Curve, machines: Floats) -> Floats:
    """Idle power of all machines all day, and what work draws above it."""
    per_request_j = np.zeros(curve.num)
    for position, stop in enumerate(option):
        place = stop.place
        above_w = max(0.0, place.busy_w - place.idle_w)
        per_request_j += curve.reach[:, position] * _service_s(stop) * above_w / place.num_workers
        per_request_j += machines[:, position] * place.idle_w / case.load.mean_per_s
    total: Floats = MILLION * per_request_j / (1000.0 * _HOUR_S) * case.price_per_kwh
    return total


def _without_links(option: Option, curve: Curve) -> tuple[Floats, Floats]:
    """(P, L): with each link down, the share that is answered, and how many of those rightly."""
    served, left = [], []
    for position, stop in enumerate(option):
        for _link in stop.path:
            # Who has answered by then answers all; before the first stop nobody has.
            served.append(np.full(curve.num, float(position > 0)))
            left.append(curve.cut[:, position - 1] if position else np.zeros(curve.num))
    shape = (curve.num, 0)
    if not served:
        return np.zeros(shape), np.zeros(shape)
    return np.column_stack(served), np.column_stack(left)


def update_s(case: Case, outcome: Outcome) -> Floats:
    """(P,) how long a new version travels until every machine has it."""
    ways, slowest = paths(case), np.zeros(outcome.curve.num)
    for position, stop in enumerate(outcome.option):
        way = way_down(case, ways, stop.place)
        if way:
            bits = stop.model.size_bytes * _BITS
            a_group = outcome.machines[:, position] / stop.place.num_groups
            takes = a_group * bits / min(link.bandwidth_bps for link in way)
            slowest = np.maximum(slowest, takes)
    return slowest


def _missed(case: Case, outcome: Outcome) -> dict[str, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """Which settings violate which limit."""
    limits, num = case.limits, outcome.curve.num
    highest = max(
        [RESIDENCIES.index(stop.place.kind.residency) for stop in outcome.option], default=0
    )
    # Payloads pass through the places on the way, too.
    leaves = outcome.curve.reach[:, 1] if len(outcome.option) > 1 else np.zeros(num)
    if outcome.option[0].place.kind is not Kind.DEVICE:
        leaves = np.ones(num)
    missed = {
        "min-accuracy": outcome.accuracy < limits.min_accuracy - 1e-12,
        "budget-ms": outcome.late > LATE_SHARE + 1e-12,
        "residency": np.full(num, highest > RESIDENCIES.index(limits.residency)),
        "max-leaving-share": leaves > limits.max_leaving_share + 1e-12,
        "max-update-s": update_s(case, outcome) > limits.max_update_s,
        "max-cost-per-million": outcome.cost > limits.max_cost_per_million,
        "min-served-share": outcome.served.min(axis=1, initial=1.0) < limits.min_served_share,
    }
    for position, stop in enumerate(outcome.option):
        place = stop.place
        a_group = outcome.machines[:, position] / place.num_groups
        missed[f"max-machines {place.name}"] = a_group > place.max_machines + 1e-9
        too_large = bool(place.memory_bytes) and stop.model.memory_bytes > place.memory_bytes
        missed[f"memory-bytes {place.name}"] = np.full(num, too_large)
    return missed
