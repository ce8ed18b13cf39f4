"""What becomes of every example under a placement and a penalty, by backward induction.

A *stop* is the tiers that have answered so far, the last one deciding. At each stop a tier may
answer, give the answer of a tier below, ask one tier above, or ask two at once. What an action is
worth is learned from the examples: the chance of a right final answer and the cost from there on,
given the stop's label, score and agreements. The last stops come first, so that asking the next
tier is worth what that tier will then do.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from model_zoo.policies.averaging import Weights, learned_weights
from model_zoo.policies.placements import Placement, Stop
from model_zoo.policies.stages import Journeys, Stage
from model_zoo.policies.tables import Floats, Grid, Ints, Placed, label_rows
from runtime.averages import Average
from runtime.errors import PolicyError
from runtime.policy import Choice, DecisionTable, Gear


@dataclass(frozen=True, slots=True)
class _FittedChoice:
    to: tuple[int, ...]
    answer: int | None
    gain: Floats
    cost: Floats
    chance: float


@dataclass(frozen=True, slots=True)
class _FittedStop:
    rows: Ints
    grid: Grid
    choices: tuple[_FittedChoice, ...]


class Learner:
    """Fits one placement on one data set, for any penalty."""

    def __init__(self, stage: Stage, placement: Placement) -> None:
        self.weights: Weights = {
            stop: learned_weights(stage.predictions, stop) for stop in placement.averaging_stops()
        }
        self.stage, self.placement = stage.averaging(self.weights), placement
        self._placed: dict[Stop, tuple[Ints, Placed]] = {}
        self._fixed: dict[tuple[Stop, tuple[int, ...], int | None], _FittedChoice] = {}
        num_labels = len(stage.predictions.label_names)
        for stop in placement.stops():
            answers = self.stage.answers(stop)
            rows = label_rows(answers.predicted, num_labels)
            of_examples = self.stage.pattern_rows(stop, rows)
            scores = answers.score
            num_rows = (int(rows.max()) + 1) * (1 << (len(stop) - 1))
            grid = Grid.fit(of_examples, scores, num_rows)
            self._placed[stop] = rows, Placed.of(grid, of_examples, scores)

    def fit(self, penalty: float) -> Itinerary:
        """The best thing to do at every stop when a unit of cost must win ``penalty``."""
        after: dict[Stop, Journeys] = {}
        fitted: dict[Stop, _FittedStop] = {}
        for stop in self.placement.stops():
            rows, placed = self._placed[stop]
            choices = [
                self._choice(stop, to, None, after) for to in self.placement.targets(stop)
            ] + [self._choice(stop, (), tier, after) for tier in stop[:-1]]
            fitted[stop] = _FittedStop(rows, placed.grid, tuple(choices))
            after[stop] = _decide(
                self.stage, stop, fitted[stop], placed.cells, penalty=penalty, after=after
            )
        return Itinerary(self.placement, penalty, fitted, self.weights)

    def chance_right(self, held: Stage, tier: int) -> Floats:
        """(n,) chance that a tier's own answer is right, for the examples of another data set."""
        rows, placed = self._placed[(tier,)]
        chance = -placed.expectation(-self.stage.correct[tier], falls=True)
        cells = placed.grid.cells(held.pattern_rows((tier,), rows), held.predictions.score[tier])
        right: Floats = np.clip(chance, 0, 1)[cells]
        return right

    def _choice(
        self, stop: Stop, to: tuple[int, ...], answer: int | None, after: dict[Stop, Journeys]
    ) -> _FittedChoice:
        leads_on = len(to) == 1 and (*stop, *to) in self._placed
        key = (stop, to, answer)
        if not leads_on and key in self._fixed:
            return self._fixed[key]
        placed = self._placed[stop][1]
        ends = self.stage.asks(stop, to, after) if to else self.stage.stays(_given(stop, answer))
        gain = ends.correct - self.stage.answers(stop).correct
        paid = ends.cost
        is_constant = not leads_on and bool(np.ptp(paid) == 0)
        choice = _FittedChoice(
            to=to,
            answer=answer,
            gain=placed.expectation(gain, falls=True),
            cost=(
                np.full(placed.grid.num_cells, float(paid[0]))
                if is_constant
                else placed.expectation(paid, falls=False)
            ),
            chance=float(1 - ends.late.mean()),
        )
        if not leads_on:
            self._fixed[key] = choice
        return choice


def _given(stop: Stop, answer: int | None) -> Stop:
    """The earlier stop whose answer is given."""
    if answer is None:
        raise ValueError("a choice asks or gives an answer")
    return stop[: stop.index(answer) + 1]


def _decide(
    stage: Stage,
    stop: Stop,
    fitted: _FittedStop,
    cells: Ints,
    *,
    penalty: float,
    after: dict[Stop, Journeys],
) -> Journeys:
    """Where the examples end that reach a stop, when its table is followed."""
    result = stage.stays(stop)
    if not fitted.choices:
        return result
    values = np.stack([choice.gain - penalty * choice.cost for choice in fitted.choices])
    best, best_value = values.argmax(axis=0), values.max(axis=0)
    chosen = np.where(best_value[cells] > 0, best[cells], -1)
    for position, choice in enumerate(fitted.choices):
        takes = chosen == position
        if takes.any():
            ends = (
                stage.asks(stop, choice.to, after)
                if choice.to
                else stage.stays(_given(stop, choice.answer))
            )
            picked = np.flatnonzero(takes)
            result.put(picked, ends.take(picked))
    return result


