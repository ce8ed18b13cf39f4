from __future__ import annotations

import random
from fractions import Fraction
from math import comb
from typing import Any

import pytest

from runtime.core.releases import Fault
from runtime.core.trial import (
    Decision,
    TrialLimits,
    Verdict,
    Window,
    judge,
    slow_limit_ms,
    upper_tail,
)

LIMITS = TrialLimits(soak_s=600, deadline_s=3600, min_requests=200)
BEFORE = Window(num_requests=2000, num_errors=20, num_escalated=200, p95_ms=10)
GOOD = Window(num_requests=400, num_errors=4, num_escalated=40, num_slow=8)


def verdict(trial: Window, elapsed_s: float = 700, **changes: Any) -> tuple[Decision, Fault | None]:
    limits = TrialLimits(soak_s=600, deadline_s=3600, min_requests=200, **changes)
    found = judge(trial, BEFORE, elapsed_s, limits)
    return found.decision, found.fault


def test_a_release_like_the_one_before_is_kept_after_its_soak() -> None:
    assert verdict(GOOD, 599) == (Decision.WAIT, None)
    assert verdict(GOOD, 600) == (Decision.KEEP, None)


@pytest.mark.parametrize(
    ("trial", "fault"),
    [
        (Window(num_requests=400, num_errors=40), Fault.ERRORS),
        (Window(num_requests=400, num_slow=80), Fault.LATENCY),
        (Window(num_requests=400, num_escalated=200), Fault.ESCALATIONS),
        (Window(num_requests=400, num_shadowed=100, num_agreed=60), Fault.DISAGREEMENT),
    ],
)
def test_each_gate_sends_a_worse_release_back(trial: Window, fault: Fault) -> None:
    assert verdict(trial) == (Decision.ROLL_BACK, fault)
    # Not only at the end: at the first look, too.
    assert verdict(trial, 10) == (Decision.ROLL_BACK, fault)


def test_an_invalid_output_needs_no_minimum_and_no_soak() -> None:
    trial = Window(num_requests=1, num_invalid=1)

    assert verdict(trial, 0) == (Decision.ROLL_BACK, Fault.INVALID_OUTPUT)
    assert verdict(trial, 0, max_invalid=1) == (Decision.WAIT, None)


def test_a_few_requests_prove_nothing() -> None:
    trial = Window(num_requests=10, num_errors=2, num_slow=2, num_escalated=5)

    assert verdict(trial) == (Decision.WAIT, None)
    assert verdict(trial, 3600) == (Decision.ROLL_BACK, Fault.TOO_FEW)


def test_time_alone_keeps_nothing() -> None:
    assert verdict(Window(), 3600) == (Decision.ROLL_BACK, Fault.TOO_FEW)
    assert verdict(GOOD, 3599, min_shadowed=50) == (Decision.WAIT, None)
    assert verdict(GOOD, 3600, min_shadowed=50) == (Decision.ROLL_BACK, Fault.TOO_FEW)


def test_what_failed_all_the_time_is_called_that_even_with_few_requests() -> None:
    trial = Window(num_requests=50, num_errors=50)

    assert verdict(trial, 3600) == (Decision.ROLL_BACK, Fault.ERRORS)


def test_without_a_window_before_errors_have_a_limit_of_their_own() -> None:
    bad = Window(num_requests=400, num_errors=60, num_escalated=400, num_slow=400)
    well = Window(num_requests=400, num_errors=20, num_escalated=400, num_slow=400)

    for before in (None, Window()):
        assert judge(bad, before, 700, LIMITS).fault is Fault.ERRORS
        assert judge(well, before, 700, LIMITS).decision is Decision.KEEP


def test_slow_is_what_the_model_before_hardly_ever_was() -> None:
    assert slow_limit_ms(BEFORE, LIMITS) == 12.5
    assert slow_limit_ms(Window(), LIMITS) is None
    assert slow_limit_ms(None, LIMITS) is None


def test_looks_are_taken_at_numbers_that_double_and_are_bounded() -> None:
    looks, taken_at = 0, []
    for num in range(0, 200_000, 50):
        found = judge(Window(num_requests=num), BEFORE, 0, LIMITS, num_looks=looks)
        if found.num_looks > looks:
            taken_at.append(num)
        looks = found.num_looks

    assert taken_at == [200, 400, 800, 1600, 3200, 6400, 12_800]
    assert looks == LIMITS.num_looks - 1


def simulated(error_rate: float, chance: random.Random) -> Verdict:
    limits = TrialLimits(soak_s=100, deadline_s=200, min_requests=200)
    num_before = sum(chance.random() < 0.02 for _ in range(2000))
    before = Window(num_requests=2000, num_errors=num_before)
    looks = errors = 0
    for second in range(101):
        errors += sum(chance.random() < error_rate for _ in range(20))
        trial = Window(num_requests=20 * (second + 1), num_errors=errors)
        found = judge(trial, before, second, limits, num_looks=looks)
        looks = found.num_looks
        if found.decision is not Decision.WAIT:
            return found
    raise AssertionError("a trial that does not end")


def test_a_good_release_is_hardly_ever_sent_back_and_one_four_times_as_bad_always() -> None:
    chance = random.Random(1)

    good = [simulated(0.02, chance).decision for _ in range(60)]
    bad = [simulated(0.08, chance).fault for _ in range(30)]

    assert good.count(Decision.ROLL_BACK) <= 1
    assert set(bad) == {Fault.ERRORS}


@pytest.mark.parametrize(
    ("num", "of", "chance"),
    [(1, 1, 0.3), (5, 10, 0.2), (10, 10, 0.5), (30, 200, 0.05), (290, 300, 0.85), (7, 400, 1e-3)],
)
def test_the_tail_is_that_of_the_binomial_distribution(num: int, of: int, chance: float) -> None:
    share = Fraction(chance)
    exact = sum(comb(of, k) * share**k * (1 - share) ** (of - k) for k in range(num, of + 1))

    assert upper_tail(num, of, chance) == pytest.approx(float(exact), rel=1e-9)


def test_the_tail_says_nothing_at_or_below_the_mean() -> None:
    assert upper_tail(0, 0, 0.5) == 1
    assert upper_tail(5, 10, 0.5) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_requests": 1, "num_errors": 2},
        {"num_shadowed": 1, "num_agreed": 2},
        {"num_requests": 3, "num_slow": -1},
        {"p95_ms": float("nan")},
        {"p95_ms": -1.0},
    ],
)
def test_counts_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"total|negative|milliseconds"):
        Window(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"soak_s": 10.0, "deadline_s": 9.0},
        {"soak_s": float("nan")},
        {"deadline_s": float("inf")},
        {"alpha": 0.0},
        {"min_agreement": 1.0},
        {"max_ratio": 0.5},
        {"max_slowdown": float("nan")},
    ],
)
def test_limits_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"hold|excluded|at least"):
        TrialLimits(**wrong)
