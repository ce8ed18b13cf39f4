"""Alerts of sites: one for each while most are well, one for the region where many are not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runtime.core.alert_groups import (
    FORGOTTEN_AFTER_S,
    LEAST_OF_A_REGION,
    MISSING,
    MOST_ALERTS_OF_A_REGION,
    SHARE_OF_A_REGION,
    Finding,
    Place,
    grouped,
    silent,
)

NOW_S, AFTER_S = 1_800_000_000.0, 3600.0


def heard(
    region: str, num: int, *, silent_ones: int = 0, ago_s: float = 4000.0
) -> dict[Place, float]:
    return {
        (region, f"d{one}"): NOW_S - (ago_s if one < silent_ones else 10.0) for one in range(num)
    }


def test_a_few_silent_devices_have_an_alert_each() -> None:
    found = silent(heard("north", 900, silent_ones=3), NOW_S, AFTER_S)

    assert [one.key for one in found] == [f"device_silent.north.d{at}" for at in range(3)]
    assert found[0].summary == "north/d0 says nothing"


def test_a_region_that_is_cut_off_is_one_alert() -> None:
    every = {
        **heard("north", 900, silent_ones=812),
        **heard("south", 9, silent_ones=9),
        **heard("east", 100, silent_ones=20),
    }

    found = silent(every, NOW_S, AFTER_S)

    (north,) = [one for one in found if one.region == "north"]
    assert north.key == "device_silent.north"
    assert north.summary == "812 of 900 devices of north say nothing"
    # Nine are too few, and a fifth is not over a fifth.
    assert len([one for one in found if one.region == "south"]) == 9
    assert len([one for one in found if one.region == "east"]) == 20


def test_ten_thousand_silent_devices_are_one_alert_a_region() -> None:
    every: dict[Place, float] = {}
    for number in range(10):
        every |= heard(f"r{number}", 1000, silent_ones=1000)

    assert len(silent(every, NOW_S, AFTER_S)) == 10
    assert len(silent(heard("large", 10_000, silent_ones=51), NOW_S, AFTER_S)) == 1


def test_who_was_told_of_keeps_an_alert_while_the_region_has_one() -> None:
    every = heard("north", 30, silent_ones=20)

    found = silent(
        every, NOW_S, AFTER_S, told={"device_silent.north.d4", "device_silent.north.d25"}
    )

    assert {one.key for one in found} == {"device_silent.north", "device_silent.north.d4"}


def test_who_has_been_away_for_a_month_is_watched_no_more() -> None:
    every = {
        **heard("north", 30),
        ("north", "old"): NOW_S - FORGOTTEN_AFTER_S - 1,
        ("north", "away"): NOW_S - FORGOTTEN_AFTER_S + 1,
        ("north", "ahead"): NOW_S + 1e6,
    }

    assert [one.site for one in silent(every, NOW_S, AFTER_S)] == ["away"]


def test_missing_decisions_of_a_region_that_nobody_counts_are_told() -> None:
    findings = [Finding("north", f"d{one}", "words") for one in range(12)]

    (one,) = grouped(MISSING, findings, {})

    assert one.key == "decisions_missing.north.gap"
    assert one.summary == "12 of 12 devices of north have told of decisions that have not come"


@given(
    st.dictionaries(
        st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 200).map(str)),
        st.sampled_from([10.0, 4000.0, FORGOTTEN_AFTER_S + 9]),
        max_size=300,
    )
)
def test_no_region_has_too_many_alerts_and_none_that_has_a_silent_device_has_none(
    ago_s: dict[Place, float],
) -> None:
    found = silent({place: NOW_S - ago for place, ago in ago_s.items()}, NOW_S, AFTER_S)

    assert len({one.key for one in found}) == len(found)
    for region in ("a", "b", "c"):
        away = [place for place, ago in ago_s.items() if place[0] == region and ago == 4000.0]
        there = [place for place, ago in ago_s.items() if place[0] == region and ago == 10.0]
        alerts = [one for one in found if one.region == region]
        share = SHARE_OF_A_REGION * (len(away) + len(there))
        is_one = len(away) >= LEAST_OF_A_REGION and (
            len(away) > share or len(away) > MOST_ALERTS_OF_A_REGION
        )
        assert len(alerts) == (1 if is_one else len(away))