@dataclass(frozen=True, slots=True)
class Itinerary:
    """A fitted configuration: follow it on any data set, or write it down as tables.

    ``weights`` are those of the stops that average.
    """

    placement: Placement
    penalty: float
    stops: dict[Stop, _FittedStop]
    weights: Weights = field(default_factory=dict)

    @classmethod
    def of(cls, gear: Gear, tiers: tuple[str, ...], labels: tuple[str, ...]) -> Itinerary:
        """The configuration that a gear's tables hold; ``labels`` are those of the examples.

        Raises:
            PolicyError: the tables are for other tiers or classes.
        """
        stops = {}
        for table in gear.tables:
            if not set(table.tiers) <= set(tiers) or len(table.rows) != len(labels):
                raise PolicyError(
                    f"gear {gear.name} is for {' > '.join(table.tiers)} and {len(table.rows)} "
                    f"classes, the predictions for {' > '.join(tiers)} and {len(labels)}"
                )
            stop = tuple(tiers.index(tier) for tier in table.tiers)
            stops[stop] = _read_table(table, tiers)
        reached = {tier for stop in stops for tier in stop}
        placement = Placement((*sorted(reached), len(tiers) - 1), skips=True, races=True)
        weights = {
            tuple(tiers.index(tier) for tier in agreed.tiers): agreed.weights
            for agreed in gear.averages
        }
        return cls(placement, gear.penalty, stops, weights)

    def follow(self, stage: Stage) -> Journeys:
        """Where the examples of a data set end, with the price of the lowest tier paid by all.

        Raises:
            PolicyError: the configuration averages and the data set has no beliefs.
        """
        stage = stage.averaging(self.weights)
        after: dict[Stop, Journeys] = {}
        for stop in sorted(self.stops, key=lambda stop: -stop[-1]):
            fitted = self.stops[stop]
            cells = stage.cells(stop, fitted.rows, fitted.grid)
            after[stop] = _decide(stage, stop, fitted, cells, penalty=self.penalty, after=after)
        first = after[self.placement.tiers[:1]]
        first.cost[:] += stage.price[self.placement.tiers[0]]
        return first

    def averages(self, names: Sequence[str]) -> tuple[Average, ...]:
        """How much each tier counts where tiers average."""
        return tuple(
            Average(tuple(names[tier] for tier in stop), self.weights[stop])
            for stop in sorted(self.weights, key=lambda stop: (len(stop), stop))
        )

    def tables(self, names: Sequence[str]) -> tuple[DecisionTable, ...]:
        """What tiers look up; choices that are never the best are left out."""
        return tuple(
            _table(stop, self.stops[stop], self.penalty, names)
            for stop in sorted(self.stops, key=lambda stop: (len(stop), stop))
        )


def _table(stop: Stop, fitted: _FittedStop, penalty: float, names: Sequence[str]) -> DecisionTable:
    starts = fitted.grid.starts.tolist()

    def cells(values: Floats) -> tuple[tuple[float, ...], ...]:
        rounded = values.tolist()
        return tuple(tuple(rounded[start:end]) for start, end in itertools.pairwise(starts))

    values = np.stack([choice.gain - penalty * choice.cost for choice in fitted.choices])
    is_used = np.bincount(
        values.argmax(axis=0)[values.max(axis=0) > 0], minlength=len(fitted.choices)
    )
    return DecisionTable(
        tiers=tuple(names[tier] for tier in stop),
        rows=tuple(fitted.rows.tolist()),
        edges=tuple(tuple(edges.tolist()) for edges in fitted.grid.edges),
        choices=tuple(
            Choice(
                gain=cells(choice.gain),
                cost=cells(choice.cost),
                to=tuple(names[tier] for tier in choice.to),
                answer="" if choice.answer is None else names[choice.answer],
                chance=choice.chance,
            )
            for choice, used in zip(fitted.choices, is_used, strict=True)
            if used
        ),
    )


def _read_table(table: DecisionTable, tiers: tuple[str, ...]) -> _FittedStop:
    sizes = [len(edges) + 1 for edges in table.edges]
    grid = Grid(
        tuple(np.asarray(edges) for edges in table.edges),
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
    )
    return _FittedStop(
        rows=np.asarray(table.rows, np.int64),
        grid=grid,
        choices=tuple(
            _FittedChoice(
                to=tuple(tiers.index(tier) for tier in choice.to),
                answer=tiers.index(choice.answer) if choice.answer else None,
                gain=np.concatenate([np.asarray(row) for row in choice.gain]),
                cost=np.concatenate([np.asarray(row) for row in choice.cost]),
                chance=choice.chance,
            )
            for choice in table.choices
        ),
    )
