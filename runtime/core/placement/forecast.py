"""Load forecasts as quantiles, and how good they were on days that they had not seen.

Seasonal-naive: an hour of the week is expected to be as it was in the weeks before. The spread is
conformal: of the last weeks, each hour's load over its seasonal mean gives a ratio, and the
quantile of all ratios (finite-sample rank, as in split conformal prediction; Vovk et al., 2005) is
what the seasonal mean is multiplied by. Rolling origin: each of the last days is forecast from the
days before it alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from runtime.core.placement.curves import Floats
from runtime.errors import SettingsError

HOURS_OF_DAY = 24
HOURS_OF_WEEK = 168
# One week to repeat, and one to see how well it repeats.
MIN_HOURS = 2 * HOURS_OF_WEEK
MAX_HOURS = 10 * 366 * HOURS_OF_DAY


class QuantileError(msgspec.Struct, frozen=True):
    """How one quantile did on held-out hours.

    ``coverage_share`` of them were at most as forecast; ``pinball`` is the mean pinball loss in
    units of the load.
    """

    quantile: float
    coverage_share: float
    pinball: float
    num_hours: int


class Forecast(msgspec.Struct, frozen=True):
    """The next week by hour, for each quantile, and what such forecasts were worth."""

    quantiles: tuple[float, ...]
    by_hour: tuple[tuple[float, ...], ...]
    errors: tuple[QuantileError, ...]

    def peak(self, quantile: float) -> float:
        """The largest hour of the next week at a quantile."""
        return max(self.by_hour[self.quantiles.index(quantile)])


def check_quantiles(quantiles: Sequence[float]) -> None:
    """Refuses what is no quantile.

    Raises:
        SettingsError: outside (0, 1), or none.
    """
    if not quantiles:
        raise SettingsError("no quantile is asked for; 0.95 is one")
    for quantile in quantiles:
        if not 0 < quantile < 1:
            raise SettingsError(f"the quantile {quantile:g} is not between 0 and 1")


def check_history(load: Sequence[float], name: str) -> None:
    """Refuses what nothing can be forecast from.

    Raises:
        SettingsError: too short, too long, negative or not finite.
    """
    if not MIN_HOURS <= len(load) <= MAX_HOURS:
        raise SettingsError(
            f"the history of {name} has {len(load)} hours; {MIN_HOURS} (two weeks) to {MAX_HOURS} "
            "can be used"
        )
    values = np.asarray(load, np.float64)
    if not (np.isfinite(values).all() and (values >= 0).all()):
        raise SettingsError(f"the history of {name} has an hour that is negative or no number")


def forecast(
    load: Sequence[float], quantiles: Sequence[float], *, num_held_days: int = 7
) -> Forecast:
    """The week after a history of hourly loads, oldest first.

    Raises:
        SettingsError: a history or quantiles that cannot be used.
    """
    check_quantiles(quantiles)
    check_history(load, "load")
    history = np.asarray(load, np.float64)
    ahead = HOURS_OF_WEEK
    by_hour = [tuple(_predict(history, one, ahead).tolist()) for one in quantiles]
    return Forecast(tuple(quantiles), tuple(by_hour), _held_out(history, quantiles, num_held_days))


def _held_out(
    history: Floats, quantiles: Sequence[float], num_days: int
) -> tuple[QuantileError, ...]:
    """Each of the last days from those before it, as far as two weeks are left to learn from."""
    room = (len(history) - MIN_HOURS) // HOURS_OF_DAY
    days = range(min(num_days, room), 0, -1)
    found = []
    for quantile in quantiles:
        loss, covered, hours = 0.0, 0, 0
        for day in days:
            start = len(history) - day * HOURS_OF_DAY
            actual = history[start : start + HOURS_OF_DAY]
            told = _predict(history[:start], quantile, HOURS_OF_DAY)
            over = actual - told
            loss += float(np.maximum(quantile * over, (quantile - 1) * over).sum())
            covered += int((over <= 0).sum())
            hours += HOURS_OF_DAY
        share = covered / hours if hours else math.nan
        found.append(QuantileError(quantile, share, loss / hours if hours else math.nan, hours))
    return tuple(found)


def _predict(history: Floats, quantile: float, num_hours: int) -> Floats:
    """(num_hours,) after the history."""
    ratio = _conformal(_ratios(history), quantile)
    hours = (len(history) + np.arange(num_hours)) % HOURS_OF_WEEK
    told: Floats = _seasonal(history)[hours] * ratio
    return told


def _ratios(history: Floats) -> Floats:
    """Ascending: each hour over the mean of that hour in the weeks before, where it is not 0."""
    num_weeks = -(-len(history) // HOURS_OF_WEEK)
    padded = np.full(num_weeks * HOURS_OF_WEEK, np.nan)
    padded[: len(history)] = history
    weeks = padded.reshape(num_weeks, HOURS_OF_WEEK)
    means = np.cumsum(weeks, axis=0)[:-1] / np.arange(1, num_weeks)[:, None]
    later = weeks[1:]
    known = np.isfinite(later) & (means > 0)
    found: Floats = np.sort(later[known] / means[known])
    return found


def _conformal(ordered: Floats, quantile: float) -> float:
    """The quantile with the rank that n exchangeable values need; 1 where there are none."""
    if not len(ordered):
        return 1.0
    rank = math.ceil((len(ordered) + 1) * quantile)
    return float(ordered[min(rank, len(ordered)) - 1])


def _seasonal(history: Floats) -> Floats:
    """(168,) mean of each hour of the week."""
    hours = np.arange(len(history)) % HOURS_OF_WEEK
    found: Floats = np.bincount(hours, weights=history, minlength=HOURS_OF_WEEK) / np.bincount(
        hours, minlength=HOURS_OF_WEEK
    )
    return found
