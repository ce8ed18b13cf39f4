"""Waves: in proportion, monotone, independent of one another, and never too small."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.core.cohorts import MIN_CANARY, Device, draw, order, plan, stagger_s, wave_ends

SHARES = (0.01, 0.05, 0.25, 1.0)
NAMES = st.sets(st.text(max_size=8), max_size=60)


def fleet(num: int) -> list[Device]:
    return [Device(f"d{one}", "eu" if one % 4 else "us", f"hw{one % 3}") for one in range(num)]


def test_hundred_devices_and_a_small_fleet() -> None:
    assert wave_ends(100, SHARES) == [3, 6, 25, 100]
    assert wave_ends(30, SHARES) == [3, 3, 8, 30]
    assert wave_ends(10_000, SHARES) == [100, 500, 2500, 10_000]
    assert wave_ends(2, SHARES) == [2, 2, 2, 2]
    assert wave_ends(0, SHARES) == [0, 0, 0, 0]


@given(
    st.integers(0, 3000),
    st.lists(st.integers(1, 999), unique=True, max_size=6),
    st.integers(MIN_CANARY, 20),
)
def test_waves_are_large_enough_and_never_more_than_allowed(
    num: int, permille: list[int], min_canary: int
) -> None:
    shares = [*(one / 1000 for one in sorted(permille)), 1.0]

    ends = wave_ends(num, shares, min_canary)

    assert ends[-1] == num
    for share, end in zip(shares, ends, strict=True):
        assert share * num - 1e-6 <= end <= share * num + min_canary
    for low, high in itertools.pairwise([0, *ends]):
        assert high in (low, num) or high - low >= min_canary


@given(NAMES, st.text(), st.text())
def test_a_plan_holds_every_device_once(names: set[str], rollout: str, region: str) -> None:
    devices = [Device(name, region, "pi5" if len(name) % 2 else "orin") for name in sorted(names)]

    planned = plan(rollout, devices, SHARES)

    assert sorted(itertools.chain(*planned.waves)) == sorted(names)
    assert planned == plan(rollout, devices[::-1], SHARES)


def test_a_larger_share_only_adds() -> None:
    ranked = order("r", fleet(200))
    smaller = plan("r", fleet(200), (0.05, 1.0)).waves[0]
    larger = plan("r", fleet(200), (0.3, 1.0)).waves[0]

    assert larger[: len(smaller)] == smaller == tuple(ranked[: len(smaller)])


def test_every_beginning_has_each_stratum_in_proportion() -> None:
    devices = fleet(240)
    stratum = {one.id: (one.region, one.hardware) for one in devices}
    whole = {one: list(stratum.values()).count(one) for one in set(stratum.values())}
    ranked = [stratum[one] for one in order("r", devices)]

    for end in range(1, 241):
        for one, num in whole.items():
            assert abs(ranked[:end].count(one) - end * num / 240) < 2 + len(whole) / 2


def test_rollouts_are_independent() -> None:
    """Of a tenth of 1,000 devices about a tenth is in that of another rollout, too."""
    first = set(plan("a", fleet(1000), (0.1, 1.0)).waves[0])
    both = [len(first & set(plan(f"b{k}", fleet(1000), (0.1, 1.0)).waves[0])) for k in range(20)]

    assert 7 <= sum(both) / 20 <= 13


def test_a_draw_depends_on_where_names_end_and_is_uniform() -> None:
    draws = [draw("r", str(one)) for one in range(4000)]

    assert draw("a", "bc") != draw("ab", "c")
    assert all(0 <= one < 1 for one in draws)
    for tenth in range(10):
        assert 330 < sum(tenth <= 10 * one < tenth + 1 for one in draws) < 470


def test_who_is_left_out_is_in_no_wave_and_named() -> None:
    devices = [*fleet(20), Device("pin", "eu", "hw0", "pinned")]

    planned = plan("r", devices, SHARES)

    assert planned.left_out == {"pin": "pinned"}
    assert "pin" not in set(itertools.chain(*planned.waves))


def test_regions_are_staggered_within_the_window() -> None:
    waits_s = {stagger_s("r", region, 3600) for region in ("eu", "us", "ap")}

    assert len(waits_s) == 3
    assert all(0 <= one < 3600 for one in waits_s)
    assert stagger_s("r", "eu", 0) == 0


@pytest.mark.parametrize("shares", [(), (0.5,), (0.5, 0.2, 1), (0, 1), (float("nan"), 1), (1, 1)])
def test_shares_that_do_not_rise_to_one_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="shares"):
        wave_ends(10, shares)


def test_a_wave_of_two_says_too_little() -> None:
    with pytest.raises(ValueError, match="at least 3"):
        wave_ends(10, SHARES, 2)


def test_a_device_named_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        plan("r", fleet(3) * 2, SHARES)
