"""What a fitted gear says about one request: a look-up in its table, priced by the link of now.

The rule is that of the fit: ask where ``chance * gain - penalty * cost`` is highest and above 0,
else answer. The table's gain already holds the chance that the fit saw, so only what the link is
worse than that lowers it. What is not finite is never confident: it takes the dearest choice.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from runtime.policy import Choice, DecisionTable, Gear

# A link estimate is noisy, and the price was certified for answers that come back: while a reply is
# more likely than not, as the fit saw it, it prices nothing. Anything stricter loses accuracy where
# the link is only slow (benchmarks/deadline.py).
CHANCE_TOLERANCE = 0.5


@dataclass(frozen=True, slots=True)
class Advice:
    """The best choice, None to answer now, with its numbers (0 when answering now).

    ``fitted`` is the choice of the fit; ``as_fitted`` is False when the link or a tier out of reach
    made it another one. ``row`` and ``cell`` are where in the table it was found.
    """

    choice: Choice | None
    fitted: Choice | None
    gain: float
    cost: float
    value: float
    as_fitted: bool
    row: int
    cell: int


def row_of(table: DecisionTable, label: int | None, earlier: Sequence[int | None]) -> int:
    """The row of an answer; ``earlier`` are the labels of the tiers below, lowest first."""
    if label is None or not 0 <= label < len(table.rows):
        return len(table.edges) - 1
    pattern = 0
    for position, other in enumerate(earlier):
        if other == label:
            pattern |= 1 << position
    return table.rows[label] * table.num_patterns + pattern


def weigh(
    gear: Gear,
    table: DecisionTable,
    *,
    label: int | None,
    score: float,
    earlier: Sequence[int | None] = (),
    chance: float = 1.0,
    out_of_reach: AbstractSet[str] = frozenset(),
) -> Advice:
    """The best thing to do with one answer.

    Args:
        gear: whose penalty prices the cost.
        table: of the gear, for the tiers that have answered.
        label: the chosen label; None for a batch.
        score: of the kind that the table names; what is not finite counts as least sure.
        earlier: the labels of the tiers below, lowest first.
        chance: of a reply from above in time, as the link is now.
        out_of_reach: tiers that must not be asked.
    """
    row = row_of(table, label, earlier)
    cell = 0 if not math.isfinite(score) else bisect_right(table.edges[row], score)
    fitted: Choice | None = None
    best: Choice | None = None
    fitted_value = best_value = best_gain = best_cost = 0.0
    for choice in table.choices:
        gain, cost = choice.gain[row][cell], choice.cost[row][cell]
        value = gain - gear.penalty * cost
        if value > fitted_value:
            fitted, fitted_value = choice, value
        if choice.to:
            if not out_of_reach.isdisjoint(choice.to):
                continue
            # A chance that is NaN makes the value NaN, which is never the best.
            if not chance >= CHANCE_TOLERANCE * choice.chance:
                gain *= chance / choice.chance if choice.chance else math.nan
                value = gain - gear.penalty * cost
        if value > best_value:
            best, best_value, best_gain, best_cost = choice, value, gain, cost
    return Advice(best, fitted, best_gain, best_cost, best_value, best is fitted, row, cell)
