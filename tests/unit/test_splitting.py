"""Which of two releases a request goes to, and what a split does to the record of a device."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.releases import digests, everything, release
from runtime.core.activation import (
    MAX_ATTEMPTS,
    Refusal,
    assign,
    confirm,
    ran_well,
    roll_back,
    set_factory,
    stage,
    stopped_cleanly,
)
from runtime.core.obeying import Standing, go_back, standing, take_back, withdraw
from runtime.core.releases import (
    Fault,
    Record,
    Release,
    Split,
    Trial,
    decode_record,
    encode_record,
)
from runtime.core.selection import MAX_RESTARTS, Origin, select_at_start
from runtime.core.splitting import (
    Arm,
    arm_for,
    arm_of,
    check_may_split,
    divide,
    key_in,
    unite,
)
from runtime.errors import ReleaseError

FACTORY, ONE, TWO, THREE = release(0), release(1), release(2), release(3)
keys = st.text(min_size=1, max_size=20)
shares = st.floats(0.001, 0.999)


def split_of(what: Release = TWO, share: float = 0.3, experiment: str = "e") -> Split:
    return Split(Trial(0, what), share, experiment, "user")


def serving() -> Record:
    record = stage(set_factory(Record(), "m", FACTORY), "m", ONE, seq=1)
    return confirm(record, "m", record.slot("m").generation)


def divided() -> Record:
    return divide(serving(), "m", split_of(), seq=2)


@given(keys, keys, shares, shares)
def test_a_larger_share_takes_no_key_away(
    experiment: str, key: str, one: float, other: float
) -> None:
    small, large = sorted((one, other))

    assert arm_of(experiment, key, large) or not arm_of(experiment, key, small)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9])
def test_the_share_is_reached(share: float) -> None:
    """Five standard deviations of a binomial of 20,000."""
    num = 20_000

    got = sum(arm_of("an experiment", f"user-{number}", share) for number in range(num))

    assert abs(got - share * num) < 5 * math.sqrt(num * share * (1 - share))


def test_experiments_are_independent() -> None:
    """Of the keys in the arm of one, half are in that of the other."""
    num = 20_000
    first = [number for number in range(num) if arm_of("one", str(number), 0.5)]

    both = sum(arm_of("two", str(number), 0.5) for number in first)

    assert abs(both - len(first) / 2) < 5 * math.sqrt(len(first) / 4)


def test_it_is_the_same_in_every_process() -> None:
    """Python's own hash is not."""
    text = "from runtime.core.splitting import arm_of\n"
    text += "print(''.join(str(int(arm_of('e', str(n), 0.4))) for n in range(200)))"
    found = subprocess.run([sys.executable, "-c", text], capture_output=True, check=True)

    here = "".join(str(int(arm_of("e", str(number), 0.4))) for number in range(200))
    assert found.stdout.decode().strip() == here
    assert {"0", "1"} == set(here)


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ("anna", "anna"), ("", ""), (7.0, "7"), (7, "7"), ("7", "7"), (7.5, "7.5"),
        (True, "true"), (False, "false"), (-0.0, "0"), (1e300, "1e+300"),
    ],
)  # fmt: skip
def test_a_key_is_text_however_it_was_sent(value: str | float, key: str) -> None:
    assert key_in({"user": value}, "user") == key


def test_without_a_key_a_request_is_in_no_arm() -> None:
    split = split_of(share=0.5)

    assert arm_for(split, {}) is Arm.UNKEYED
    assert arm_for(split, {"user": ""}) is Arm.UNKEYED
    arms = {arm_for(split, {"user": f"{number}"}) for number in range(50)}
    assert arms == {Arm.CONTROL, Arm.TREATMENT}


def test_a_split_leaves_what_serves_where_it_is() -> None:
    record = divided()

    slot = record.slot("m")
    assert (slot.current, slot.previous, slot.factory) == (ONE, None, FACTORY)
    assert slot.split == Split(Trial(2, TWO), 0.3, "e", "user")
    assert (standing(slot), slot.seq, slot.wanted, slot.trial) == (Standing.SPLIT, 2, None, None)
    assert digests(TWO) <= set(record.blobs)
    assert decode_record(encode_record(record), "state.json") == record


def test_the_same_release_may_get_another_share_and_keeps_its_attempts() -> None:
    record = select_at_start(divided(), "m", everything(divided()), 0).record

    record = divide(record, "m", split_of(share=0.6), seq=3)

    assert record.slot("m").split == Split(Trial(2, TWO, attempts=1), 0.6, "e", "user")


