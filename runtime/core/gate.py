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
import itertools
import math
from collections.abc import Sequence

import msgspec

from runtime.core.before_after import Arm, Counts, RatioTest, control_of
from runtime.core.spending import bound, for_few


class Verdict(enum.StrEnum):
    """What a look at the figures says."""

    HEALTHY = "healthy"
    BREACH = "breach"
    INSUFFICIENT = "insufficient"
    PENDING = "pending"


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

    looks_s: tuple[float, ...] = (900.0, 1800.0, 3600.0, 7200.0, 14400.0, 28800.0, 57600.0)
    alpha: float = 0.0125
    advance_alpha: float = 0.05
    margin: float = 1.5
    least_ratio: float = 1.1
    tolerated_rate: float = 0.0005
    min_events: int = 10
    min_treated: int = 3
    min_controls: int = 5

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in itertools.pairwise(self.looks_s))
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
    share, num_looks = max(1, len(metrics)), len(settings.looks_s)
    alarm_at = bound(settings.alpha / share, num_looks, look, before)
    sure_at = bound(settings.advance_alpha, num_looks, look, before)
    findings = tuple(_judge(metric, settings, alarm_at, sure_at) for metric in metrics)
    verdicts = {finding.verdict for finding in findings}
    for verdict in (Verdict.BREACH, Verdict.INSUFFICIENT, Verdict.PENDING):
        if verdict in verdicts:
            return Judgement(verdict, look, findings)
    return Judgement(Verdict.HEALTHY if findings else Verdict.INSUFFICIENT, look, findings)


def _judge(metric: Metric, settings: GateSettings, alarm_at: float, sure_at: float) -> Finding:
    treated, control = Arm(metric.treated), Arm(metric.control)
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
    growth, burstiness, information = control_of(control)
    alarm_at, sure_at = (for_few(at, control.num - 1) for at in (alarm_at, sure_at))
    test = RatioTest(treated, growth, burstiness, information)
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
    why = (
        f"{ratio:.2f} times as often as before, at most {upper:.2f} "
        f"(z {z:.2f}, alarm at {alarm_at:.2f}, {num_events} events)"
    )
    if not num_events:
        why = f"none before or after; surely below {rate_upper:.2%} of requests"
    return Finding(
        metric.name,
        verdict,
        f"{metric.name}: {verdict}, {why}",
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
