"""Steps towards safety by audits, and when audits say that a new fit is due."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.core.recalibration import RecalibrationDetector
from runtime.core.steering import ETA, Steering

shares = st.floats(0, 1)
chances = st.floats(1e-6, 1)
# An answer, or an audit with its result.
events = st.lists(
    st.one_of(
        st.tuples(st.just("answer"), shares, st.booleans(), chances),
        st.tuples(st.just("audit"), shares, st.sampled_from([True, False, None]), chances),
    ),
    max_size=100,
)
RATE = 0.02


@given(st.floats(0, 2), events)
def test_tau_stays_in_its_range_and_wealth_is_never_negative(
    rate: float, seen: list[tuple[str, float, bool | None, float]]
) -> None:
    steering, detector = Steering(rate), RecalibrationDetector(rate)

    for what, target, result, chance in seen:
        if what == "answer":
            steering.note_answer(target, disagrees=bool(result))
            detector.note_answer(target, disagrees=bool(result))
        else:
            steering.note_audit(target, chance, agrees=result)
            detector.note_audit(target, chance, agrees=result)
        assert 0 <= steering.tau <= 1
        assert math.isfinite(detector.wealth)
        assert detector.wealth >= 1


def test_one_audit_that_disagrees_moves_by_eta_in_the_mean() -> None:
    steering = Steering(RATE)

    steering.note_audit(0.01, RATE, agrees=False)

    assert steering.tau == pytest.approx(ETA)


def test_requests_without_disagreement_take_it_back() -> None:
    steering = Steering(RATE)
    steering.note_audit(0.01, RATE, agrees=False)

    for _ in range(round(1 / RATE / 0.01)):
        steering.note_answer(0.01, disagrees=False)

    assert steering.tau == pytest.approx(0, abs=1e-9)


def test_an_audit_that_did_not_come_back_speaks_for_nobody() -> None:
    steering = Steering(RATE)
    steering.note_audit(0.5, RATE, agrees=False)
    before = steering.tau

    for _ in range(round(1 / RATE)):
        steering.note_answer(0.5, disagrees=False)
    steering.note_audit(0.5, RATE, agrees=None)

    assert steering.tau == pytest.approx(before)


def test_without_audits_nothing_is_steered() -> None:
    steering = Steering(0.0)

    steering.note_answer(0.0, disagrees=True)

    assert steering.tau == 0


def bets(disagreement: float, num: int, *, seed: int, alarm_at: float = 1e4) -> list[int]:
    """Requests until each alarm, of answers that disagree this often and may one time in fifty."""
    chooser, detector = random.Random(seed), RecalibrationDetector(RATE, alarm_at)
    found = []
    for number in range(num):
        detector.note_answer(0.02, disagrees=False)
        # Half are audited more often than the others.
        chance = RATE * chooser.choice([0.5, 1.5])
        if chooser.random() < chance:
            agrees = chooser.random() >= disagreement
            if detector.note_audit(0.02, chance, agrees=agrees):
                found.append(number)
    return found


def test_a_promise_that_holds_raises_no_alarm() -> None:
    assert [bets(0.02, 100_000, seed=seed) for seed in range(3)] == [[], [], []]


def test_a_broken_promise_is_found_and_said_once() -> None:
    found = bets(0.08, 100_000, seed=1)

    assert len(found) == 1


def test_the_mean_number_of_audits_until_a_false_alarm_is_at_least_what_was_asked_for() -> None:
    times = [(bets(0.02, 60_000, seed=seed, alarm_at=20.0) or [60_000])[0] for seed in range(20)]

    assert sum(times) / len(times) * RATE >= 20.0


def test_a_disagreement_that_is_known_without_an_audit_counts_once() -> None:
    known, audited = RecalibrationDetector(1.0), RecalibrationDetector(1.0)

    known.note_answer(0.0, disagrees=True)
    known.note_audit(0.0, 1.0, agrees=True)
    audited.note_answer(0.0, disagrees=False)
    audited.note_audit(0.0, 1.0, agrees=False)

    assert known.wealth == audited.wealth > 1


def test_an_audit_that_did_not_come_back_is_no_bet() -> None:
    detector = RecalibrationDetector(RATE)
    detector.note_answer(0.02, disagrees=False)

    assert not detector.note_audit(0.02, RATE, agrees=None)
    assert detector.wealth == 1
