"""Deadlines and budgets."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.deadline import (
    MAX_BUDGET_MS,
    Deadline,
    check_budget_ms,
    expiry_s,
    parse_remaining_ms,
)
from runtime.errors import InvalidBudgetError

instants = st.floats(0, 1e6)
budgets = st.floats(0.001, MAX_BUDGET_MS)


@given(instants, budgets, st.floats(0, 1e6))
def test_what_is_left_shrinks_by_what_has_passed(
    now_s: float, budget_ms: float, passed_ms: float
) -> None:
    deadline = Deadline.after(now_s, budget_ms)

    left_ms = deadline.remaining_ms(now_s + passed_ms / 1000)

    assert left_ms == pytest.approx(budget_ms - passed_ms, abs=1e-2)


@given(instants, budgets, instants)
def test_a_deadline_is_past_when_nothing_is_left(
    start_s: float, budget_ms: float, now_s: float
) -> None:
    deadline = Deadline.after(start_s, budget_ms)

    assert deadline.is_past(now_s) == (deadline.remaining_ms(now_s) <= 0)


@given(instants, budgets, st.floats(0, 1000))
def test_a_margin_comes_off_what_is_left(now_s: float, budget_ms: float, margin_ms: float) -> None:
    deadline = Deadline.after(now_s, budget_ms)

    earlier = deadline.earlier_by_ms(margin_ms)

    lost_ms = deadline.remaining_ms(now_s) - earlier.remaining_ms(now_s)
    assert lost_ms == pytest.approx(margin_ms, abs=1e-2)


@given(budgets)
def test_a_usable_budget_passes_unchanged(budget_ms: float) -> None:
    assert check_budget_ms(budget_ms) == budget_ms


@pytest.mark.parametrize(
    "budget", [0, -1, -0.0, math.nan, math.inf, -math.inf, MAX_BUDGET_MS + 1, True, "50", None]
)
def test_an_unusable_budget_is_refused(budget: object) -> None:
    with pytest.raises(InvalidBudgetError):
        check_budget_ms(budget)  # type: ignore[arg-type]


@given(st.floats(-1e9, MAX_BUDGET_MS))
def test_remaining_time_survives_the_wire(remaining_ms: float) -> None:
    assert parse_remaining_ms(f"{remaining_ms:.3f}") == pytest.approx(remaining_ms, abs=1e-3)


@given(st.text())
def test_any_text_is_a_finite_number_or_refused(text: str) -> None:
    try:
        remaining_ms = parse_remaining_ms(text)
    except InvalidBudgetError:
        return
    assert math.isfinite(remaining_ms)
    assert remaining_ms <= MAX_BUDGET_MS


@pytest.mark.parametrize("text", ["", "abc", "nan", "inf", "1e12", "-inf"])
def test_remaining_time_that_is_no_usable_number_is_refused(text: str) -> None:
    with pytest.raises(InvalidBudgetError):
        parse_remaining_ms(text)


@given(budgets)
def test_expiry_is_whole_seconds_rounded_up_and_at_least_one(remaining_ms: float) -> None:
    seconds = expiry_s(remaining_ms)

    assert seconds >= 1
    assert seconds - 1 < max(remaining_ms / 1000, 1) <= max(seconds, 1)
