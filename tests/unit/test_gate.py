"""The before/after test: what it says of figures whose answer is known, and of useless ones."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.rollouts import metric
from runtime.core.before_after import MOST, Arm, Counts, RatioTest, control_of
from runtime.core.gate import GateSettings, Metric, Verdict, judge
from runtime.core.spending import bound, for_few, spent

ONE_LOOK = GateSettings(looks_s=(3600.0,), alpha=0.05)


def counts(before: int, after: int, requests: tuple[int, int] = (9000, 9000)) -> Counts:
    return Counts("d", requests[0], before, requests[1], after)


def said(treated: list[Counts], control: list[Counts], **settings: float) -> Verdict:
    found = judge(
        [Metric("errors", tuple(treated), tuple(control))],
        GateSettings(looks_s=(3600.0,), alpha=0.05, **settings),  # type: ignore[arg-type]
        0,
    )
    return found.verdict


QUIET = [counts(100, 100)] * 8


def test_as_many_events_as_before_are_healthy() -> None:
    assert said([counts(100, 100)] * 3, QUIET) is Verdict.HEALTHY


def test_twice_as_many_are_a_breach_and_the_figures_say_so() -> None:
    judgement = judge([metric(after=100)], ONE_LOOK, 0)

    (found,) = judgement.findings
    assert judgement.verdict is found.verdict is Verdict.BREACH
    assert found.ratio == pytest.approx(2, rel=0.01)
    assert found.z > found.bound > 1.645
    assert found.upper > 2
    assert (found.num_events, found.num_treated, found.num_controls) == (450, 3, 8)
    assert "2.00 times as often" in judgement.why


def test_what_happens_to_everybody_is_no_breach() -> None:
    """Twice the errors everywhere: the time of day, not the model."""
    assert said([counts(100, 200)] * 3, [counts(100, 200)] * 8) is Verdict.HEALTHY


def test_a_device_that_is_always_bad_is_its_own_control() -> None:
    assert said([counts(4000, 4000), counts(1, 1), counts(2, 2)], QUIET) is Verdict.HEALTHY


def test_more_requests_are_no_more_errors() -> None:
    assert said([counts(100, 400, (9000, 36_000))] * 3, QUIET) is Verdict.HEALTHY


def test_bursts_in_the_control_arm_widen_the_bound() -> None:
    bursty = [counts(180, 20), counts(20, 180)] * 4

    assert said([counts(80, 120)] * 3, QUIET) is Verdict.BREACH
    assert said([counts(80, 120)] * 3, bursty) is Verdict.PENDING


def test_no_alarm_is_not_enough_to_go_on() -> None:
    assert said([counts(20, 22)] * 3, QUIET) is Verdict.PENDING


def test_too_few_events_decide_nothing() -> None:
    assert said([counts(0, 3)] * 3, QUIET) is Verdict.INSUFFICIENT


def test_hardly_any_errors_in_very_many_requests_are_healthy() -> None:
    rare = [counts(0, 0, (20_000, 20_000))] * 3

    assert said(rare, [counts(0, 0)] * 8) is Verdict.HEALTHY
    assert said(rare, [counts(0, 0)] * 8, tolerated_rate=0.0) is Verdict.INSUFFICIENT


def test_errors_out_of_nothing_are_a_breach_though_controls_had_none() -> None:
    assert said([counts(0, 90)] * 3, [counts(0, 0)] * 8) is Verdict.BREACH


def test_errors_that_have_gone_are_healthy() -> None:
    assert said([counts(90, 0)] * 3, QUIET) is Verdict.HEALTHY


def test_sure_but_small_differences_are_no_breach() -> None:
    large = (10**6, 10**6)

    assert said([counts(99_000, 104_000, large)] * 3, [counts(99_000, 99_000, large)] * 50) is (
        Verdict.HEALTHY
    )


@pytest.mark.parametrize(
    ("treated", "control"),
    [
        ([], QUIET),
        ([counts(100, 100)] * 2, QUIET),
        ([counts(100, 100)] * 3, QUIET[:4]),
        ([counts(100, 0, (9000, 0))] * 3, QUIET),
        ([counts(0, 100, (0, 9000))] * 3, QUIET),
    ],
)
def test_too_few_devices_with_requests_never_promote(
    treated: list[Counts], control: list[Counts]
) -> None:
    assert said(treated, control) is Verdict.INSUFFICIENT


def test_one_metric_that_breaches_is_enough_and_all_have_to_be_healthy() -> None:
    good, bad, few = metric(after=40), metric("slow", after=500), metric("drifted", controls=0)
    some = GateSettings(looks_s=(3600.0,))

    assert judge([good, bad, few], some, 0).verdict is Verdict.BREACH
    assert judge([good, few], some, 0).verdict is Verdict.INSUFFICIENT
    assert judge([good, metric("slow", after=62)], some, 0).verdict is Verdict.PENDING
    assert judge([good], some, 0).verdict is Verdict.HEALTHY
    assert judge([], some, 0).verdict is Verdict.INSUFFICIENT


def test_metrics_divide_the_chance_of_a_false_alarm() -> None:
    alone = judge([metric()], ONE_LOOK, 0).findings[0].bound
    of_three = judge([metric(), metric("b"), metric("c")], ONE_LOOK, 0).findings[0].bound

    assert of_three > alone


def test_early_looks_need_far_more_evidence() -> None:
    settings = GateSettings(looks_s=(60.0, 120.0, 180.0), alpha=0.05)
    bounds = [judge([metric()], settings, look, look - 1).findings[0].bound for look in range(3)]

    assert bounds[0] > bounds[1] > bounds[2]
    assert judge([metric()], settings, 2).findings[0].bound < bounds[2]


@pytest.mark.parametrize(
    "numbers",
    [(10, 11, 10, 0), (10, 0, 10, 11), (10, -1, 10, 0), (-1, 0, 10, 0), (10, 0, 10, -1)],
)
def test_impossible_counts_are_refused(numbers: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="not among"):
        Counts("d", *numbers)


@pytest.mark.parametrize(
    "wrong",
    [
        {"looks_s": ()},
        {"looks_s": (0.0, 1.0)},
        {"looks_s": (2.0, 1.0)},
        {"looks_s": (1.0, math.inf)},
        {"looks_s": (math.nan,)},
        {"alpha": 0.0},
        {"alpha": math.nan},
        {"advance_alpha": 1.0},
        {"margin": 1.0},
        {"margin": math.inf},
        {"least_ratio": 0.5},
        {"tolerated_rate": 1.0},
        {"min_events": 0},
        {"min_treated": 0},
        {"min_controls": 1},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        GateSettings(**wrong)  # type: ignore[arg-type]


@given(st.floats(0.001, 0.2), st.integers(1, 12))
def test_all_looks_together_spend_alpha_and_no_more(alpha: float, num: int) -> None:
    each = [1 - NormalDist().cdf(bound(alpha, num, look, look - 1)) for look in range(num)]

    assert sum(each) == pytest.approx(alpha, rel=1e-3)
    assert spent(alpha, 0) == 0
    assert spent(alpha, 1) == spent(alpha, 2) == pytest.approx(alpha)


def test_the_spread_of_few_controls_widens_bounds_as_students_t_does() -> None:
    """t(0.975) with 5 and 30 degrees of freedom is 2.571 and 2.042."""
    assert for_few(1.96, 5) == pytest.approx(2.571, abs=0.03)
    assert for_few(1.96, 30) == pytest.approx(2.042, abs=0.002)


ROWS = st.lists(
    st.tuples(st.integers(1, 5000), st.integers(0, 300), st.integers(1, 5000), st.integers(0, 300)),
    min_size=1,
    max_size=20,
)


def arm(rows: list[tuple[int, int, int, int]]) -> Arm:
    return Arm([Counts("d", a + b, b, c + d, d) for a, b, c, d in rows])


@given(ROWS, ROWS, st.floats(0.5, 4))
def test_no_ratio_above_the_upper_bound_fits_the_figures(
    treated: list[tuple[int, int, int, int]],
    control: list[tuple[int, int, int, int]],
    quantile: float,
) -> None:
    test = RatioTest(arm(treated), *control_of(arm(control)))
    upper = test.ratio_at(-quantile)

    assert 0 < test.ratio_at(0.0) <= upper <= MOST
    for times in (1.2, 2.0, 10.0, 1000.0):
        assert upper * times >= MOST or test.z(upper * times) < -quantile
    assert math.isfinite(test.z(1.0))
    assert test.rate_upper(quantile) > 0


@given(ROWS)
def test_more_events_after_are_never_less_surprising(
    rows: list[tuple[int, int, int, int]],
) -> None:
    less, more = (
        RatioTest(arm([(a, b, c, d + more) for a, b, c, d in rows]), 1.0, 0.0, 100.0)
        for more in (0, 50)
    )

    assert more.ratio_at(0.0) >= less.ratio_at(0.0) * 0.999


def test_without_any_event_nothing_is_known_of_a_ratio() -> None:
    test = RatioTest(arm([(10, 0, 10, 0)]), 1.0, 0.0, 4.0)

    assert test.z(1.0) == 0
    assert test.ratio_at(0.0) == MOST
    assert test.dispersion == 1
