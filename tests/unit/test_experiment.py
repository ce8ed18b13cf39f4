"""A/B tests: the split, the intervals that may be looked at any time, and what is said."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.core.confidence_sequence import Interval, Moments, difference_of, mean_of, radius
from runtime.core.experiment import (
    Answer,
    Arm,
    Experiment,
    Goal,
    Outcome,
    answer,
    arm_of,
    log_odds_of_split,
    noted,
)

GUARD = Goal("slow", larger_is_better=False, allowed=0.02)
TEST = Experiment("e1", (Arm("a"), Arm("b")), Goal("right"), (GUARD,), least_difference=0.02)
THREE = msgspec.structs.replace(TEST, arms=(Arm("a"), Arm("b"), Arm("c")))


def moments(num: int, mean: float) -> Moments:
    """Of zeros and ones."""
    return Moments(num, mean, num * mean * (1 - mean))


def kept(num: int, right: dict[str, float], slow: dict[str, float]) -> dict[str, Any]:
    return {
        name: {"right": moments(num, right[name]), "slow": moments(num, slow[name])}
        for name in right
    }


def same(mean: float, names: str = "ab") -> dict[str, float]:
    return dict.fromkeys(names, mean)


def test_before_the_least_number_nothing_is_said() -> None:
    said = answer(TEST, kept(299, {"a": 0.1, "b": 0.9}, same(0.1)))

    assert said.outcome is Outcome.KEEP_RUNNING
    assert "299 of 300" in said.why
    assert answer(TEST, {}).outcome is Outcome.KEEP_RUNNING


def test_a_better_arm_wins_and_the_intervals_say_by_how_much() -> None:
    said = answer(TEST, kept(20_000, {"a": 0.80, "b": 0.83}, same(0.1)))

    assert (said.outcome, said.arm, said.metric) == (Outcome.WINS, "b", "right")
    assert 0 < said.gains["b"].low < 0.03 < said.gains["b"].high
    assert said.means["a"]["right"].low < 0.80 < said.means["a"]["right"].high


def test_the_control_may_win_as_well() -> None:
    assert answer(TEST, kept(20_000, {"a": 0.83, "b": 0.80}, same(0.1))).arm == "a"


def test_an_arm_that_is_better_but_slow_does_not_win() -> None:
    said = answer(TEST, kept(20_000, {"a": 0.80, "b": 0.90}, {"a": 0.1, "b": 0.2}))

    assert (said.outcome, said.arm, said.metric) == (Outcome.GUARDRAIL_BROKEN, "b", "slow")


def test_an_arm_does_not_win_while_a_guardrail_may_still_be_broken() -> None:
    said = answer(TEST, kept(2000, {"a": 0.5, "b": 0.7}, {"a": 0.1, "b": 0.11}))

    assert said.outcome is Outcome.KEEP_RUNNING
    assert said.gains["b"].low > 0


def test_without_a_difference_worth_it_the_question_is_given_up() -> None:
    said = answer(TEST, kept(200_000, {"a": 0.8, "b": 0.801}, same(0.1)))

    assert said.outcome is Outcome.NO_DIFFERENCE


def test_the_question_is_given_up_after_the_largest_number() -> None:
    limited = msgspec.structs.replace(TEST, max_num=5000)

    assert answer(limited, kept(5000, {"a": 0.8, "b": 0.81}, same(0.1))).outcome is (
        Outcome.NO_DIFFERENCE
    )
    assert answer(TEST, kept(5000, {"a": 0.8, "b": 0.81}, same(0.1))).outcome is (
        Outcome.KEEP_RUNNING
    )


def test_of_three_arms_the_winner_beats_both() -> None:
    two_good = kept(20_000, {"a": 0.7, "b": 0.8, "c": 0.801}, same(0.1, "abc"))
    one_good = kept(20_000, {"a": 0.7, "b": 0.75, "c": 0.8}, same(0.1, "abc"))

    assert answer(THREE, two_good).outcome is Outcome.KEEP_RUNNING
    assert answer(THREE, one_good).arm == "c"


def test_smaller_may_be_better() -> None:
    fast = msgspec.structs.replace(
        TEST,
        primary=Goal("slow", larger_is_better=False),
        guardrails=(Goal("right", allowed=0.05),),
    )

    assert answer(fast, kept(20_000, same(0.8), {"a": 0.2, "b": 0.1})).arm == "b"


def test_a_split_that_is_not_as_meant_says_nothing_else() -> None:
    data = kept(20_000, {"a": 0.5, "b": 0.9}, same(0.1))

    assert answer(TEST, data, {"a": 20_000, "b": 18_000}).outcome is Outcome.SPLIT_BROKEN
    assert answer(TEST, data, {"a": 20_000, "b": 19_900}).outcome is Outcome.WINS
    assert answer(TEST, data, {"a": 40_000}).outcome is Outcome.SPLIT_BROKEN
    assert log_odds_of_split(TEST, {"a": -5, "b": 0}) == pytest.approx(0)


def test_answers_and_what_is_kept_go_through_json() -> None:
    data = kept(20_000, {"a": 0.80, "b": 0.83}, same(0.1))
    said = answer(TEST, data)

    assert msgspec.json.decode(msgspec.json.encode(said), type=Answer) == said
    assert msgspec.json.decode(msgspec.json.encode(TEST), type=Experiment) == TEST
    back = msgspec.json.decode(msgspec.json.encode(data), type=dict[str, dict[str, Moments]])
    assert back == data


@pytest.mark.parametrize("value", [math.nan, -0.1, 1.1, math.inf])
def test_values_out_of_range_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="scale it"):
        noted({}, "a", {"right": value})


def test_what_is_noted_is_what_was_seen() -> None:
    data: dict[str, dict[str, Moments]] = {}
    for value in (0.0, 1.0, 1.0):
        data = noted(data, "a", {"right": value})
    data = noted(data, "b", {"slow": 0.5})

    assert data["a"]["right"].num == 3
    assert data["a"]["right"].mean == pytest.approx(2 / 3)
    assert data["b"] == {"slow": Moments(1, 0.5, 0.0)}


@pytest.mark.parametrize(
    "wrong",
    [
        {"arms": (Arm("a"),)},
        {"arms": (Arm("a"), Arm("a"))},
        {"arms": (Arm("a"), Arm("b", 0.0))},
        {"arms": (Arm("a"), Arm("b", math.nan))},
        {"guardrails": ()},
        {"guardrails": (Goal("right"),)},
        {"guardrails": (Goal("slow", allowed=-0.1),)},
        {"alpha": 0.0},
        {"least_difference": 1.0},
        {"min_num": 1},
        {"max_num": 10},
    ],
)
def test_experiments_that_ask_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        msgspec.structs.replace(TEST, **wrong).__post_init__()


def test_the_split_follows_the_weights() -> None:
    test = msgspec.structs.replace(TEST, arms=(Arm("a", 1.0), Arm("b", 2.0), Arm("c", 5.0)))
    arms = [arm_of(test, f"key-{one}") for one in range(8000)]

    for name, expected in (("a", 1000), ("b", 2000), ("c", 5000)):
        assert abs(arms.count(name) - expected) < 4 * math.sqrt(expected)


@given(st.text(max_size=12), st.floats(0.1, 10), st.floats(1, 10))
def test_more_weight_only_brings_keys(key: str, weight: float, times: float) -> None:
    before = msgspec.structs.replace(THREE, arms=(Arm("a"), Arm("b", weight), Arm("c")))
    after = msgspec.structs.replace(THREE, arms=(Arm("a"), Arm("b", weight * times), Arm("c")))

    assert arm_of(after, key) in (arm_of(before, key), "b")


def test_experiments_are_independent() -> None:
    other = msgspec.structs.replace(TEST, id="e2")
    both = [(arm_of(TEST, str(one)), arm_of(other, str(one))) for one in range(4000)]

    assert all(abs(both.count((x, y)) - 1000) < 120 for x in "ab" for y in "ab")


VALUES = st.lists(st.floats(0, 1), max_size=30)


@given(VALUES, VALUES)
def test_moments_of_parts_are_those_of_the_whole(first: list[float], second: list[float]) -> None:
    parts = []
    for values in (first, second, first + second):
        one = Moments()
        for value in values:
            one = one.plus(value)
        parts.append(one)
    joined = parts[0].joined(parts[1])

    assert joined.num == parts[2].num
    assert joined.mean == pytest.approx(parts[2].mean)
    assert joined.squares == pytest.approx(parts[2].squares, abs=1e-9)
    if first:
        assert joined.mean == pytest.approx(float(np.mean(first + second)))


def test_of_nothing_nothing_is_known() -> None:
    assert mean_of(Moments(), 0.05, 1000) == Interval(0, 1)
    assert difference_of(Moments(), moments(10, 0.5), 0.05, 1000) == Interval(-1, 1)
    assert radius(0.25, 0, 0.05, 1000) == math.inf
    assert radius(0.0, 10, 0.05, 1000) == 0


def test_few_equal_values_are_no_certainty() -> None:
    found = mean_of(Moments(5, 1.0, 0.0), 0.05, 1000)

    assert found.low < 0.5
    assert found.high == 1


LENGTH, LEAST = 5000, 300


def peeked(gain: float, *, seed: int, runs: int, every: int = 1) -> float:
    """The share of runs of 5,000 in which either arm is said to win at any time.

    ``answer`` is asked only where an ordinary interval of two standard deviations says so: the
    sequence is wider at every time, so nothing that it would say is left out. The guardrail is one
    that cannot be broken, or it would keep arms from winning.
    """
    rng = np.random.default_rng(seed)
    loose = Goal("slow", allowed=0.9)
    test = msgspec.structs.replace(TEST, guardrails=(loose,), least_difference=0.001)
    num = np.arange(1, LENGTH + 1)
    wins = 0
    for _ in range(runs):
        a, b = (rng.binomial(1, rate, LENGTH).cumsum() / num for rate in (0.8, 0.8 + gain))
        spread = 2 * np.sqrt((a * (1 - a) + b * (1 - b)) / num)
        looks = np.flatnonzero((np.abs(a - b) > spread) & (num >= LEAST) & (num % every == 0))
        wins += any(
            answer(
                test, kept(int(num[at]), {"a": float(a[at]), "b": float(b[at])}, same(0.1))
            ).outcome
            is Outcome.WINS
            for at in looks
        )
    return wins / runs


def test_looking_after_every_request_makes_no_false_winners() -> None:
    """400 tests of two equal arms, looked at after every request from the 300th on."""
    assert 0 < peeked(0.0, seed=3, runs=400) <= 0.05


def test_a_gain_of_six_points_is_found_while_looking() -> None:
    assert peeked(0.06, seed=4, runs=60, every=50) > 0.9
