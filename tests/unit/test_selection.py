from __future__ import annotations

import math

import pytest

from fakes.releases import digests, everything, release
from runtime.core.activation import confirm, ran_well, set_factory, stage, stopped_cleanly
from runtime.core.floors import raise_floor
from runtime.core.releases import Fault, Record, Release
from runtime.core.selection import CRASH_WINDOW_S, MAX_RESTARTS, Origin, select_at_start

FACTORY, V1, V2, V3 = release(0), release(1), release(2), release(3)


def serving(*releases: Release) -> Record:
    record = set_factory(Record(), "a", FACTORY)
    for seq, one in enumerate(releases, start=1):
        record = stage(record, "a", one, seq=seq)
        record = confirm(record, "a", record.slot("a").generation)
    return record


def test_the_order_is_trial_current_previous_factory() -> None:
    record = stage(serving(V1, V2), "a", V3, seq=3)
    trial = select_at_start(record, "a", everything(record), 0)
    assert (trial.release, trial.origin, trial.generation) == (V3, Origin.TRIAL, 3)

    for there, expected in (
        ((FACTORY, V1, V2), (V2, Origin.CURRENT)),
        ((FACTORY, V1), (V1, Origin.PREVIOUS)),
        ((FACTORY,), (FACTORY, Origin.FACTORY)),
        ((), (None, None)),
    ):
        selection = select_at_start(record, "a", digests(*there), 0)
        assert (selection.release, selection.origin) == expected
        assert [one.fault for one in selection.given_up] == [Fault.FILES_LOST]
        assert selection.record.slot("a").trial is None


def test_an_empty_slot_selects_nothing_and_changes_nothing() -> None:
    selection = select_at_start(Record(), "a", (), 0)

    assert (selection.release, selection.record) == (None, Record())


def test_every_start_of_a_trial_is_an_attempt_and_the_fourth_goes_back() -> None:
    record = stage(serving(V1), "a", V2, seq=2)
    for attempt in (1, 2, 3):
        selection = select_at_start(record, "a", everything(record), 1e6 * attempt)
        assert selection.origin is Origin.TRIAL
        record = selection.record

    selection = select_at_start(record, "a", everything(record), 0)

    assert (selection.release, selection.origin) == (V1, Origin.CURRENT)
    assert [one.fault for one in selection.given_up] == [Fault.ATTEMPTS]


def started(record: Record, times: int, *, step_s: float = 1.0) -> Record:
    for number in range(times):
        record = select_at_start(record, "a", everything(record), number * step_s).record
    return record


def test_a_confirmed_release_that_crashes_three_times_is_rolled_back() -> None:
    record = started(serving(V1, V2), MAX_RESTARTS)
    assert record.slot("a").current == V2

    selection = select_at_start(record, "a", everything(record), 5)

    assert selection.release == V1
    assert [(one.version, one.fault) for one in selection.given_up] == [(2, Fault.CRASH_LOOP)]
    slot = selection.record.slot("a")
    assert (slot.current, slot.previous) == (V1, None)


def test_a_crash_loop_ends_at_the_factory_model_which_is_kept() -> None:
    record = started(serving(V1), 20)

    selection = select_at_start(record, "a", everything(record), 20)

    assert selection.origin is Origin.FACTORY
    assert record.slot("a").factory == FACTORY
    assert [one.version for one in record.slot("a").bad] == [1]


def test_the_only_release_is_loaded_however_often_it_crashes() -> None:
    record = stage(Record(), "a", V1, seq=1)
    record = started(confirm(record, "a", 1), 10)

    assert record.slot("a").current == V1
    assert not record.slot("a").bad


def test_starts_far_apart_are_no_crash_loop() -> None:
    record = started(serving(V1, V2), 20, step_s=CRASH_WINDOW_S / 2)

    assert record.slot("a").current == V2


@pytest.mark.parametrize("settle", [ran_well, stopped_cleanly])
def test_runs_that_last_and_clean_stops_are_no_crashes(settle: object) -> None:
    assert callable(settle)
    record = serving(V1, V2)
    for second in range(10):
        record = select_at_start(record, "a", everything(record), second).record
        record = settle(record, "a")

    assert record.slot("a").current == V2


def test_a_factory_model_above_the_floor_comes_before_what_is_below() -> None:
    record = raise_floor(serving(V1, V2), "m", 3)
    assert select_at_start(record, "a", everything(record), 0).is_below_floor

    record = set_factory(record, "a", release(3))
    selection = select_at_start(record, "a", everything(record), 0)

    assert (selection.origin, selection.is_below_floor) == (Origin.FACTORY, False)


def test_a_factory_model_that_crashes_gives_way_to_what_is_below_the_floor() -> None:
    record = set_factory(raise_floor(serving(V1), "m", 3), "a", release(3))
    record = started(record, MAX_RESTARTS)

    selection = select_at_start(record, "a", everything(record), 5)

    assert (selection.release, selection.is_below_floor) == (V1, True)
    assert selection.given_up == ()


def test_what_served_in_place_of_a_damaged_release_is_gone_back_to() -> None:
    record = serving(V1, V2)
    record = select_at_start(record, "a", digests(V1, FACTORY), 0).record
    record = stage(record, "a", V3, seq=3)

    record = confirm(record, "a", record.slot("a").generation)

    assert (record.slot("a").current, record.slot("a").previous) == (V3, V1)


def test_what_was_damaged_stays_where_the_trial_is_what_served_in_its_place() -> None:
    record = serving(V1, V2)
    record = select_at_start(record, "a", digests(V1, FACTORY), 0).record
    record = stage(record, "a", V1, seq=3)

    record = confirm(record, "a", record.slot("a").generation)

    assert (record.slot("a").current, record.slot("a").previous) == (V1, V2)


@pytest.mark.parametrize("now_s", [math.nan, math.inf])
def test_a_time_that_is_none_is_refused(now_s: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        select_at_start(serving(V1), "a", (), now_s)
