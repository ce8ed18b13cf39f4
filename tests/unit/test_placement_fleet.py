"""Forecasts, failures and packing: what they say by hand, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest

from runtime.adapters.exact_packing import MAX_VARIABLES, pack_exactly
from runtime.core.placement.failures import Failures, chance_of_more, spare_machines
from runtime.core.placement.forecast import (
    HOURS_OF_WEEK,
    MIN_HOURS,
    check_history,
    check_quantiles,
    forecast,
)
from runtime.core.placement.packing import (
    MAX_MACHINES,
    Demand,
    Machine,
    check_packing,
    jobs_of,
    least_machines,
    pack,
)
from runtime.errors import SettingsError, StartError

RACKS = [Machine(f"m{index}", "abc"[index % 3], 8.0, 16.0) for index in range(12)]


def history(num_weeks: int, seed: int = 0) -> list[float]:
    hours = np.arange(num_weeks * HOURS_OF_WEEK)
    noise = np.random.default_rng(seed).normal(0, 5, len(hours))
    found: list[float] = np.maximum(0, 60 + 40 * np.sin(hours / 24 * 2 * np.pi) + noise).tolist()
    return found


class TestForecast:
    def test_a_week_that_repeats_is_forecast_as_it_was(self) -> None:
        week = [float(hour) for hour in range(HOURS_OF_WEEK)]

        told = forecast(week * 3, [0.5, 0.9])

        assert told.by_hour[0] == pytest.approx(week)
        assert told.peak(0.9) == HOURS_OF_WEEK - 1
        assert all(one.coverage_share == 1 and one.pinball == 0 for one in told.errors)

    def test_the_hours_go_on_where_the_history_ends(self) -> None:
        week = [float(hour) for hour in range(HOURS_OF_WEEK)]

        told = forecast([*week, *week, *week[:5]], [0.5])

        assert told.by_hour[0] == pytest.approx([*week[5:], *week[:5]])

    def test_a_quantile_covers_about_its_share_of_held_out_hours(self) -> None:
        told = forecast(history(10), [0.5, 0.9], num_held_days=28)

        assert [one.num_hours for one in told.errors] == [28 * 24] * 2
        assert told.errors[0].coverage_share == pytest.approx(0.5, abs=0.1)
        assert told.errors[1].coverage_share == pytest.approx(0.9, abs=0.07)
        assert 0 < told.errors[1].pinball < told.errors[0].pinball

    def test_two_weeks_leave_nothing_to_hold_out(self) -> None:
        (error,) = forecast(history(2), [0.5]).errors

        assert error.num_hours == 0
        assert math.isnan(error.pinball)

    def test_no_load_at_all_is_forecast_as_none(self) -> None:
        assert forecast([0.0] * MIN_HOURS, [0.99]).peak(0.99) == 0

    @pytest.mark.parametrize("quantiles", [[], [0.0], [1.0], [math.nan], [0.5, 1.5]])
    def test_what_is_no_quantile_is_refused(self, quantiles: list[float]) -> None:
        with pytest.raises(SettingsError, match="quantile"):
            check_quantiles(quantiles)

    @pytest.mark.parametrize(
        "load", [[], [1.0] * (MIN_HOURS - 1), [math.nan] * MIN_HOURS, [-1.0] * MIN_HOURS]
    )
    def test_what_is_no_history_is_refused(self, load: list[float]) -> None:
        with pytest.raises(SettingsError, match="history of m"):
            check_history(load, "m")


class TestFailures:
    def test_the_posterior_mean_is_that_of_jeffreys_prior(self) -> None:
        assert Failures(0, 0).chance == 0.5
        assert Failures(3, 399).chance == 3.5 / 400

    def test_the_tail_is_that_of_many_draws(self) -> None:
        draw = np.random.default_rng(0)
        lost = draw.binomial(20, draw.beta(3.5, 97.5, 200_000))

        for more in range(5):
            told = chance_of_more(Failures(3, 100), 20, more)
            assert told == pytest.approx(float((lost > more).mean()), abs=0.005)
        assert chance_of_more(Failures(3, 100), 20, 20) == 0

    def test_the_fewest_spare_machines_are_found(self) -> None:
        failures = Failures(3, 400)

        found = [spare_machines(failures, needed, 0.005) for needed in (0, 1, 10, 100, 1000)]

        assert found[0] == 0
        assert found == sorted(found)
        for needed, spare in zip((1, 10, 100, 1000), found[1:], strict=True):
            assert chance_of_more(failures, needed + spare, spare) <= 0.005
            assert chance_of_more(failures, needed + spare - 1, spare - 1) > 0.005

    def test_where_nothing_ever_fails_none_is_spare(self) -> None:
        assert spare_machines(Failures(0, 1e9), 5, 0.01) == 0

    def test_too_little_evidence_is_told(self) -> None:
        with pytest.raises(SettingsError, match="observe longer"):
            spare_machines(Failures(0, 0), 10, 1e-6)

    @pytest.mark.parametrize(("failed", "periods"), [(-1, 5), (6, 5), (math.nan, 5), (1, math.inf)])
    def test_failures_that_cannot_be_are_refused(self, failed: float, periods: float) -> None:
        with pytest.raises(SettingsError, match="cannot be"):
            Failures(failed, periods).check()

    @pytest.mark.parametrize("chance", [0.0, 1.0, math.nan])
    def test_what_is_no_chance_is_refused(self, chance: float) -> None:
        with pytest.raises(SettingsError, match="not between 0 and 1"):
            spare_machines(Failures(1, 100), 5, chance)


class TestPacking:
    def test_replicas_are_spread_and_machines_shared(self) -> None:
        jobs = jobs_of([Demand("a", 4, 2, 4), Demand("b", 2, 4, 2)], 3)

        found = pack(RACKS, jobs)

        assert [job.replicas for job in jobs] == [6, 3]
        assert not found.shortages
        assert found.num_used == found.least_machines == 6
        assert {RACKS[at].domain for at in found.machine_of["b"]} == set("abc")

    def test_with_one_domain_only_machines_are_spare(self) -> None:
        (job,) = jobs_of([Demand("a", 4, 2, 4, spare=2)], 1)

        assert (job.replicas, job.most_per_domain) == (6, 6)

    def test_what_needs_nothing_gets_nothing(self) -> None:
        found = pack(RACKS, jobs_of([Demand("idle", 0, 1, 1, spare=2)], 3))

        assert found.machine_of == {"idle": ()}
        assert found.num_used == found.least_machines == 0

    @pytest.mark.parametrize(
        ("demand", "told"),
        [
            (Demand("a", 20, 8, 1), "processor cores: 240 needed, 96 there, 144 missing"),
            (Demand("a", 8, 1, 24), "bytes of memory: 288 needed, 192 there, 96 missing"),
            (Demand("a", 1, 9, 1), "machines that one replica of a fits on: 2 needed, 0 there"),
            (Demand("a", 10, 1, 1), "machines that one replica of a fits on: 15 needed, 12 there"),
        ],
    )
    def test_what_is_short_is_named(self, demand: Demand, told: str) -> None:
        found = pack(RACKS, jobs_of([demand], 3))

        assert any(str(short).startswith(told) for short in found.shortages)

    def test_a_domain_with_too_few_machines_is_named(self) -> None:
        machines = [*RACKS[:1], *(Machine(f"b{index}", "b", 8, 16) for index in range(9))]

        found = pack(machines, jobs_of([Demand("a", 4, 1, 1)], 2))

        (short,) = found.shortages
        assert "the spread over domains allows (fewest machines: a)" in str(short)
        assert short.missing == 3

    def test_where_sums_would_do_but_pieces_do_not_fit_that_is_told(self) -> None:
        machines = [Machine(f"m{index}", "a", 3.0, 100) for index in range(3)]
        jobs = jobs_of([Demand(name, 1, 2, 1) for name in "abcd"], 1)

        found = pack(machines, jobs)

        (short,) = found.shortages
        assert str(short).startswith("room for replicas of d")

    def test_models_of_which_a_machine_holds_one_each_are_levelled(self) -> None:
        """Five models of four replicas, four to a machine: first fit would need eight."""
        machines = [Machine(f"m{at}", "a", 8, 16) for at in range(8)]

        found = pack(machines, jobs_of([Demand(name, 4, 2, 2) for name in "abcde"], 1))

        assert found.num_used == found.least_machines == 5

    def test_where_dense_packing_fails_a_balanced_one_is_tried(self) -> None:
        machines = [Machine("x", "a", 4, 10), Machine("y", "b", 2, 10), Machine("z", "b", 2, 10)]
        jobs = jobs_of([Demand("p", 1, 2, 1), Demand("q", 1, 2, 1)], 2)

        assert not pack(machines, jobs).shortages

    def test_ten_thousand_machines_are_packed(self) -> None:
        machines = [Machine(f"m{at}", f"d{at % 10}", 8, 16) for at in range(10_000)]
        jobs = jobs_of([Demand(f"m{at}", 200, 2, 2, spare=5) for at in range(5)], 10)

        found = pack(machines, jobs)

        assert not found.shortages
        assert found.num_used <= 1.1 * found.least_machines

    def test_more_replicas_than_can_be_packed_are_refused(self) -> None:
        with pytest.raises(SettingsError, match="replicas; at most"):
            pack(RACKS, jobs_of([Demand("a", 30_000, 1, 1)], 3))

    @pytest.mark.parametrize(
        ("machines", "demands", "told"),
        [
            ([], [Demand("a", 1, 1, 1)], "0 machines"),
            (RACKS, [], "0 models"),
            (RACKS[:1] * (MAX_MACHINES + 1), [Demand("a", 1, 1, 1)], "20001 machines"),
            (RACKS[:1] * 2, [Demand("a", 1, 1, 1)], "'m0' is there twice"),
            (RACKS, [Demand("a", 1, 1, 1)] * 2, "'a' is there twice"),
            (RACKS, [Demand("a", 1, 0, 1)], "a: cores and bytes"),
            (RACKS, [Demand("a", 1, 1, math.nan)], "a: cores and bytes"),
            ([Machine("m", "d", math.inf, 1)], [Demand("a", 1, 1, 1)], "m: cores and bytes"),
            (RACKS, [Demand("a", -1, 1, 1)], "fewer than 0"),
        ],
    )
    def test_what_cannot_be_packed_is_refused(
        self, machines: list[Machine], demands: list[Demand], told: str
    ) -> None:
        with pytest.raises(SettingsError, match=told):
            check_packing(machines, demands)

    def test_the_usual_is_not_refused(self) -> None:
        check_packing(RACKS, [Demand("a", 1, 1, 1)])
        assert least_machines(RACKS, []) == 0


class TestExact:
    def test_it_packs_what_first_fit_cannot(self) -> None:
        machines = [Machine(f"m{at}", "a", 20, 100) for at in range(6)]
        sizes = [5, 4, 10, 9, 3, 3, 7, 10, 9]
        jobs = jobs_of([Demand(f"d{at}", 1, size, 1) for at, size in enumerate(sizes)], 1)

        heuristic, exact = pack(machines, jobs), pack_exactly(machines, jobs)

        assert (heuristic.num_used, exact.num_used, exact.least) == (4, 3, 3)
        assert exact.is_proven

    def test_it_proves_that_there_is_none(self) -> None:
        exact = pack_exactly(RACKS, jobs_of([Demand("a", 20, 8, 1)], 3))

        assert (exact.num_used, exact.is_proven, exact.machine_of) == (None, True, {})

    def test_without_time_nothing_is_proven(self) -> None:
        jobs = jobs_of([Demand(f"m{at}", 3, 1 + at % 3, 2) for at in range(9)], 3)

        exact = pack_exactly(RACKS * 1, jobs, time_limit_s=0.0)

        assert not exact.is_proven

    def test_it_says_nothing_on_standard_output(self, capfd: pytest.CaptureFixture[str]) -> None:
        pack_exactly(RACKS, jobs_of([Demand("a", 2, 1, 1)], 3))

        assert capfd.readouterr().out == ""

    def test_too_many_variables_are_refused(self) -> None:
        machines = [Machine(f"m{at}", "a", 1, 1) for at in range(MAX_VARIABLES // 2 + 1)]

        with pytest.raises(StartError, match="too many for the exact answer"):
            pack_exactly(machines, jobs_of([Demand("a", 1, 1, 1)], 1))
