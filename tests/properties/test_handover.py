"""The margin of a tier, against what it promises for any history of late moments."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.core.handover import HALF_LIFE_S, MOST_MS, ROUNDS, USUAL_MS, Handover

STATED_MS = 5.0
moments = st.lists(
    st.tuples(st.floats(0, 20), st.floats(-1e6, 1e6) | st.just(math.nan) | st.just(math.inf))
)


def after(history: list[tuple[float, float]]) -> tuple[Handover, float]:
    """A margin that has seen these (seconds since the last, late ms), and the time."""
    handover, now_s = Handover(STATED_MS), 100.0
    for wait_s, late_ms in history:
        now_s += wait_s
        handover.note(late_ms, now_s)
    return handover, now_s


def test_the_margin_is_the_stated_one_where_nothing_was_unusually_late() -> None:
    handover, now_s = after([(1.0, 0.0), (1.0, -3.0), (1.0, math.nan), (1.0, 1.0)])

    assert handover.margin_ms(now_s) == STATED_MS


def test_the_margin_covers_both_ways_of_what_was_late() -> None:
    handover, now_s = after([(1.0, 4.0)])

    assert handover.margin_ms(now_s) == STATED_MS + ROUNDS * 4.0 - USUAL_MS


def test_a_stall_is_forgotten_by_halves() -> None:
    handover, now_s = after([(1.0, 4.0)])

    assert handover.margin_ms(now_s + HALF_LIFE_S) == pytest.approx(
        STATED_MS + ROUNDS * 2.0 - USUAL_MS
    )
    assert handover.margin_ms(now_s + 1000 * HALF_LIFE_S) == pytest.approx(STATED_MS)


def test_a_stall_of_any_length_is_forgotten_as_soon() -> None:
    handover, now_s = after([(1.0, math.inf)])

    assert handover.margin_ms(now_s) == STATED_MS + MOST_MS
    half_ms = (MOST_MS + USUAL_MS) / 2 - USUAL_MS
    assert handover.margin_ms(now_s + HALF_LIFE_S) == STATED_MS + half_ms


def test_a_lesser_stall_does_not_hide_a_worse_one() -> None:
    handover, now_s = after([(1.0, 6.0), (0.0, 1.0)])

    assert handover.margin_ms(now_s) == STATED_MS + ROUNDS * 6.0 - USUAL_MS


@given(history=moments, later_s=st.floats(0, 1e5))
def test_the_margin_stays_between_the_stated_one_and_its_limit(
    history: list[tuple[float, float]], later_s: float
) -> None:
    handover, now_s = after(history)

    now_ms, then_ms = handover.margin_ms(now_s), handover.margin_ms(now_s + later_s)

    assert STATED_MS <= then_ms <= now_ms <= STATED_MS + MOST_MS


@given(history=moments, late_ms=st.floats(0, 1e3))
def test_a_margin_covers_what_was_seen_last_up_to_its_limit(
    history: list[tuple[float, float]], late_ms: float
) -> None:
    handover, now_s = after(history)

    handover.note(late_ms, now_s)

    assert handover.margin_ms(now_s) >= STATED_MS + min(MOST_MS, ROUNDS * late_ms - USUAL_MS) - 1e-9


def test_a_clock_that_goes_back_leaves_the_margin_in_its_limits() -> None:
    handover, now_s = after([(1.0, 4.0)])

    assert handover.margin_ms(now_s - 50.0) == STATED_MS + ROUNDS * 4.0 - USUAL_MS
