"""Whether devices with a new version are worse off than before: what lets a rollout go on.

A self-controlled before/after test. Rules of this file:
  * a device is compared with itself: of its events in both windows a share has to fall into the one
    after the change, and how many events it has at all says nothing. Devices that are a hundred
    times as bad as others, as they are in real fleets, do no harm;
  * the share comes from the control arm, devices that did not change: what the time of day does to
    all of them cancels out. Where those have few events, growth is taken to be near 1;
  * events come in bursts. The variance is multiplied by ``1 + c * events``, where ``c`` is what the
    control arm shows (the moment estimator of Breslow, Applied Statistics, 1984); a device counts
    for the less the more its events vary;
  * looks are fixed beforehand, and the chance of a false alarm is spent over them
    (``runtime.core.spending``); several metrics divide it;
  * no alarm is not enough to go on: the upper bound of the ratio has to be below ``margin``, or
    that of the rate below what is tolerated anyway. Too little data is a verdict of its own.

A metric is any count of requests with something wrong among all requests: errors, escalations,
disagreements with the tier above, answers slower than the objective, scores that have drifted.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from runtime.core.spending import bound, for_few

Floats = npt.NDArray[np.float64]

# What is known of the control arm's growth before its first event, as if from so many events.
_PRIOR_EVENTS = 16.0
# Ratios beyond are not told apart.
_MOST = 1e6
_STEPS = 60


class Verdict(enum.StrEnum):
    """What a look at the figures says."""

    HEALTHY = "healthy"
    BREACH = "breach"
    INSUFFICIENT = "insufficient"
    PENDING = "pending"


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


class Metric(msgspec.Struct, frozen=True):
    """One metric's counts: devices that changed between the windows, and others that did not."""

    name: str
    treated: tuple[Counts, ...]
    control: tuple[Counts, ...]


class GateSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one stage's test is held to.

    ``looks_s`` are the times of the looks after the windows met, rising. ``alpha`` is the chance of
    a false alarm in the stage, ``advance_alpha`` that of going on with a ratio of ``margin``. Fewer
    than ``min_events`` of the treated devices decide nothing; a ratio below ``least_ratio`` is
    never an alarm. A rate surely below ``tolerated_rate`` is healthy whatever it was before.

    Raises:
        ValueError: a number is out of its range.
    """

    looks_s: tuple[float, ...] = (900.0, 1800.0, 3600.0, 7200.0, 14400.0)
    alpha: float = 0.0125
    advance_alpha: float = 0.05
    margin: float = 1.5
    least_ratio: float = 1.1
    tolerated_rate: float = 0.0005
    min_events: int = 10
    min_treated: int = 3
    min_controls: int = 5

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.looks_s, self.looks_s[1:], strict=False))
        if not self.looks_s or not rising or not 0 < self.looks_s[0] <= self.looks_s[-1] < math.inf:
            raise ValueError(f"times of looks have to rise from above 0, not {self.looks_s}")
        if not 0 < self.alpha < 1 or not 0 < self.advance_alpha < 1:
            raise ValueError("chances of error have to be between 0 and 1")
        if not 1 <= self.least_ratio < self.margin < math.inf:
            raise ValueError("1 <= least_ratio < margin does not hold")
        if not 0 <= self.tolerated_rate < 1:
            raise ValueError("the tolerated rate is a share of requests")
        if self.min_events < 1 or self.min_treated < 1 or self.min_controls < 2:  # noqa: PLR2004
            raise ValueError("a test needs an event, a treated device and two controls at least")


class Finding(msgspec.Struct, frozen=True):
    """What was found about one metric, for people; numbers that do not exist are 0.

    ``ratio`` is the rate after by that before, growth taken out, ``upper`` its upper bound.
    ``z`` beyond ``bound`` is a breach. ``dispersion`` is by how much bursts widen the variance.
    """

    metric: str
    verdict: Verdict
    why: str
    ratio: float = 0.0
    upper: float = 0.0
    z: float = 0.0
    bound: float = 0.0
    dispersion: float = 1.0
    rate_upper: float = 0.0
    num_events: int = 0
    num_treated: int = 0
    num_controls: int = 0


class Judgement(msgspec.Struct, frozen=True):
    """The verdict of one look on all metrics."""

    verdict: Verdict
    look: int
    findings: tuple[Finding, ...] = ()

    @property
    def why(self) -> str:
        """The findings that decided, in a sentence."""
        return "; ".join(one.why for one in self.findings if one.verdict is self.verdict)


def judge(
    metrics: Sequence[Metric], settings: GateSettings, look: int, before: int = -1
) -> Judgement:
    """A breach if any metric breaches, healthy if all are; ``before`` is the look before this."""
    share = max(1, len(metrics))
    alarm_at = bound(settings.alpha / share, settings.looks_s, look, before)
    sure_at = bound(settings.advance_alpha, settings.looks_s, look, before)
    findings = tuple(_judge(metric, settings, alarm_at, sure_at) for metric in metrics)
    verdicts = {finding.verdict for finding in findings}
    for verdict in (Verdict.BREACH, Verdict.INSUFFICIENT, Verdict.PENDING):
        if verdict in verdicts:
            return Judgement(verdict, look, findings)
    return Judgement(Verdict.HEALTHY if findings else Verdict.INSUFFICIENT, look, findings)


def _judge(metric: Metric, settings: GateSettings, alarm_at: float, sure_at: float) -> Finding:
    treated, control = _Arm(metric.treated), _Arm(metric.control)
    if treated.num < settings.min_treated or control.num < settings.min_controls:
        return Finding(
            metric.name,
            Verdict.INSUFFICIENT,
            f"{metric.name}: {treated.num} devices with the new version and {control.num} without "
            f"had requests before and after; {settings.min_treated} and {settings.min_controls} "
            "are needed",
            num_treated=treated.num,
            num_controls=control.num,
        )
    growth, burstiness, information = _control(control)
    alarm_at, sure_at = (for_few(at, control.num - 1) for at in (alarm_at, sure_at))
    test = _Test(treated, growth, burstiness, information)
    num_events = int(treated.events.sum())
    z, ratio = test.z(1.0), test.ratio_at(0.0)
    upper, rate_upper = test.ratio_at(-sure_at), test.rate_upper(sure_at)
    is_enough = num_events >= settings.min_events
    if is_enough and z > alarm_at and ratio >= settings.least_ratio:
        verdict = Verdict.BREACH
    elif (is_enough and upper < settings.margin) or rate_upper < settings.tolerated_rate:
        verdict = Verdict.HEALTHY
    else:
        verdict = Verdict.PENDING if is_enough else Verdict.INSUFFICIENT
    return Finding(
        metric.name,
        verdict,
        f"{metric.name}: {verdict}, {ratio:.2f} times as often as before, at most {upper:.2f} "
        f"(z {z:.2f}, alarm at {alarm_at:.2f}, {num_events} events)",
        ratio=ratio,
        upper=upper,
        z=z,
        bound=alarm_at,
        dispersion=test.dispersion,
        rate_upper=rate_upper,
        num_events=num_events,
        num_treated=treated.num,
        num_controls=control.num,
    )


class _Arm:
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


def _control(arm: _Arm) -> tuple[float, float, float]:
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


def _growth(arm: _Arm, weight: Floats) -> float:
    share = arm.requests_after.sum() / (arm.requests_after.sum() + arm.requests_before.sum())
    after = (weight * arm.after).sum() + _PRIOR_EVENTS * share
    before = (weight * arm.before).sum() + _PRIOR_EVENTS * (1 - share)
    # Odds of the events by odds of the requests that they come from.
    of_events = (weight * arm.events * arm.odds / (1 + arm.odds)).sum() + _PRIOR_EVENTS * share
    rest = (weight * arm.events / (1 + arm.odds)).sum() + _PRIOR_EVENTS * (1 - share)
    return float(after / before * rest / of_events)


def _burstiness(arm: _Arm, share: Floats) -> float:
    """The ``c`` that makes Pearson's statistic what it is expected to be; 0 without bursts."""
    has_events = arm.events > 0
    events, share = arm.events[has_events], share[has_events]
    squares = (arm.after[has_events] - share * events) ** 2 / (share * (1 - share) * events)
    freedom = len(events) - 1
    if freedom < 1 or squares.sum() <= freedom:
        return 0.0
    return _falling_to(freedom, lambda c: float((squares / (1 + c * events)).sum()))


def _falling_to(wanted: float, falling: Callable[[float], float]) -> float:
    """Where a falling function takes a value, by bisection on the logarithm; at most ``_MOST``."""
    low, high = -math.log(_MOST), math.log(_MOST)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if falling(math.exp(middle)) > wanted:
            low = middle
        else:
            high = middle
    return math.exp(high)


class _Test:
    """The score statistic of a ratio, and the ratios at which it takes a value."""

    def __init__(self, arm: _Arm, growth: float, burstiness: float, information: float) -> None:
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
        odds = ratio * self._odds
        share = odds / (1 + odds)
        apart = float((self._weight * (self._arm.after - share * self._arm.events)).sum())
        own = float((self._weight * self._arm.events * share * (1 - share)).sum())
        if not own:
            return 0.0
        # Ours, and that of the growth, which is an estimate as well.
        return apart / math.sqrt(own + own * own / self._information)

    def ratio_at(self, z: float) -> float:
        """The ratio at which the statistic is ``z``: an estimate for 0, upper bounds below."""
        return _falling_to(z, self.z) if self._arm.events.any() else _MOST

    def rate_upper(self, quantile: float) -> float:
        """An upper bound of the rate after: that of a Poisson count (square root, one added)."""
        seen = float(self._arm.after.sum()) / self.dispersion
        most = self.dispersion * (math.sqrt(seen + 1) + quantile / 2) ** 2
        return most / float(self._arm.requests_after.sum())
