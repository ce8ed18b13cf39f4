from __future__ import annotations

import math

import pytest

from fakes.releases import release
from runtime.core.activation import Refusal, assign, stage
from runtime.core.floors import raise_floor, raise_metadata_floors
from runtime.core.releases import MAX_NAMES, MAX_NUMBER, Record
from runtime.core.trusted_time import (
    MAX_AHEAD_S,
    may_fetch,
    raise_time_floor,
    time_floor_s,
    trusted_now_s,
)
from runtime.errors import ReleaseError

BUILD_S = 1_700_000_000.0


def test_floors_only_rise() -> None:
    record = raise_floor(Record(), "m", 3)

    assert raise_floor(record, "m", 2) == record
    assert raise_floor(record, "m", 3) == record
    assert raise_floor(record, "n", 1).floors == {"m": 3, "n": 1}


@pytest.mark.parametrize("version", [-1, MAX_NUMBER + 1])
def test_a_floor_that_is_no_version_is_refused(version: int) -> None:
    with pytest.raises(ReleaseError, match="no version of m"):
        raise_floor(Record(), "m", version)


def test_a_floor_ends_trials_and_wishes_below_it_and_no_others() -> None:
    record = stage(Record(), "trial", release(1), seq=1)
    record = assign(record, "wish", release(1), seq=1)
    record = stage(record, "new", release(2), seq=1)
    record = assign(record, "other", release(1, model="n"), seq=1)

    record = raise_floor(record, "m", 2)

    assert record.slot("trial").trial is None
    assert record.slot("wish").wanted is None
    assert record.slot("new").trial is not None
    assert record.slot("other").wanted is not None


def test_metadata_below_its_floor_is_refused_as_a_whole() -> None:
    record = raise_metadata_floors(Record(), {"root": 1, "timestamp": 7})

    with pytest.raises(ReleaseError, match=r"timestamp metadata has version 6, and 7") as error:
        raise_metadata_floors(record, {"snapshot": 9, "timestamp": 6})

    assert error.value.because == Refusal.METADATA_ROLLBACK
    assert raise_metadata_floors(record, {"timestamp": 7}) == record
    assert raise_metadata_floors(record, {"snapshot": 2}).metadata_floors["snapshot"] == 2


def test_a_newer_root_resets_floors_that_a_thief_has_raised() -> None:
    record = raise_metadata_floors(Record(), {"root": 1, "timestamp": MAX_NUMBER})

    healed = raise_metadata_floors(record, {"root": 2, "timestamp": 4}, reset={"timestamp"})

    assert healed.metadata_floors == {"root": 2, "timestamp": 4}
    for versions, reset in (
        ({"root": 1, "timestamp": 4}, {"timestamp"}),
        ({"timestamp": 4}, {"timestamp"}),
        ({"root": 2}, {"root"}),
    ):
        with pytest.raises(ReleaseError, match="only by a newer root"):
            raise_metadata_floors(record, versions, reset=reset)


@pytest.mark.parametrize("version", [-1, MAX_NUMBER + 1])
def test_metadata_versions_are_bounded(version: int) -> None:
    with pytest.raises(ReleaseError):
        raise_metadata_floors(Record(), {"root": version})


def test_floors_are_bounded_in_number() -> None:
    many = {f"role{number}": 1 for number in range(MAX_NAMES + 1)}

    with pytest.raises(ReleaseError, match="at most 256") as error:
        raise_metadata_floors(Record(), many)

    assert error.value.because == Refusal.TOO_MANY


@pytest.mark.parametrize("clock_s", [0.0, 30.0, -1.0, math.nan, math.inf, -math.inf])
def test_a_clock_below_the_floor_is_not_believed(clock_s: float) -> None:
    assert trusted_now_s(clock_s, BUILD_S) == BUILD_S


def test_a_clock_above_the_floor_is_believed() -> None:
    assert trusted_now_s(BUILD_S + 5, BUILD_S) == BUILD_S + 5


def test_a_verified_time_raises_the_floor_by_a_bounded_step() -> None:
    signed_s = BUILD_S + MAX_AHEAD_S
    record = raise_time_floor(Record(), signed_s, BUILD_S)

    assert time_floor_s(record, BUILD_S) == signed_s
    assert time_floor_s(record, signed_s + 9) == signed_s + 9
    assert raise_time_floor(record, BUILD_S, BUILD_S) == record


@pytest.mark.parametrize("signed_s", [BUILD_S + MAX_AHEAD_S + 1, 2.0**63, math.inf, math.nan])
def test_a_verified_time_far_ahead_is_refused(signed_s: float) -> None:
    with pytest.raises(ReleaseError, match="400 days") as error:
        raise_time_floor(Record(), signed_s, BUILD_S)

    assert error.value.because == Refusal.TOO_FAR_AHEAD


def test_expiry_stops_fetching_also_with_a_clock_of_1970() -> None:
    assert may_fetch(BUILD_S + 1, 0.0, BUILD_S)
    assert not may_fetch(BUILD_S - 1, 0.0, BUILD_S)
    assert not may_fetch(BUILD_S + 1, BUILD_S + 2, BUILD_S)
