"""Where things change: the least relaxation that makes a case possible, and break-even values.

Limits are filters, so what is possible at one value is possible at every looser one, and bisection
finds the least relaxation of each limit alone. A recommendation may change back and forth along an
input: a grid of factors finds the change nearest to 1, bisection its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from runtime.core.placement.case import Case
from runtime.core.placement.decide import Choice, recommend
from runtime.core.placement.knobs import Knob, Limit, inputs_of, limits_of
from runtime.core.placement.options import Evaluator

# Relative precision of what bisection finds.
PRECISION = 1e-4
BREAK_EVEN_PRECISION = 1e-3
_SMALLEST = 1e-9
MAX_FACTOR = 10.0
_GRID = 8


@dataclass(frozen=True, slots=True)
class Relaxed:
    """A limit that gives way alone, the least that it must be, and what is recommended then."""

    knob: Limit
    value: float
    choice: Choice


@dataclass(frozen=True, slots=True)
class BreakEven:
    """From ``value`` on (of an input that is ``now``), ``then`` is recommended.

    ``then`` is empty where nothing is possible any more.
    """

    name: str
    now: float
    value: float
    then: str


Progress = Callable[[int, int], None]


def _quiet(_done: int, _all: int) -> None:
    return


def relaxations(evaluator: Evaluator, case: Case, progress: Progress = _quiet) -> list[Relaxed]:
    """For each limit of an impossible case: the least change of it alone that helps."""
    found = []
    knobs = limits_of(case)
    for number, knob in enumerate(knobs):
        progress(number, len(knobs))
        loosest = recommend(evaluator, knob.put(knob.loosest))
        if loosest is not None:
            found.append(_least(evaluator, knob, loosest))
    return found


def because(evaluator: Evaluator, case: Case) -> str:
    """Why nothing is possible: the limit that cannot be kept even by itself, or all together."""
    knobs = limits_of(case)
    loosest = recommend(evaluator, _all_loose(case))
    if loosest is None:
        return (
            "no model can run at a place that requests can reach: add a latency, or a link that "
            "loses less"
        )
    for knob in knobs:
        others_loose = limits_of(_all_loose(case, but=knob.name))
        alone = next(one for one in others_loose if one.name == knob.name)
        if recommend(evaluator, alone.put(alone.value)) is not None:
            continue
        best = _least(evaluator, alone, loosest)
        return (
            f"no placement reaches {knob.name} {knob.told(knob.value)}: the best is "
            f"{knob.told(best.value)} ({best.choice.name})"
        )
    return "each limit can be kept, but not all of them by one placement"


def _all_loose(case: Case, *, but: str = "") -> Case:
    for name in [knob.name for knob in limits_of(case) if knob.name != but]:
        # Each anew: a knob turns the case that it was made from.
        knob = next(one for one in limits_of(case) if one.name == name)
        case = knob.put(knob.loosest)
    return case


def _least(evaluator: Evaluator, knob: Limit, loosest: Choice) -> Relaxed:
    """The value nearest to the present one that makes the case possible, as ``loosest`` is."""
    choice = loosest
    bad, good = knob.value, knob.loosest
    while not _is_close(bad, good, is_whole=knob.is_whole):
        middle = _between(bad, good)
        middle = round(middle) if knob.is_whole else middle
        found = recommend(evaluator, knob.put(middle))
        if found is None:
            bad = middle
        else:
            good, choice = middle, found
    return Relaxed(knob, good, choice)


def _is_close(one: float, other: float, *, is_whole: bool) -> bool:
    apart = abs(one - other)
    if is_whole:
        return apart <= 1
    return apart <= max(_SMALLEST, PRECISION * max(abs(one), abs(other)))


def _between(one: float, other: float) -> float:
    """By ratio where they are far apart."""
    far = 4.0
    if min(one, other) > 0 and max(one, other) > far * min(one, other):
        return math.sqrt(one * other)
    return (one + other) / 2


def sensitivity(
    evaluator: Evaluator, case: Case, choice: Choice, progress: Progress = _quiet
) -> list[BreakEven]:
    """Which inputs, changed by at most ten times, change the recommendation; the nearest first."""
    found = []
    knobs = inputs_of(case)
    for number, knob in enumerate(knobs):
        progress(number, len(knobs))
        for direction in (1, -1):
            change = _nearest_change(evaluator, knob, choice.name, direction)
            if change is not None:
                found.append(change)
    return sorted(found, key=lambda one: (abs(math.log(one.value / one.now)), one.name))


def _nearest_change(
    evaluator: Evaluator, knob: Knob, name: str, direction: int
) -> BreakEven | None:
    same, then = 1.0, name
    other = 1.0
    for step in range(1, _GRID + 1):
        other = MAX_FACTOR ** (direction * step / _GRID)
        then = _name(recommend(evaluator, knob.put(knob.value * other)))
        if then != name:
            break
        same = other
    if then == name:
        return None
    while abs(math.log(other / same)) > BREAK_EVEN_PRECISION:
        middle = math.sqrt(same * other)
        found = _name(recommend(evaluator, knob.put(knob.value * middle)))
        if found == name:
            same = middle
        else:
            other, then = middle, found
    return BreakEven(knob.name, knob.value, knob.value * other, then)


def _name(choice: Choice | None) -> str:
    return "" if choice is None else choice.name
