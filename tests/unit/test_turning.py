"""Where a gear's table turns: hand-made tables, edges and all."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from fakes.gears import choice, gear, table
from runtime.core import reasons
from runtime.core.turning import Place, chance_to_ask, places_like, turns
from runtime.policy import Choice, DecisionTable

ASKS = Choice(
    gain=((0.5, -1.0, 0.5),) * 2,
    cost=((0.1, 0.1, 0.1),) * 2,
    to=("regional",),
)


def place(
    *choices: Choice, edges: tuple[float, ...] = (0.4, 0.8), kind: str = "probability", **said: Any
) -> Place:
    made: DecisionTable = msgspec.structs.replace(
        table("edge", choices=choices or (ASKS,)), edges=(edges,) * 2, score=kind
    )
    given: dict[str, Any] = {"label": 1, "earlier": (), "score": 0.5, **said}
    return Place(gear(made), made, **given)


def found(where: Place) -> list[tuple[str, float, str]]:
    return [(turn.side, turn.at, turn.asks) for turn in turns(where)]


def test_turns_are_on_both_sides_nearest_first() -> None:
    assert found(place()) == [("below", 0.4, "regional"), ("from", 0.8, "regional")]


def test_a_score_on_an_edge_belongs_to_the_bin_above() -> None:
    assert found(place(score=0.4))[0] == ("below", 0.4, "regional")
    assert found(place(score=0.8)) == [("below", 0.8, "")]
    assert found(place(score=math.nextafter(0.8, 0)))[0] == ("from", 0.8, "regional")


def test_edges_that_no_probability_reaches_are_no_turns() -> None:
    assert found(place(edges=(0.0, 1.5))) == []
    assert len(found(place(edges=(0.0, 1.5), kind="energy"))) == 2


@pytest.mark.parametrize("score", [math.nan, -math.inf, math.inf])
def test_scores_that_are_no_numbers_have_turns_too(score: float) -> None:
    assert len(found(place(score=score))) == 1


def test_a_table_without_edges_or_choices_never_turns() -> None:
    lone = choice(2, "regional")
    flat = msgspec.structs.replace(lone, gain=((0.5,),) * 2, cost=((0.1,),) * 2)

    assert found(place(flat, edges=())) == []


def test_the_chance_needed_pays_for_the_cost() -> None:
    """A gain of 0.02 at a cost worth 0.01 pays from half the chance of the fit on."""
    dear = msgspec.structs.replace(choice(2, "regional", gain=0.02), chance=0.8)

    assert chance_to_ask(place(dear, edges=(0.8,), chance=0.1)) == pytest.approx(0.4)


def test_the_chance_needed_beats_an_answer_from_below() -> None:
    below = choice(3, answer="edge", gain=0.02)
    asks = choice(3, "cloud", gain=0.04)
    made = msgspec.structs.replace(table("edge", "regional", choices=(below, asks)), rows=(0,) * 3)
    where = Place(gear(made), made, 1, (1,), score=0.5, chance=0.1)

    assert chance_to_ask(where) == pytest.approx(0.5)


def test_no_chance_is_enough_for_what_never_wins() -> None:
    loses = choice(2, "regional", gain=-0.5)

    assert chance_to_ask(place(loses, edges=(0.8,), chance=0.1)) is None


def test_the_labels_below_are_guessed_when_no_log_names_them() -> None:
    made = table("edge", "regional", to=("cloud",))
    followed = gear(made)

    rows = places_like(followed, made, score=0.5, chance=1.0, weighed=(0.5, 0.1))
    named = places_like(
        followed, made, score=0.5, chance=1.0, weighed=(0.5, 0.1), labels=(1,), earlier=(1,)
    )
    other = places_like(followed, made, score=0.5, chance=1.0, weighed=(0.4, 0.1))

    assert {one.advice().row for one in rows} == {0, 1, 2}
    assert [one.advice().row for one in named] == [1]
    assert other == ()


def test_a_tier_of_a_later_version_is_named_as_it_is() -> None:
    assert reasons.named("orbit") == "the tier 'orbit'"
    assert reasons.above("orbit") == "the tier above"
