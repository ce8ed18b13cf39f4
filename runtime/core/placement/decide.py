"""The recommendation: the cheapest setting of all that keep every limit, and what else there is.

Of equal costs the more accurate one is taken, then the quicker one, then by description, so that
the same case always has the same answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from runtime.core.placement.case import Case
from runtime.core.placement.chains import describe, options
from runtime.core.placement.curves import Floats
from runtime.core.placement.options import (
    LATE_SHARE,
    Evaluator,
    Outcome,
    answered_shares,
)
from runtime.core.placement.travel import quantile_ms

QUANTILES = (0.5, 0.95, 0.99)
# What costs this little less (per million) is not cheaper: sums of floats differ by their order.
_SAME = 1e-9


@dataclass(frozen=True, slots=True)
class Quantile:
    """A latency in ms with its 95 % interval of simulation."""

    share: float
    ms: float
    low_ms: float
    high_ms: float


@dataclass(frozen=True, slots=True)
class Part:
    """One stop of a placement; ``accept_at`` is None for the last stop and in estimates."""

    model: str
    place: str
    kind: str
    reached_share: float
    answered_share: float
    machines: int
    accept_at: float | None


@dataclass(frozen=True, slots=True)
class Cut:
    """What is left while a link is down: share answered, and how many of those rightly."""

    link: str
    served_share: float
    accuracy: float
    availability_share: float


@dataclass(frozen=True, slots=True)
class Placed:
    """One setting of one option in plain figures; money is per million requests.

    ``accuracy`` has late answers replaced by those below, ``accuracy_if_in_time`` has not.
    """

    name: str
    parts: tuple[Part, ...]
    cost: float
    compute: float
    transfer: float
    power: float
    accuracy: float
    accuracy_if_in_time: float
    late_share: float
    latency: tuple[Quantile, ...]
    cuts: tuple[Cut, ...]
    is_estimate: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """A setting of an option."""

    outcome: Outcome
    point: int

    @property
    def cost(self) -> float:
        """Per million requests."""
        return float(self.outcome.cost[self.point])

    @property
    def name(self) -> str:
        """Which models are where."""
        return describe(self.outcome.option)

    def placed(self) -> Placed:
        """All figures."""
        outcome, point = self.outcome, self.point
        curve = outcome.curve
        answered = answered_shares(curve)[point]
        last = len(outcome.option) - 1
        return Placed(
            name=self.name,
            parts=tuple(
                Part(
                    model=stop.model.name,
                    place=stop.place.name,
                    kind=stop.place.kind.value,
                    reached_share=float(curve.reach[point, at]),
                    answered_share=float(answered[at]),
                    machines=round(outcome.machines[point, at]),
                    accept_at=None
                    if at == last or curve.is_estimate
                    else float(curve.accept_at[point, at]),
                )
                for at, stop in enumerate(outcome.option)
            ),
            cost=self.cost,
            compute=float(outcome.compute[point]),
            transfer=float(outcome.transfer[point]),
            power=float(outcome.power[point]),
            accuracy=float(outcome.accuracy[point]),
            accuracy_if_in_time=float(curve.accuracy[point]),
            late_share=float(outcome.late[point]),
            latency=tuple(
                Quantile(share, *quantile_ms(outcome.samples, answered, share))
                for share in QUANTILES
            ),
            cuts=tuple(
                Cut(
                    link.name,
                    float(outcome.served[point, at]),
                    float(outcome.left_accuracy[point, at]),
                    link.availability_share,
                )
                for at, link in enumerate(outcome.links)
            ),
            is_estimate=curve.is_estimate,
        )


def cheapest(outcome: Outcome) -> Choice | None:
    """The cheapest setting of an option that keeps every limit; None where none does."""
    possible = np.flatnonzero(outcome.is_possible)
    if not len(possible):
        return None
    order = np.lexsort((outcome.late[possible], -outcome.accuracy[possible],
                        np.round(outcome.cost[possible] / _SAME)))  # fmt: skip
    return Choice(outcome, int(possible[order[0]]))


def recommend(evaluator: Evaluator, case: Case) -> Choice | None:
    """The cheapest setting of all options that keeps every limit; None where there is none."""
    best: Choice | None = None
    for outcome in evaluator.outcomes(case):
        found = cheapest(outcome)
        if found is not None and (best is None or _rank(found) < _rank(best)):
            best = found
    return best


def _rank(choice: Choice) -> tuple[float, float, float, str]:
    outcome, point = choice.outcome, choice.point
    cost = round(choice.cost / _SAME)
    return cost, -float(outcome.accuracy[point]), float(outcome.late[point]), choice.name


def front(
    evaluator: Evaluator, case: Case, progress: Callable[[int, int], None] = lambda _d, _a: None
) -> list[Choice]:
    """The Pareto front of cost, p95 latency and accuracy over all possible settings.

    Cheapest first. No other possible setting is at least as good in all three and better in one.
    """
    choices: list[Choice] = []
    figures: list[tuple[float, float, float]] = []
    every = list(options(case))
    for number, option in enumerate(every):
        progress(number, len(every))
        outcome = evaluator.outcome(case, option)
        possible = np.flatnonzero(outcome.is_possible)
        if not len(possible):
            continue
        p95 = p95_ms(outcome)[possible]
        choices += [Choice(outcome, int(point)) for point in possible]
        figures += zip(
            outcome.cost[possible].tolist(),
            p95.tolist(),
            (-outcome.accuracy[possible]).tolist(),
            strict=True,
        )
    table = np.asarray(figures).reshape(len(figures), 3)
    kept: list[int] = []
    # In this order nothing that comes later beats what came before.
    for index in np.lexsort((table[:, 2], table[:, 1], table[:, 0])).tolist():
        if not (table[kept] <= table[index]).all(axis=1).any():
            kept.append(index)
    return [choices[index] for index in kept]


def one_of_each(found: list[Choice]) -> list[Choice]:
    """The cheapest setting of each placement on a front."""
    by_name: dict[str, Choice] = {}
    for choice in found:
        by_name.setdefault(choice.name, choice)
    return list(by_name.values())


def p95_ms(outcome: Outcome) -> Floats:
    """(P,) the latency that all but ``LATE_SHARE`` keep, of every setting."""
    answered = answered_shares(outcome.curve)
    num = outcome.samples.shape[1]
    flat = outcome.samples.ravel()
    order = np.argsort(flat, kind="stable")
    stops = np.repeat(np.arange(len(outcome.samples)), num)[order]
    found = np.empty(outcome.curve.num)
    for point, shares in enumerate(answered):
        total = np.cumsum(shares[stops] / num)
        at = np.searchsorted(total, (1 - LATE_SHARE) * total[-1] - 1e-12)
        found[point] = flat[order[min(int(at), len(flat) - 1)]]
    return found
