"""Where a gear's table would have said something else: the nearest scores, and the chance needed.

Found by asking the table itself (``weigh``), once for every bin of the row, so that the answer is
that of the rule and not of a second one beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import product
from typing import Literal

import msgspec

from runtime.core.gears import CHANCE_TOLERANCE, Advice, weigh
from runtime.policy import Choice, DecisionTable, Gear

# The scores that cannot leave 0 to 1; an edge beyond that is never crossed.
_BOUNDED = ("probability", "margin", "entropy", "agreement")
OWN_ANSWER = ""
_CLOSE = 1e-9


class Turn(msgspec.Struct, frozen=True):
    """A score at which the choice becomes another one: ``from`` it on, or ``below`` it.

    ``asks`` are the tiers to ask then, with commas between, ``stands`` the tier whose earlier
    answer would stand; both empty: the tier's own answer.
    """

    score: str
    at: float
    side: Literal["from", "below"]
    asks: str = OWN_ANSWER
    stands: str = OWN_ANSWER

    @property
    def is_own_answer(self) -> bool:
        """Whether the tier would have given its own answer."""
        return not self.asks and not self.stands


@dataclass(frozen=True, slots=True)
class Place:
    """A decision as a table is asked about it."""

    gear: Gear
    table: DecisionTable
    label: int | None
    earlier: tuple[int | None, ...]
    score: float
    chance: float = 1.0
    out_of_reach: AbstractSet[str] = frozenset()

    def advice(self, *, score: float | None = None, chance: float | None = None) -> Advice:
        """What the table says here, or with another score or chance."""
        return weigh(
            self.gear,
            self.table,
            label=self.label,
            score=self.score if score is None else score,
            earlier=self.earlier,
            chance=self.chance if chance is None else chance,
            out_of_reach=self.out_of_reach,
        )


def turns(place: Place) -> tuple[Turn, ...]:
    """The scores at which another choice would have been the best one, nearest first."""
    here = place.advice()
    edges = place.table.edges[here.row]
    score = -math.inf if math.isnan(place.score) else place.score
    found: list[tuple[float, int, Turn]] = []
    for cell in range(len(edges) + 1):
        if cell == here.cell:
            continue
        is_above = cell > here.cell
        at = edges[cell - 1] if is_above else edges[cell]
        choice = place.advice(score=edges[cell - 1] if cell else -math.inf).choice
        if choice is not here.choice and _can_be(place.table.score, at, is_above=is_above):
            turn = _turn(place.table.score, at, choice, is_above=is_above)
            found.append((abs(at - score), abs(cell - here.cell), turn))
    found.sort(key=lambda entry: entry[:2])
    return tuple(turn for _, _, turn in found)


def _can_be(kind: str, at: float, *, is_above: bool) -> bool:
    return kind not in _BOUNDED or (at <= 1 if is_above else at > 0)


def _turn(kind: str, at: float, choice: Choice | None, *, is_above: bool) -> Turn:
    return Turn(
        score=kind,
        at=at,
        side="from" if is_above else "below",
        asks=",".join(choice.to) if choice else "",
        stands=choice.answer if choice else "",
    )


def chance_to_ask(place: Place) -> float | None:
    """The smallest chance of a reply in time with which the table would have asked; None: none."""
    here, penalty = place.advice(), place.gear.penalty
    cells = [
        (choice, choice.gain[here.row][here.cell], choice.cost[here.row][here.cell])
        for choice in place.table.choices
    ]
    # What asking has to beat: the own answer, worth 0, or an earlier one.
    to_beat = max([0.0, *(gain - penalty * cost for one, gain, cost in cells if one.answer)])
    needed: list[float] = []
    for choice, gain, cost in cells:
        if choice.to and gain > 0:
            needed.append((to_beat + penalty * cost) / gain * choice.chance)
            # From there on the gain is that of the fit.
            needed.append(CHANCE_TOLERANCE * choice.chance)
    for chance in sorted(needed):
        # A hair above: where it only just pays, the table still says no.
        best = place.advice(chance=chance * (1 + _CLOSE)).choice
        if place.chance < chance <= 1 and best is not None and best.to:
            return chance
    return None


def places_like(
    gear: Gear,
    table: DecisionTable,
    *,
    score: float,
    chance: float,
    weighed: tuple[float, float] | None,
    out_of_reach: AbstractSet[str] = frozenset(),
    labels: Sequence[int | None] | None = None,
    earlier: tuple[int | None, ...] | None = None,
) -> tuple[Place, ...]:
    """The places in a table where a logged decision may have been made, one for each row.

    A log does not name the row; gain and cost, ``weighed``, tell most rows apart.

    Args:
        gear: that was followed.
        table: of the gear, for the tiers that had answered.
        score: that was looked up.
        chance: of a reply in time, as it was then.
        weighed: the gain and cost of the best choice; None when they cannot be compared.
        out_of_reach: tiers that were not to be asked.
        labels: which the tier may have chosen; None when nothing is known.
        earlier: the labels of the tiers below; None when not known.
    """
    found: dict[int, Place] = {}
    for label, below in _rows(table, labels, earlier):
        place = Place(gear, table, label, below, score, chance, out_of_reach)
        advice = place.advice()
        if weighed is None or _are_close((advice.gain, advice.cost), weighed):
            found.setdefault(advice.row, place)
    return tuple(found.values())


def _rows(
    table: DecisionTable,
    labels: Sequence[int | None] | None,
    earlier: tuple[int | None, ...] | None,
) -> Iterator[tuple[int | None, tuple[int | None, ...]]]:
    num_below = len(table.tiers) - 1
    for label in (*range(len(table.rows)), None) if labels is None else labels:
        if earlier is not None and len(earlier) == num_below:
            yield label, earlier
            continue
        # Only whether they agree matters, and no label is -1.
        yield from ((label, pattern) for pattern in product((label, -1), repeat=num_below))


def _are_close(left: tuple[float, float], right: tuple[float, float]) -> bool:
    pairs = zip(left, right, strict=True)
    return all(math.isclose(one, other, rel_tol=_CLOSE, abs_tol=_CLOSE) for one, other in pairs)
