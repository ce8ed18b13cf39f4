"""The load that gears are chosen for, by how long replies take."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.core.load import LoadEstimator
from runtime.messages import Hop, Reason, Tier

MEDIANS = {"regional": 20.0, "cloud": 30.0}
LOADS = (1.0, 2.0, 4.0)
anything = st.floats(allow_nan=True, allow_infinity=True)


def hops(*tiers: Tier, service_us: int = 0) -> list[Hop]:
    return [Hop(tier, "s", "m", "1", Reason.UNSURE, service_us=service_us) for tier in tiers]


REGION = hops(Tier.REGIONAL)
CLOUD = hops(Tier.REGIONAL, Tier.CLOUD)


def estimator(*loads: float) -> LoadEstimator:
    return LoadEstimator(MEDIANS, loads or LOADS)


def feed(load: LoadEstimator, ratio: float, count: int = 32, at_s: float = 0.0) -> float:
    for _ in range(count):
        load.note_reply(at_s, 20.0 * ratio, REGION)
    return load.load_at(at_s)


@given(st.lists(st.tuples(anything, st.sampled_from([REGION, CLOUD, []]), st.booleans())))
def test_the_load_is_always_one_that_there_are_gears_for(
    events: list[tuple[float, list[Hop], bool]],
) -> None:
    load = estimator()

    for number, (ms, crossed, is_reply) in enumerate(events):
        if is_reply:
            load.note_reply(number, ms, crossed)
        else:
            load.note_lost(number, ms, Tier.CLOUD)
        assert load.load_at(number) in LOADS


def test_without_replies_the_load_is_that_of_the_fit() -> None:
    load = estimator()

    assert load.load_at(0.0) == 1.0
    assert load.ratio is None
    assert feed(load, 9.0, count=7) == 1.0


@pytest.mark.parametrize(
    ("ratio", "expected"), [(0.5, 1.0), (1.2, 1.0), (1.3, 2.0), (2.4, 2.0), (3.0, 4.0), (99, 4.0)]
)
def test_slower_replies_choose_a_higher_load(ratio: float, expected: float) -> None:
    assert feed(estimator(), ratio) == expected


def test_a_reply_is_compared_with_the_hops_that_it_crossed_less_the_work_there() -> None:
    load = estimator()

    for _ in range(8):
        load.note_reply(0.0, 100.0 + 2 * 10, hops(Tier.REGIONAL, Tier.CLOUD, service_us=10_000))

    assert load.ratio == pytest.approx(2.0)


def test_the_highest_tier_counts_in_whatever_order_they_are_told() -> None:
    one, other = estimator(), estimator()

    for _ in range(8):
        one.note_reply(0.0, 100.0, CLOUD)
        other.note_reply(0.0, 100.0, list(reversed(CLOUD)))

    assert one.ratio == other.ratio == 2.0


def test_a_reply_that_crossed_no_known_hop_says_nothing() -> None:
    load = LoadEstimator({"cloud": 30.0}, LOADS)

    for _ in range(32):
        load.note_reply(0.0, 500.0, REGION)
        load.note_reply(0.0, 500.0, [])
        load.note_reply(0.0, math.nan, CLOUD)

    assert load.ratio is None


def test_lost_replies_are_infinitely_slow() -> None:
    load = estimator()

    for _ in range(8):
        load.note_lost(0.0, 60.0, Tier.CLOUD)

    assert load.load_at(0.0) == 4.0
    assert load.ratio == math.inf


def test_a_short_wait_is_no_loss() -> None:
    load = estimator()

    for _ in range(8):
        load.note_lost(0.0, 49.0, Tier.CLOUD)
        load.note_lost(0.0, 19.0, None)

    assert load.ratio is None


def test_the_next_tier_is_meant_where_none_is_named() -> None:
    load, without = estimator(), LoadEstimator({}, LOADS)

    for _ in range(8):
        load.note_lost(0.0, 20.0, None)
        without.note_lost(0.0, 20.0, None)

    assert load.ratio == math.inf
    assert without.ratio is None


def test_old_replies_are_forgotten_also_while_none_come() -> None:
    load = estimator()
    feed(load, 3.0, at_s=10.0)

    assert load.load_at(39.9) == 4.0
    assert load.load_at(40.0) == 1.0


def test_a_load_is_left_by_a_margin_only() -> None:
    load = estimator()

    found = [feed(load, ratio) for ratio in (1.2, 1.3, 1.2, 1.12, 1.09, 1.2)]

    assert found == [1.0, 2.0, 2.0, 2.0, 1.0, 1.0]


def test_loads_below_that_of_the_fit_are_chosen_where_replies_are_that_fast() -> None:
    load = estimator(0.5, 2.0)

    assert load.load_at(0.0) == 1.0
    assert feed(load, 0.4) == 0.5
