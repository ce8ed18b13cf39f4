"""Tests of a mean: never more sure than the data allow, at any null."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from model_zoo.policies.betting import (
    Floats,
    binomial_cdf,
    p_mean_below,
    p_share_below,
    share_upper,
)

values_in_range = arrays.arrays(np.float64, st.integers(0, 60), elements=st.floats(0, 1))
bounds = st.floats(-0.5, 1.5)
deltas = st.floats(1e-6, 0.9)
shares = st.floats(0, 1)
counts = st.integers(0, 40)


@given(values_in_range, bounds, deltas)
def test_a_p_value_is_a_share(values: Floats, bound: float, delta: float) -> None:
    assert 0 <= p_mean_below(values, bound, delta) <= 1


@given(values_in_range, bounds, bounds, deltas)
def test_a_higher_bound_is_no_harder_to_be_below(
    values: Floats, one: float, other: float, delta: float
) -> None:
    low, high = sorted((one, other))
    # At a bound of 1 nothing is claimed.
    assume(high < 1)

    assert p_mean_below(values, high, delta) <= p_mean_below(values, low, delta) * (1 + 1e-9)


@given(arrays.arrays(np.float64, st.integers(1, 60), elements=st.floats(0.3, 1)), deltas)
def test_values_that_are_never_below_the_bound_prove_nothing(values: Floats, delta: float) -> None:
    assert p_mean_below(values, 0.3, delta) == 1


@given(bounds, deltas)
def test_no_values_prove_nothing(bound: float, delta: float) -> None:
    assert p_mean_below(np.empty(0), bound, delta) == 1


@given(values_in_range, deltas)
def test_nobody_can_be_shown_to_be_below_everything(values: Floats, delta: float) -> None:
    assert p_mean_below(values, 1.0, delta) == 1


@pytest.mark.parametrize("value", [-0.01, 1.01, math.nan, math.inf])
def test_values_outside_of_the_range_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"must be in 0\.\.1"):
        p_mean_below(np.array([0.5, value]), 0.5, 0.1)


NULLS: dict[str, tuple[list[float], list[float]]] = {
    "rare": ([0, 1], [0.99, 0.01]),
    "even": ([0, 1], [0.5, 0.5]),
    "often": ([0, 1], [0.1, 0.9]),
    # The loss against the top tier, brought to 0..1: worse by 1 point.
    "paired": ([0, 0.5, 1], [0.02, 0.95, 0.03]),
    "rarely dear": ([0.02, 1], [0.98, 0.02]),
}


@pytest.mark.parametrize("num", [50, 1000])
@pytest.mark.parametrize("delta", [0.05, 0.2])
@pytest.mark.parametrize("null", NULLS)
def test_a_true_null_is_rejected_no_more_often_than_allowed(
    null: str, delta: float, num: int
) -> None:
    random = np.random.default_rng(5)
    outcomes, chances = NULLS[null]
    bound = float(np.dot(outcomes, chances))
    samples = random.choice(outcomes, p=chances, size=(1500, num))

    rejected = np.mean([p_mean_below(sample, bound, delta) <= delta for sample in samples])

    # Three standard errors of a share of 1500.
    assert rejected <= delta + 3 * math.sqrt(delta * (1 - delta) / 1500)


def test_a_clearly_false_null_is_rejected() -> None:
    random = np.random.default_rng(6)
    # As good as the top tier but for 0.2 points, where 1 point is allowed.
    samples = random.choice([0, 0.5, 1], p=[0.01, 0.978, 0.012], size=(300, 3000))

    found = [p_mean_below(sample, 0.505, 0.1) <= 0.1 for sample in samples]

    assert np.mean(found) > 0.85


def exact_cdf(successes: int, trials: int, chance: float) -> float:
    share = Fraction(chance)
    return float(
        sum(
            math.comb(trials, count) * share**count * (1 - share) ** (trials - count)
            for count in range(min(successes, trials) + 1)
        )
    )


@given(counts, counts, shares)
def test_the_binomial_tail_is_exact(successes: int, trials: int, chance: float) -> None:
    found = binomial_cdf(successes, trials, chance)

    assert found == pytest.approx(exact_cdf(successes, trials, chance), rel=1e-9, abs=1e-300)
    assert 0 <= found <= 1


def test_the_binomial_tail_is_exact_for_many_trials() -> None:
    for successes, chance in ((0, 0.01), (3, 0.01), (20, 0.02), (400, 0.5)):
        found = binomial_cdf(successes, 800, chance)

        assert found == pytest.approx(exact_cdf(successes, 800, chance), rel=1e-9)


def test_less_than_nothing_never_happens() -> None:
    assert binomial_cdf(-1, 10, 0.5) == 0


@given(counts, counts, shares, shares)
def test_fewer_successes_and_a_higher_bound_are_surer(
    successes: int, trials: int, one: float, other: float
) -> None:
    low, high = sorted((one, other))

    surest = p_share_below(successes, trials, high)

    assert surest <= p_share_below(successes, trials, low) * (1 + 1e-9)
    assert surest <= p_share_below(successes + 1, trials, high) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("successes", "trials", "delta", "upper"),
    [
        (0, 299, 0.05, 0.009969),
        (0, 1, 0.05, 0.95),
        (0, 59, 0.05, 0.049508),
        (1, 10, 0.05, 0.39416),
        (5, 10, 0.025, 0.81291),
        (10, 100, 0.025, 0.17622),
        (10, 10, 0.05, 1.0),
        (0, 0, 0.05, 1.0),
    ],
)
def test_the_upper_bound_is_that_of_clopper_and_pearson(
    successes: int, trials: int, delta: float, upper: float
) -> None:
    assert share_upper(successes, trials, delta) == pytest.approx(upper, abs=6e-6)


@given(counts, counts, st.floats(0.001, 0.5))
def test_at_the_upper_bound_so_few_are_just_as_likely_as_allowed(
    successes: int, trials: int, delta: float
) -> None:
    assume(successes < trials)

    upper = share_upper(successes, trials, delta)

    assert successes / trials <= upper <= 1
    assert binomial_cdf(successes, trials, upper) == pytest.approx(delta, rel=1e-6)
