"""A ratio of event rates before and after a change, from devices that are their own controls.

Of ``n`` events of a device in both windows a binomial number falls into the one after, with odds of
``growth * ratio * requests_after / requests_before``. Its variance is multiplied by ``1 + c * n``
for bursts, and the device weighed by the inverse. Statistic and bounds are those of the score test
of the ratio, with the uncertainty of the growth, which comes from the control arm, added.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# What is known of the control arm's growth before its first event, as if from so many events.
_PRIOR_EVENTS = 16.0
# Ratios beyond are not told apart.
MOST = 1e6
_STEPS = 60
_RATIOS: Floats = np.geomspace(1 / MOST, MOST, 241)
_FACTOR = float(_RATIOS[1] / _RATIOS[0])


class Counts(msgspec.Struct, frozen=True):
    """Requests of one device, and how many of them were events, in two windows.

    Raises:
        ValueError: a count is negative, or there are more events than requests.
    """

    device: str
    requests_before: int
    events_before: int
    requests_after: int
    events_after: int

    def __post_init__(self) -> None:
        before = 0 <= self.events_before <= self.requests_before
        if not before or not 0 <= self.events_after <= self.requests_after:
            raise ValueError(f"events of {self.device!r} are not among its requests")


class Arm:
    """Columns of the devices that had requests in both windows."""

    def __init__(self, counts: Sequence[Counts]) -> None:
        rows = [
            (one.requests_before, one.events_before, one.requests_after, one.events_after)
            for one in counts
            if one.requests_before and one.requests_after
        ]
        table = np.array(rows, float).reshape(-1, 4)
        self.num = len(rows)
        self.requests_before, self.before, self.requests_after, self.after = table.T
        self.events = self.before + self.after
        self.odds = self.requests_after / self.requests_before


def control_of(arm: Arm) -> tuple[float, float, float]:
    """The control arm's growth, the burstiness ``c``, and the information on the growth's log."""
    weight: Floats = np.ones(arm.num)
    growth = burstiness = 0.0
    # The growth is needed for the burstiness, and that for the weights: a second round is enough.
    for _ in range(2):
        growth = _growth(arm, weight)
        share = growth * arm.odds / (1 + growth * arm.odds)
        burstiness = _burstiness(arm, share)
        weight = 1 / (1 + burstiness * arm.events)
    spread = share * (1 - share)
    return growth, burstiness, float((weight * arm.events * spread).sum()) + _PRIOR_EVENTS / 4


def _growth(arm: Arm, weight: Floats) -> float:
    share = arm.requests_after.sum() / (arm.requests_after.sum() + arm.requests_before.sum())
    after = (weight * arm.after).sum() + _PRIOR_EVENTS * share
    before = (weight * arm.before).sum() + _PRIOR_EVENTS * (1 - share)
    # Odds of the events by odds of the requests that they come from.
    of_events = (weight * arm.events * arm.odds / (1 + arm.odds)).sum() + _PRIOR_EVENTS * share
    rest = (weight * arm.events / (1 + arm.odds)).sum() + _PRIOR_EVENTS * (1 - share)
    return float(after / before * rest / of_events)


def _burstiness(arm: Arm, share: Floats) -> float:
    """The ``c`` that makes Pearson's statistic what it is expected to be; 0 without bursts."""
    has_events = arm.events > 0
    events, share = arm.events[has_events], share[has_events]
    squares = (arm.after[has_events] - share * events) ** 2 / (share * (1 - share) * events)
    freedom = len(events) - 1
    if freedom < 1 or squares.sum() <= freedom:
        return 0.0
    return _falling_to(freedom, lambda c: float((squares / (1 + c * events)).sum()))


def _falling_to(wanted: float, falling: Callable[[float], float]) -> float:
    """Where a falling function takes a value, by bisection on the logarithm; at most ``MOST``."""
    low, high = -math.log(MOST), math.log(MOST)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if falling(math.exp(middle)) > wanted:
            low = middle
        else:
            high = middle
    return math.exp(high)


class RatioTest:
    """The score statistic of a ratio, and the ratios at which it takes a value."""

    def __init__(self, arm: Arm, growth: float, burstiness: float, information: float) -> None:
        self._arm, self._information = arm, information
        self._odds = growth * arm.odds
        self._inflation = 1 + burstiness * arm.events
        self._weight = 1 / self._inflation

    @property
    def dispersion(self) -> float:
        """By how much bursts multiply the variance, on average over events."""
        num = float(self._arm.events.sum())
        return float((self._inflation * self._arm.events).sum()) / num if num else 1.0

    def z(self, ratio: float) -> float:
        """How many standard deviations the events after are above what the ratio expects."""
        return float(self._statistics(np.array([ratio]))[0])

    def ratio_at(self, z: float) -> float:
        """The largest ratio that the statistic leaves at ``z`` or above, up to ``MOST``.

        That is an estimate for 0 and an upper bound for what is below. With traffic that changed
        very differently from device to device the statistic may turn, hence the largest.
        """
        statistics = self._statistics(_RATIOS)
        left = np.flatnonzero(statistics >= z)
        if not len(left):
            return float(_RATIOS[0])
        place = int(left[-1])
        if place == len(_RATIOS) - 1:
            return MOST
        above, below = statistics[place], statistics[place + 1]
        return float(_RATIOS[place] * _FACTOR ** ((above - z) / (above - below)))

    def _statistics(self, ratios: Floats) -> Floats:
        odds = ratios[:, None] * self._odds
        share = odds / (1 + odds)
        apart = (self._weight * (self._arm.after - share * self._arm.events)).sum(axis=1)
        own = (self._weight * self._arm.events * share * (1 - share)).sum(axis=1)
        # Our own variance, and that of the growth, which is an estimate as well.
        spread = np.sqrt(own + own * own / self._information)
        statistics: Floats = np.divide(apart, spread, out=np.zeros_like(apart), where=spread > 0)
        return statistics

    def rate_upper(self, quantile: float) -> float:
        """An upper bound of the rate after: that of a Poisson count (square root, one added)."""
        seen = float(self._arm.after.sum()) / self.dispersion
        most = self.dispersion * (math.sqrt(seen + 1) + quantile / 2) ** 2
        return most / float(self._arm.requests_after.sum())
