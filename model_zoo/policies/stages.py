"""A data set as policies see it: who is right, what it costs, and when answers are back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_zoo.policies.averaging import Answers, Weights, averaged_answers, beliefs_of
from model_zoo.policies.placements import Stop
from model_zoo.policies.predictions import Predictions
from model_zoo.policies.tables import Floats, Grid, Ints

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Timing:
    """Round trips of every example: ``hop_ms`` (k, n) from the tier below, infinite when lost.

    ``budget_ms`` includes everything; ``service_ms`` (k, n) is each tier's own work.
    """

    hop_ms: Floats
    service_ms: Floats
    budget_ms: float

    def take(self, chosen: Ints) -> Timing:
        """The same for some of the examples."""
        return Timing(self.hop_ms[:, chosen], self.service_ms[:, chosen], self.budget_ms)

    def elapsed_ms(self, stop: Stop) -> Floats:
        """(n,) when the last tier of a stop has answered."""
        reach = self.hop_ms[1 : stop[-1] + 1].sum(axis=0)
        total: Floats = reach + self.service_ms[list(stop)].sum(axis=0)
        return total

    def in_time(self, stop: Stop) -> Bools:
        """(n,) whether the answer of a stop's last tier is back within the budget."""
        return self.elapsed_ms(stop) <= self.budget_ms


@dataclass(frozen=True, slots=True)
class Journeys:
    """Where each of n examples ended: right or not, what was paid, whose answer, late or not.

    ``dearest`` is the most that any journey can cost, seen or not: every tier asked once.
    """

    correct: Floats
    cost: Floats
    answered_by: Ints
    late: Bools
    dearest: float = math.inf

    def take(self, chosen: Ints) -> Journeys:
        """The same for some of the examples."""
        return Journeys(
            self.correct[chosen],
            self.cost[chosen],
            self.answered_by[chosen],
            self.late[chosen],
            self.dearest,
        )

    @classmethod
    def empty(cls, num: int) -> Journeys:
        """Room for n examples."""
        return cls(np.zeros(num), np.zeros(num), np.zeros(num, np.int64), np.zeros(num, np.bool_))

    def put(self, chosen: Ints | Bools, journeys: Journeys) -> None:
        """Fills in some of the examples."""
        self.correct[chosen], self.cost[chosen] = journeys.correct, journeys.cost
        self.answered_by[chosen], self.late[chosen] = journeys.answered_by, journeys.late


class Stage:
    """One data set with what does not change from penalty to penalty.

    ``timing`` is None when time plays no part. At the stops of ``weights`` tiers answer on an
    average; ``correct`` (k, n) is always of their own answers.
    """

    def __init__(
        self,
        predictions: Predictions,
        timing: Timing | None = None,
        weights: Weights | None = None,
    ) -> None:
        self.predictions, self.timing = predictions, timing
        self._weights: Weights = weights or {}
        self.correct: Floats = predictions.correct.astype(np.float64)
        self.price = predictions.relative_price
        self.num = predictions.num_examples
        self._always: Bools = np.ones(self.num, np.bool_)
        self._in_time: dict[Stop, Bools] = {}
        self._cells: dict[tuple[Stop, Grid], Ints] = {}
        self._answers: dict[Stop, Answers] = {}
        self._averaging: dict[tuple[tuple[Stop, tuple[float, ...]], ...], Stage] = {}

    def take(self, chosen: Ints) -> Stage:
        """The same for some of the examples."""
        timing = None if self.timing is None else self.timing.take(chosen)
        return Stage(self.predictions.take(chosen), timing)

    def averaging(self, weights: Weights) -> Stage:
        """The same where tiers average; remembered, as many configurations share weights.

        Raises:
            PolicyError: the data set has no beliefs.
        """
        if not weights:
            return self
        key = tuple(sorted(weights.items()))
        if key not in self._averaging:
            beliefs_of(self.predictions)
            self._averaging[key] = Stage(self.predictions, self.timing, weights)
        return self._averaging[key]

    def answers(self, stop: Stop) -> Answers:
        """What the last tier of a stop answers there."""
        if stop not in self._answers:
            tier, known = stop[-1], self.predictions
            self._answers[stop] = (
                averaged_answers(known, stop, self._weights[stop])
                if stop in self._weights
                else Answers(known.predicted[tier], known.score[tier], self.correct[tier])
            )
        return self._answers[stop]

    def in_time(self, stop: Stop) -> Bools:
        """(n,) whether the last answer of a stop is back in time."""
        if self.timing is None:
            return self._always
        if stop not in self._in_time:
            self._in_time[stop] = self.timing.in_time(stop)
        return self._in_time[stop]

    def pattern_rows(self, stop: Stop, rows: Ints) -> Ints:
        """(n,) row of each example: its label's, and which tiers below agree."""
        own = self.answers(stop).predicted
        pattern = np.zeros(self.num, np.int64)
        for position in range(len(stop) - 1):
            below = self.answers(stop[: position + 1]).predicted
            pattern |= (below == own).astype(np.int64) << position
        found: Ints = rows[own] * (1 << (len(stop) - 1)) + pattern
        return found

    def cells(self, stop: Stop, label_rows: Ints, grid: Grid) -> Ints:
        """(n,) flat cell of each example in a stop's grid; remembered, as penalties share grids."""
        key = (stop, grid)
        if key not in self._cells:
            rows = self.pattern_rows(stop, label_rows)
            self._cells[key] = grid.cells(rows, self.answers(stop).score)
        return self._cells[key]

    def stays(self, stop: Stop) -> Journeys:
        """The answer of a stop's last tier, whatever it is."""
        return Journeys(
            self.answers(stop).correct.copy(),
            np.zeros(self.num),
            np.full(self.num, stop[-1], np.int64),
            np.zeros(self.num, np.bool_),
            float(self.price.sum()),
        )

    def asks(self, stop: Stop, to: tuple[int, ...], after: dict[Stop, Journeys]) -> Journeys:
        """What comes of asking; too late, the answer at the stop stands, and asking is paid."""
        result = self.stays(stop)
        result.late[:] = True
        result.cost[:] = self.price[list(to)].sum()
        for tier in to:
            reached = (*stop, tier)
            back = self.in_time(reached)
            ends = after[reached] if reached in after and len(to) == 1 else self.stays(reached)
            result.correct[back] = ends.correct[back]
            result.answered_by[back] = ends.answered_by[back]
            result.late[back] = ends.late[back] if len(to) == 1 else tier != to[-1]
            if len(to) == 1:
                result.cost[back] += ends.cost[back]
        return result


def straight_to_the_top(stage: Stage) -> Journeys:
    """What asking the top tier always, and nobody else, comes to."""
    top = len(stage.price) - 1
    result = stage.stays((top,))
    result.cost[:] = 1.0
    if stage.timing is not None:
        reach = stage.timing.hop_ms[1:].sum(axis=0) + stage.timing.service_ms[top]
        result.late[:] = reach > stage.timing.budget_ms
        result.correct[result.late] = 0.0
    return result
