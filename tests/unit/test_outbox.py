"""What is given up for what, when an item is tried again, and what a better answer may come for."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.core.outbox import (
    RANKS,
    SET_CLOCK_S,
    Held,
    Limits,
    Patience,
    Used,
    is_expired,
    is_unanswered,
    room_for,
)
from runtime.messages import ItemKind, Outcome, Reason

LIMITS = Limits(max_items=3, max_bytes=100, max_age_s=60)
NOW_S = SET_CLOCK_S + 1000


def held(name: str, rank: int, num_bytes: int = 10) -> Held:
    return Held(name, rank, num_bytes)


def test_what_people_say_outlives_what_is_counted() -> None:
    assert RANKS[ItemKind.CORRECTION] < RANKS[ItemKind.FEEDBACK] < RANKS[ItemKind.ESCALATION]
    assert RANKS[ItemKind.ESCALATION] < RANKS[ItemKind.REVIEW] < RANKS[ItemKind.METRICS]


def test_while_there_is_room_nothing_is_dropped() -> None:
    assert room_for(held("new", 5), Used(2, 90), LIMITS, [held("old", 5)]) == []


def test_the_first_in_line_go_until_the_new_one_fits() -> None:
    first = [held("a", 5, 20), held("b", 4, 20), held("c", 2, 20)]

    assert room_for(held("new", 2, 50), Used(3, 60), LIMITS, first) == ["a"]
    assert room_for(held("new", 2, 80), Used(3, 60), LIMITS, first) == ["a", "b"]


def test_nothing_is_dropped_for_what_is_less_precious() -> None:
    first = [held("a", 1), held("b", 0)]

    assert room_for(held("new", 2), Used(3, 20), LIMITS, first) is None


def test_what_does_not_fit_even_then_costs_nobody_a_place() -> None:
    # Peer that fails: Groundlight, whose queue drops what is in it for what it cannot take.
    assert room_for(held("new", 0, 101), Used(1, 10), LIMITS, [held("a", 5)]) is None
    assert room_for(held("new", 3, 95), Used(2, 20), LIMITS, [held("a", 5), held("b", 1)]) is None
    assert room_for(held("new", 3, 95), Used(1, 10), LIMITS, []) is None


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 60)), max_size=8),
    st.integers(0, 5),
    st.integers(1, 120),
)
def test_afterwards_it_fits_and_no_more_was_given_up_than_needed(
    others: list[tuple[int, int]], rank: int, num_bytes: int
) -> None:
    line = sorted(
        (Held(str(n), r, b) for n, (r, b) in enumerate(others)), key=lambda one: -one.rank
    )
    limits = Limits(max_items=max(1, len(line)), max_bytes=max(1, sum(o.num_bytes for o in line)))

    dropped = room_for(
        Held("new", rank, num_bytes), Used(len(line), limits.max_bytes), limits, iter(line)
    )

    given_up = [one for one in line if dropped and one.id in dropped]
    left = limits.max_bytes if line else 0
    left -= sum(one.num_bytes for one in given_up)
    if dropped is None:
        least = sum(one.num_bytes for one in line if one.rank < rank)
        none_left = not any(one.rank >= rank for one in line)
        assert none_left or num_bytes > limits.max_bytes - least
    else:
        assert all(one.rank >= rank for one in given_up)
        assert [one.id for one in line[: len(given_up)]] == dropped
        last = given_up[-1].num_bytes if given_up else 0
        assert not given_up or (left + num_bytes + last > limits.max_bytes or len(given_up) == 1)


@pytest.mark.parametrize(
    ("created_s", "expected"),
    [
        (NOW_S - 61, True),
        (NOW_S - 59, False),
        (NOW_S + 9999, False),
        # Made when the clock had not been set: nobody knows how old it is.
        (12.0, False),
    ],
)
def test_only_a_known_age_can_be_too_high(created_s: float, expected: bool) -> None:
    assert is_expired(created_s, NOW_S, LIMITS) is expected


def test_waits_double_up_to_the_longest_and_are_spread() -> None:
    patience = Patience(ack_s=1, answer_s=10, first_s=2, longest_s=60)

    waits = [patience.wait_s(ItemKind.AUDIT, attempts, 1.0) for attempts in (0, 1, 2, 20, 10**9)]

    assert waits == [3, 5, 9, 61, 61]
    assert patience.wait_s(ItemKind.AUDIT, 0, 0.0) == 2
    assert patience.wait_s(ItemKind.ESCALATION, 0, 0.0) == 11


def test_who_is_put_off_waits_as_told_and_longer_each_time() -> None:
    patience = Patience(first_s=2, longest_s=60)

    assert patience.put_off_s(5, 0, 1.0) == 5
    assert patience.put_off_s(5, 3, 1.0) == 16
    assert patience.put_off_s(1e9, 3, 1.0) == 60


@given(st.integers(0, 10**6), st.floats(0, 1), st.sampled_from(ItemKind))
def test_a_wait_is_never_shorter_than_an_acknowledgement_may_take(
    attempts: int, draw: float, kind: ItemKind
) -> None:
    wait_s = Patience().wait_s(kind, attempts, draw)

    assert 10 < wait_s <= 360
    assert math.isfinite(wait_s)


@pytest.mark.parametrize(
    ("sent_s", "heard_s", "expected"),
    [(None, 5.0, 1), (4.0, None, 1), (4.0, 3.0, 1), (4.0, 5.0, 2)],
)
def test_silence_counts_only_while_others_are_heard(
    sent_s: float | None, heard_s: float | None, expected: int
) -> None:
    assert Patience().strikes(1, sent_s=sent_s, heard_s=heard_s) == expected


@pytest.mark.parametrize(
    ("outcome", "reason", "above", "expected"),
    [
        (Outcome.ANSWERED, Reason.CONFIDENT, None, False),
        (Outcome.DEGRADED, Reason.UPSTREAM_TIMEOUT, Outcome.FAILED, True),
        # The tier above answered, and could not climb itself.
        (Outcome.DEGRADED, Reason.NO_UPSTREAM, Outcome.DEGRADED, True),
        (Outcome.FAILED, Reason.LOCAL_FAILED, None, True),
        (Outcome.DEGRADED, Reason.RESIDENCY, None, False),
        (Outcome.DEGRADED, Reason.REVIEW, Outcome.DEGRADED, False),
        (Outcome.ABSTAINED, Reason.NO_CONFIDENCE, Outcome.ABSTAINED, False),
    ],
)
def test_a_better_answer_may_come_only_where_the_climb_failed(
    outcome: Outcome, reason: Reason, above: Outcome | None, expected: bool
) -> None:
    assert is_unanswered(outcome, reason, above) is expected
