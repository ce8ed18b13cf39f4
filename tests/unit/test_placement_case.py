"""What no placement can be decided on is refused, and the text says which figure."""

from __future__ import annotations

import math

import pytest
from msgspec.structs import replace

from fakes.placing import CASE, PLACES
from runtime.core.placement.case import Case, Kind, Limits, Link, Load, Spread, check_case
from runtime.errors import SettingsError

NAN = math.nan


def limits(**changes: float) -> Case:
    return replace(CASE, limits=replace(CASE.limits, **changes))


def load(**changes: object) -> Case:
    return replace(CASE, load=replace(CASE.load, **changes))


def link(**changes: object) -> Case:
    return replace(CASE, links=(replace(CASE.links[0], **changes),))


def place(**changes: object) -> Case:
    return replace(CASE, places=(replace(PLACES[0], **changes), *PLACES[1:]))


def model(**changes: object) -> Case:
    return replace(CASE, models=(replace(CASE.models[0], **changes),))


def test_the_usual_case_is_usable() -> None:
    check_case(CASE)


@pytest.mark.parametrize(
    ("case", "told"),
    [
        (replace(CASE, models=()), "the case has no models"),
        (replace(CASE, places=()), "the case has no places"),
        (replace(CASE, models=CASE.models * 3), "9 models; at most 8"),
        (replace(CASE, models=CASE.models[:1] * 2), "models: 'small' is there twice"),
        (replace(CASE, places=PLACES[:1] * 2), "places: 'camera' is there twice"),
        (replace(CASE, links=CASE.links[:1] * 2), "links: 'camera > gateway' is there twice"),
        (link(lower="roof"), "there is no place 'roof'"),
        (link(lower="cloud", upper="region"), "does not lead upwards"),
        (link(rtt_ms=-1.0), "rtt_ms"),
        (link(rtt_ms=NAN), "nan is outside"),
        (link(bandwidth_bps=0.0), "bandwidth of camera > gateway"),
        (link(loss_share=1.5), "loss or availability"),
        (load(requests_per_s=()), "requests_per_s is empty"),
        (load(requests_per_s=(0.0, 0.0)), "requests_per_s is 0"),
        (load(requests_per_s=(1e-300,)), "mean of requests_per_s: 1e-300 is outside 1e-09"),
        (load(requests_per_s=(-1.0, 5.0)), "requests_per_s: -1 is outside"),
        (load(requests_per_s=(NAN,)), "requests_per_s: nan"),
        (load(request_bytes=math.inf), "request_bytes: inf"),
        (load(updates_per_day=-1.0), "updates_per_day"),
        (limits(budget_ms=0.0), "budget_ms: 0 is outside"),
        (limits(budget_ms=NAN), "budget_ms: nan"),
        (limits(min_accuracy=1.2), "min_accuracy: 1.2"),
        (limits(max_leaving_share=-0.1), "max_leaving_share"),
        (limits(min_served_share=NAN), "min_served_share"),
        (replace(CASE, max_utilization=1.0), "max_utilization: 1 "),
        (replace(CASE, price_per_kwh=NAN), "price_per_kwh"),
        (place(price_per_hour=-1.0), "price or power of camera"),
        (place(num_groups=0), "machines of camera"),
        (model(accuracy=NAN), "accuracy of small"),
        (model(size_bytes=-1.0), "bytes of small"),
        (model(latency={"camera": Spread(0.0, 1.0)}), "latency of small"),
        (model(latency={"camera": Spread(2.0, 1.0)}), "p99_ms of small: 1 is outside 2"),
    ],
)
def test_what_cannot_be_is_refused(case: Case, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        check_case(case)


def test_kinds_are_in_the_order_in_which_requests_climb() -> None:
    assert [kind.height for kind in Kind] == [0, 1, 2, 3]
    assert [kind.residency for kind in Kind] == ["device", "region", "region", "cloud"]


def test_a_load_has_a_mean_and_a_peak() -> None:
    assert Load((1.0, 3.0), 0, 0).mean_per_s == 2
    assert Load((1.0, 3.0), 0, 0).peak_per_s == 3


def test_a_link_is_called_by_its_ends_and_a_place_is_found_by_name() -> None:
    assert Link("a", "b", 1).name == "a > b"
    assert CASE.place("region") is PLACES[2]
    assert Limits(1, 1).residency == "cloud"
