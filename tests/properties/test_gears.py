"""Looking a gear up: what is odd is never confident, and what may not be asked is not asked."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.core.gears import weigh
from runtime.messages import Guarantee
from runtime.policy import Choice, DecisionTable, Gear, Interval, Promise

NOTHING = Interval(0, 0, 0)
# Two labels, one edge at 0.8 each; asking the cloud wins 0.3 below it and nothing above.
ROWS = ((0.3, -0.1), (0.3, -0.1), (0.3, -0.1))
TABLE = DecisionTable(
    tiers=("edge",),
    rows=(0, 1),
    edges=((0.8,), (0.8,), (0.8,)),
    choices=(
        Choice(gain=ROWS, cost=((1.0, 1.0),) * 3, to=("cloud",)),
        Choice(gain=((0.1, -0.2),) * 3, cost=((0.1, 0.1),) * 3, to=("regional",)),
    ),
)
GEAR = Gear(
    "any", Guarantee.CERTIFIED, 0.1, (TABLE,), Promise({"edge": 1.0}, NOTHING, NOTHING, NOTHING)
)


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, -1.0, 0.0, 0.79])
def test_a_score_that_is_odd_or_low_asks(score: float) -> None:
    advice = weigh(GEAR, TABLE, label=0, score=score)

    assert advice.choice is not None
    assert advice.choice.to == ("cloud",)


@given(label=st.none() | st.integers(-5, 5), score=st.floats(), chance=st.floats())
def test_nothing_but_a_sure_score_is_ever_confident(
    label: int | None, score: float, chance: float
) -> None:
    advice = weigh(GEAR, TABLE, label=label, score=score, chance=chance)

    is_sure = math.isfinite(score) and score >= 0.8
    assert not (advice.choice is None and advice.as_fitted and not is_sure)


@given(score=st.floats(0, 0.79), label=st.integers(0, 1))
def test_a_tier_out_of_reach_is_not_asked_and_said_not_to_be_as_fitted(
    score: float, label: int
) -> None:
    advice = weigh(GEAR, TABLE, label=label, score=score, out_of_reach=frozenset({"cloud"}))

    assert advice.choice is not None
    assert advice.choice.to == ("regional",)
    assert not advice.as_fitted


@given(chance=st.floats(0.75, 1))
def test_a_link_not_much_worse_than_the_fitted_one_changes_nothing(chance: float) -> None:
    assert weigh(GEAR, TABLE, label=1, score=0.5, chance=chance).as_fitted


def test_a_bad_link_makes_asking_not_worth_its_price() -> None:
    advice = weigh(GEAR, TABLE, label=1, score=0.5, chance=0.01)

    assert advice.choice is None
    assert not advice.as_fitted