def test_another_release_takes_the_place_of_a_split() -> None:
    record = divide(divided(), "m", split_of(THREE), seq=3)

    slot = record.slot("m")
    assert slot.split == Split(Trial(3, THREE), 0.3, "e", "user")
    assert slot.bad == ()


def test_nothing_is_split_beside_a_trial_and_what_serves_not_beside_itself() -> None:
    record = stage(serving(), "m", TWO, seq=2)
    with pytest.raises(ReleaseError) as busy:
        check_may_split(record, "m", THREE)
    with pytest.raises(ReleaseError) as serves:
        divide(serving(), "m", split_of(ONE), seq=2)

    assert (busy.value.because, serves.value.because) == (Refusal.BUSY, Refusal.SERVES)


def test_a_device_without_a_confirmed_release_may_split_with_that_of_the_package() -> None:
    record = divide(set_factory(Record(), "m", FACTORY), "m", split_of(), seq=1)

    selection = select_at_start(record, "m", everything(record), 0)

    assert (selection.origin, selection.split) == (
        Origin.FACTORY,
        Split(Trial(1, TWO, attempts=1), 0.3, "e", "user"),
    )


@pytest.mark.parametrize("end", [withdraw, unite])
def test_it_ends_without_a_stain(end: object) -> None:
    record = divided()

    record = withdraw(record, "m", 3) if end is withdraw else unite(record, "m")

    slot = record.slot("m")
    assert (slot.split, slot.current, slot.bad) == (None, ONE, ())
    assert unite(record, "m") is record


def test_going_back_from_outside_or_by_hand_gives_the_new_release_up() -> None:
    for record in (
        go_back(divided(), "m", seq=3),
        take_back(divided(), "m"),
        roll_back(divided(), "m", Fault.OPERATOR),
    ):
        slot = record.slot("m")
        assert (slot.split, slot.current) == (None, ONE)
        assert [(one.manifest_sha256, one.fault) for one in slot.bad] == [
            (TWO.name, Fault.OPERATOR)
        ]


def test_a_trial_of_the_same_release_takes_over_when_it_is_staged() -> None:
    record = assign(divided(), "m", TWO, seq=3)
    assert record.slot("m").split is not None

    record = stage(record, "m", TWO, seq=3)

    slot = record.slot("m")
    assert (slot.split, slot.trial, slot.current) == (None, Trial(3, TWO), ONE)


def test_the_latest_assignment_is_all_that_counts() -> None:
    record = assign(divided(), "m", THREE, seq=3)

    assert (record.slot("m").split, record.slot("m").wanted) == (None, THREE)
    assert record.slot("m").bad == ()


def test_restarts_are_put_down_to_the_new_release() -> None:
    record = divided()
    for _ in range(MAX_ATTEMPTS):
        selection = select_at_start(record, "m", everything(record), 1.0)
        assert (selection.release, selection.split is not None) == (ONE, True)
        record = selection.record

    selection = select_at_start(record, "m", everything(record), 1.0)

    assert (selection.release, selection.origin, selection.split) == (ONE, Origin.CURRENT, None)
    assert [one.fault for one in selection.given_up] == [Fault.ATTEMPTS]
    starts = selection.record.slot("m").starts
    assert starts is not None
    assert len(starts.at_s) == 1
    assert MAX_RESTARTS == MAX_ATTEMPTS


def test_runs_that_last_and_clean_ends_are_no_attempts() -> None:
    started = select_at_start(divided(), "m", everything(divided()), 1.0).record

    for settle in (ran_well, stopped_cleanly):
        split = settle(started, "m").slot("m").split
        assert split is not None
        assert split.trial.attempts == 0


def test_what_is_lost_is_not_wanted_any_more_though_it_was_assigned_meanwhile() -> None:
    record = divide(serving(), "m", split_of(), seq=2)
    record = assign(record, "m", TWO, seq=3)

    slot = select_at_start(record, "m", everything(record) - digests(TWO), 0.0).record.slot("m")

    assert slot.is_bad(TWO)
    assert (slot.split, slot.wanted) == (None, None)


def test_a_split_whose_files_are_lost_is_over() -> None:
    record = divided()

    selection = select_at_start(record, "m", digests(FACTORY, ONE), 1.0)

    assert (selection.release, selection.split) == (ONE, None)
    assert [one.fault for one in selection.given_up] == [Fault.FILES_LOST]


def test_where_nothing_else_is_whole_the_attempt_is_on_record_all_the_same() -> None:
    record = divided()

    selection = select_at_start(record, "m", digests(TWO), 1.0)

    assert (selection.release, selection.given_up) == (None, ())
    split = selection.record.slot("m").split
    assert split is not None
    assert (selection.split, split.trial.attempts) == (split, 1)
