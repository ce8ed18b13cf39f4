"""The gate on fleets as they are: devices that differ, errors in bursts, a seeded simulation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from runtime.core.before_after import Counts
from runtime.core.gate import GateSettings, Metric, Verdict, judge

Errors = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]

RUNS = 250
LOOKS_S = tuple(300.0 * look for look in range(1, 13))
SETTINGS = GateSettings(looks_s=LOOKS_S, alpha=0.05)


def errors(rng: np.random.Generator, num: int, times: float = 1.0) -> Errors:
    """Errors before (in all) and after (up to each look) of ``num`` devices, 60 requests a minute.

    Rates of mean 1 % and coefficient of variation 1.8, times a gamma draw every five minutes; all
    devices have half as many again in the second hour, as a busy time of the day would do it.
    """
    rates = rng.gamma(1 / 1.8**2, 0.01 * 1.8**2, (num, 1))
    before = rng.binomial(300, np.minimum(1, rates * rng.gamma(1.0, 1.0, (num, 12))))
    bursts = rng.gamma(1.0, 1.0, (num, 12))
    after = rng.binomial(300, np.minimum(1, 1.5 * times * rates * bursts))
    return before.sum(axis=1), after.cumsum(axis=1)


def counts(arm: Errors, look: int) -> tuple[Counts, ...]:
    before, after = arm
    return tuple(
        Counts(str(place), 3600, int(before[place]), 300 * (look + 1), int(after[place, look]))
        for place in range(len(before))
    )


def alarms(times: float, canaries: int = 10) -> float:
    """The share of runs with a breach at any of twelve looks."""
    rng = np.random.default_rng([11, round(10 * times)])
    num = 0
    for _ in range(RUNS):
        treated, control = errors(rng, canaries, times), errors(rng, 100)
        num += any(
            judge(
                [Metric("errors", counts(treated, look), counts(control, look))],
                SETTINGS,
                look,
                look - 1,
            ).verdict
            is Verdict.BREACH
            for look in range(len(LOOKS_S))
        )
    return num / RUNS


def test_false_alarms_are_as_rare_as_promised() -> None:
    """5 % were promised; 12 of 250 is that, and 3 % more is two standard deviations."""
    assert alarms(1.0) <= 0.08


@pytest.mark.parametrize(("times", "power"), [(2.0, 0.8), (5.0, 0.99)])
def test_a_worse_model_is_found_within_the_hour(times: float, power: float) -> None:
    assert alarms(times) >= power
