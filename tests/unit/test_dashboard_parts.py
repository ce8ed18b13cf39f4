"""What the dashboard adds up: the fleet, its traffic, drift, and how control states compare."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_tier.operators.control_desk import holds
from cloud_tier.operators.drift import distance
from cloud_tier.operators.fleet import MAX_SHOWN, Fleet, devices_page, region_view
from cloud_tier.operators.told import rates_of, tier_of
from cloud_tier.operators.traffic import WINDOW_S, Traffic, shares_of
from runtime.control_state import ControlState, Stop, StopMode, StopScope
from runtime.messages import Birth, Draining, Offline, ServedModel, Tier


def birth(name: str, epoch: int = 1, tier: Tier = Tier.EDGE, **more: Any) -> Birth:
    return Birth(tier, name, "says anything", epoch, models=(ServedModel("m", "1"),), **more)


def fleet_of(num: int, region: str = "r") -> Fleet:
    fleet = Fleet()
    for one in range(num):
        fleet.take(region, f"d{one:05}", birth(f"d{one}"), 10.0, is_agent=True)
    return fleet


def state_of(fleet: Fleet, name: str = "a") -> str:
    return next(site.state for site in fleet.sites("r") if site.name == name)


def test_a_later_start_counts_more_than_the_will_of_an_earlier_one() -> None:
    fleet = Fleet()
    fleet.take("r", "a", birth("a", epoch=2), 1.0, is_agent=True)
    fleet.take("r", "a", Offline(Tier.EDGE, "a", "r", 1), 2.0, is_agent=True)
    assert state_of(fleet) == "online"
    fleet.take("r", "a", Draining(Tier.EDGE, "a", "r", 2), 3.0, is_agent=True)
    assert state_of(fleet) == "draining"
    fleet.take("r", "a", Offline(Tier.EDGE, "a", "r", 2), 4.0, is_agent=True)
    assert state_of(fleet) == "offline"


def test_since_is_when_the_state_began() -> None:
    fleet = Fleet()
    for now_s in (1.0, 2.0):
        fleet.take("r", "a", birth("a"), now_s, is_agent=True)
    assert [site.since_s for site in fleet.sites("r")] == [1.0]


def test_what_an_agent_says_does_not_make_it_a_gateway() -> None:
    fleet = Fleet()
    fleet.take("r", "a", birth("a", tier=Tier.CLOUD), 1.0, is_agent=True)
    view = region_view("r", fleet)
    assert (view["devices"]["total"], view["gateways"], view["clouds"]) == (1, [], [])


def test_an_agent_and_a_gateway_of_one_name_are_two() -> None:
    fleet = Fleet()
    fleet.take("r", "a", birth("a"), 1.0, is_agent=True)
    fleet.take("r", "a", birth("a", tier=Tier.REGIONAL), 1.0, is_agent=False)
    assert fleet.num_sites == 2


def test_too_many_sites_are_counted_and_not_kept() -> None:
    fleet = Fleet(max_sites=2)
    for name in ("a", "b", "c", "a"):
        fleet.take("r", name, birth(name), 1.0, is_agent=True)
    assert (fleet.num_sites, fleet.num_left_out) == (2, 1)


def test_telemetry_never_overrules_what_a_site_says_itself() -> None:
    fleet = Fleet()
    fleet.tell("r", "a", "edge", heard_s=5.0, is_silent=True)
    assert state_of(fleet) == "silent"
    fleet.tell("r", "a", "edge", heard_s=9.0, is_silent=False)
    assert state_of(fleet) == "reporting"
    fleet.take("r", "a", birth("a"), 10.0, is_agent=True)
    fleet.tell("r", "a", "edge", heard_s=5.0, is_silent=True)
    assert state_of(fleet) == "online"


@pytest.mark.parametrize(("num", "is_shown"), [(0, False), (MAX_SHOWN, True), (10_000, False)])
def test_many_devices_are_numbers(num: int, is_shown: bool) -> None:
    view = region_view("r", fleet_of(num))
    assert view["devices"]["online"] == num
    assert bool(view["shown"]) is is_shown
    assert view["link"] == "none"


def test_a_link_is_cut_when_all_gateways_are_away() -> None:
    fleet = Fleet()
    for name in ("a", "b"):
        fleet.take("r", name, birth(name, tier=Tier.REGIONAL), 1.0, is_agent=False)
    fleet.take("r", "a", Offline(Tier.REGIONAL, "a", "r", 1), 2.0, is_agent=False)
    assert region_view("r", fleet)["link"] == "up"
    fleet.take("r", "b", Offline(Tier.REGIONAL, "b", "r", 1), 2.0, is_agent=False)
    assert region_view("r", fleet)["link"] == "cut"


@given(
    st.lists(st.tuples(st.sampled_from("pqr"), st.text("ab./", min_size=1, max_size=3))),
    st.integers(1, 5),
)
def test_pages_hold_every_site_once_and_in_order(sites: list[tuple[str, str]], limit: int) -> None:
    fleet = Fleet()
    for region, name in sites:
        fleet.take(region, name, birth(name), 1.0, is_agent=True)
    found: list[tuple[str, str]] = []
    after: tuple[str, str] | None = ("", "")
    while after is not None:
        page, after = devices_page(fleet, {}, after, limit)
        assert len(page) <= limit
        found += [(one["region"], one["name"]) for one in page]
    assert sorted(found) == sorted(set(sites))
    assert [one[0] for one in found] == sorted(one[0] for one in found)


def test_a_search_finds_names_versions_and_states() -> None:
    fleet = fleet_of(3)
    fleet.take("r", "d00001", birth("x", 2, stopped="stop", software="tw 9"), 1.0, is_agent=True)

    def names(**wanted: str) -> list[str]:
        return [one["name"] for one in devices_page(fleet, wanted, ("", ""), 9)[0]]

    assert names(q="TW 9") == names(state="stopped") == ["d00001"]
    assert len(names(state="online")) == len(names(q="m 1")) == 3
    assert names(tier="cloud") == names(region="nowhere") == []


def decided(wall_s: float = 100.5, **more: Any) -> dict[str, Any]:
    return {
        "wall_s": wall_s, "hop": 0, "tier": "edge", "region": "r", "answered_by": "edge",
        "action": "answer", "reason": "confident", **more,
    }  # fmt: skip


def test_a_request_counts_once_by_the_tier_that_was_asked_first() -> None:
    traffic = Traffic()
    traffic.add(
        [
            decided(answered_by="cloud", action="escalate"),
            decided(hop=1, tier="regional", answered_by="cloud", action="escalate"),
            decided(hop=2, tier="cloud", answered_by="cloud"),
            decided(answered_by=""),
        ]
    )
    totals = traffic.totals(102.0)
    assert totals["per_s"] == pytest.approx(2 / 30)
    assert totals["climbed_per_s"] == pytest.approx(1 / 30)
    assert totals["shares"] == {"cloud": 0.5, "nobody": 0.5}
    assert traffic.second(100) == {"at_s": 100, "by": {"cloud": 1, "nobody": 1}, "climbed": 1}
    assert len(traffic.escalations) == 3
    assert len(traffic.history(102.0)) == WINDOW_S


def test_what_is_old_or_from_the_future_is_forgotten() -> None:
    traffic = Traffic()
    traffic.add([decided(100.0), decided(9e9), decided(1000.0)])
    traffic.forget(1001.0)
    assert traffic.by_region() == {"r": {"edge": 1.0}}


def test_a_link_is_cut_while_nobody_gets_an_answer_from_above() -> None:
    traffic = Traffic()
    assert not traffic.is_cut("r", 100.0)
    traffic.add([decided(90.0, reason="upstream_timeout")])
    assert traffic.is_cut("r", 100.0)
    assert not traffic.is_cut("r", 200.0)
    traffic.add([decided(95.0, answered_by="cloud")])
    assert not traffic.is_cut("r", 100.0)


def test_shares_of_nothing_are_none() -> None:
    assert shares_of({}, "logs") == {"per_s": 0, "shares": {}, "source": "logs"}
    assert shares_of({"edge": 3.0, "cloud": 1.0}, "logs")["shares"] == {"edge": 0.75, "cloud": 0.25}


_HISTOGRAMS = st.lists(st.integers(0, 9), min_size=3, max_size=3)


@given(_HISTOGRAMS, _HISTOGRAMS)
def test_the_distance_of_histograms_is_one(one: list[int], other: list[int]) -> None:
    assert 0 <= distance(one, other) <= 1 + 1e-9
    assert distance(one, other) == distance(other, one)
    assert distance(one, one) == 0


def test_histograms_that_share_nothing_are_as_far_as_can_be() -> None:
    assert distance([1, 0], [0, 7]) == 1
    assert distance([0, 0], [0, 7]) == 0


def test_telemetry_in_rates() -> None:
    rows = [
        {"group": {"region": "r", "answered_by": "edge"}, "requests": 7200},
        {"group": {"region": "r", "answered_by": "none"}, "requests": 3600},
    ]
    assert rates_of(rows) == {"r": {"edge": 2.0, "nobody": 1.0}}
    assert [tier_of(one) for one in ([], ["cloud"], ["cloud", "edge"])] == ["edge", "cloud", "edge"]


def said(sequence: int, *targets: str) -> ControlState:
    stops = (Stop(StopScope.DEVICE, StopMode.STOP, "why", "me", 1.0, one) for one in targets)
    return ControlState("r", sequence, tuple(stops))


@pytest.mark.parametrize(
    ("now", "is_held"),
    [
        (None, False),
        (said(1, "a"), False),
        (said(2, "b"), True),
        (said(3, "b", "c"), True),
        (said(3, "a", "b"), False),
        (said(3, "c"), False),
    ],
)
def test_a_change_holds_when_it_is_there_whatever_else_is(
    now: ControlState | None, is_held: bool
) -> None:
    assert holds(now, said(1, "a"), said(2, "b")) is is_held
