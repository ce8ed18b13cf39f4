"""Predicted figures meet measured ones, or do not."""

from __future__ import annotations

import math

import pytest

from runtime.core.placement.checking import (
    Compared,
    bucket_quantile,
    compare_load,
    compare_shares,
    measured_quantile,
)


def test_shares_as_predicted_are_within() -> None:
    found = compare_shares({"edge": 0.8, "cloud": 0.2}, {"edge": 805, "cloud": 195}, 1000)

    assert [one.name for one in found] == ["answered by edge", "answered by cloud"]
    assert [one.is_within for one in found] == [True, True]
    assert found[0].measured == 0.805


def test_shares_that_are_off_and_tiers_that_nobody_predicted_are_not() -> None:
    found = compare_shares({"edge": 0.99, "cloud": 0.01}, {"edge": 500, "none": 500}, 1000)

    assert [one.is_within for one in found] == [False, False, False]
    assert found[-1].name == "answered by none"


def test_an_estimate_has_no_interval_of_its_own() -> None:
    (one,) = compare_shares({"edge": 1.0}, {"edge": 10}, 0)

    assert (one.predicted_low, one.predicted_high, one.measured_high) == (1, 1, 1)
    assert one.is_within


def test_a_measured_quantile_has_an_interval_of_ranks() -> None:
    ordered = [float(number) for number in range(1, 1001)]

    assert measured_quantile(ordered, 0.5) == (500, 470, 531 + 1)
    assert measured_quantile([7.0], 0.99) == (7, 7, 7)


def test_a_histogram_knows_the_bucket() -> None:
    buckets = [(1.0, 10.0), (2.0, 90.0), (math.inf, 100.0)]

    assert bucket_quantile(buckets, 0.5) == (2, 1, 2)
    assert bucket_quantile(buckets, 0.05) == (1, 0, 1)
    assert bucket_quantile(buckets, 0.99) == (math.inf, 2, math.inf)
    assert bucket_quantile([], 0.5) is None
    assert bucket_quantile([(1.0, 0.0)], 0.5) is None


def test_a_load_between_the_quietest_and_the_busiest_hour_is_within() -> None:
    assert compare_load((10.0, 5.0, 20.0), 1200, 100.0).is_within
    assert compare_load((10.0, 5.0, 20.0), 9000, 100.0).is_within is False


def test_what_was_not_measured_is_neither() -> None:
    assert compare_load((10.0, 5.0, 20.0), 0, 0.0).is_within is None
    assert Compared("x", 1, 1, 1).is_within is None


@pytest.mark.parametrize(("low", "high", "within"), [(1, 2, False), (1, 3, True), (5, 9, False)])
def test_intervals_that_touch_meet(low: float, high: float, within: object) -> None:
    assert Compared("x", 3.5, 3, 4, 0, low, high).is_within is within
