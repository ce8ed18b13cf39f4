"""Whether a release on trial is kept, by what it did on this device; works without a network.

Rules of this file:
  * invalid outputs (NaN, infinity, a wrong shape) need no statistics: more than the limit, and the
    release goes back at once;
  * all other gates are exact binomial tests, taken at numbers of requests that double and once at
    the end, their level divided among all of them (Bonferroni): however often it is asked, a
    release that is as good as the one before goes back in at most ``alpha`` of the trials;
  * rates are compared with what the previous model did here before, in a window of its own: of all
    errors of both, more fell to the trial than its share of the requests explains, with
    ``max_ratio`` granted (conditional test of two rates; Przyborowski and Wilenski, 1940);
  * latency is compared by counting: of the requests, more than 5 % took longer than the previous
    model's 95th percentile times ``max_slowdown``;
  * time alone keeps nothing: without the minimum numbers it waits, and goes back at the deadline.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Annotated

import msgspec

from runtime.core.releases import Fault

Count = Annotated[int, msgspec.Meta(ge=0)]
_SLOW_SHARE = 0.05
_NUM_GATES = 4
_NEGLIGIBLE = 1e-18


class TrialLimits(msgspec.Struct, frozen=True):
    """When a trial is over, and what it may do at most.

    ``soak_s`` is how long it lasts at least, ``deadline_s`` at most. ``min_shadowed`` is how many
    requests both models must have seen, 0 where there is no shadow. ``alpha`` is the chance that a
    release no worse than the limits goes back all the same. ``max_error_share`` holds where the
    previous model has no window to compare with; ``num_looks`` bounds how often it is tested.
    """

    soak_s: float = 600.0
    deadline_s: float = 86_400.0
    min_requests: Annotated[int, msgspec.Meta(ge=1)] = 200
    min_shadowed: Count = 0
    max_invalid: Count = 0
    max_error_share: float = 0.05
    max_ratio: float = 1.5
    max_slowdown: float = 1.25
    min_agreement: float = 0.9
    alpha: float = 0.01
    num_looks: Annotated[int, msgspec.Meta(ge=1)] = 8

    def __post_init__(self) -> None:
        """Refuses limits that mean nothing.

        Raises:
            ValueError: says which.
        """
        if not 0 <= self.soak_s <= self.deadline_s < math.inf:
            raise ValueError("0 <= soak_s <= deadline_s does not hold")
        shares = (self.max_error_share, self.min_agreement, self.alpha)
        if not all(0 < share < 1 for share in shares):
            raise ValueError("shares lie between 0 and 1, both excluded")
        if not all(1 <= ratio < math.inf for ratio in (self.max_ratio, self.max_slowdown)):
            raise ValueError("max_ratio and max_slowdown are at least 1")


class Window(msgspec.Struct, frozen=True):
    """What one model did over a span of time.

    ``num_slow`` are requests over ``slow_limit_ms`` of the previous window. ``num_agreed`` of
    ``num_shadowed`` requests that both models saw had the same answer. ``p95_ms`` is the 95th
    percentile of the latency; None where it is not known.
    """

    num_requests: Count = 0
    num_invalid: Count = 0
    num_errors: Count = 0
    num_escalated: Count = 0
    num_slow: Count = 0
    num_shadowed: Count = 0
    num_agreed: Count = 0
    p95_ms: float | None = None

    def __post_init__(self) -> None:
        """Refuses counts that contradict one another.

        Raises:
            ValueError: says which.
        """
        parts = (self.num_invalid, self.num_errors, self.num_escalated, self.num_slow)
        if max(parts) > self.num_requests or self.num_agreed > self.num_shadowed:
            raise ValueError("more of them than there were in total")
        if min(*parts, self.num_requests, self.num_shadowed, self.num_agreed) < 0:
            raise ValueError("counts are not negative")
        if self.p95_ms is not None and not 0 <= self.p95_ms < math.inf:
            raise ValueError("p95_ms is a number of milliseconds")


class Decision(enum.StrEnum):
    """What to do with the release on trial."""

    KEEP = "keep"
    ROLL_BACK = "roll_back"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision; ``fault`` where it goes back; ``num_looks`` is to be passed in the next time.

    ``detail`` is for people: the figures that decided.
    """

    decision: Decision
    num_looks: int
    fault: Fault | None = None
    detail: str = ""


def slow_limit_ms(before: Window | None, limits: TrialLimits) -> float | None:
    """Above which a request of the trial counts as slow; None where nothing is known before."""
    if before is None or before.p95_ms is None:
        return None
    return before.p95_ms * limits.max_slowdown


def judge(
    trial: Window,
    before: Window | None,
    elapsed_s: float,
    limits: TrialLimits,
    *,
    num_looks: int = 0,
) -> Verdict:
    """Keeps the release, sends it back, or waits.

    Args:
        trial: what it did since it was activated.
        before: what the previous model did; None where there was none.
        elapsed_s: since it was activated, on a clock that does not jump.
        limits: those of the slot.
        num_looks: of the verdict before; 0 for the first one.
    """
    if trial.num_invalid > limits.max_invalid:
        detail = f"{trial.num_invalid} of {trial.num_requests} outputs were invalid"
        return Verdict(Decision.ROLL_BACK, num_looks, Fault.INVALID_OUTPUT, detail)
    is_over = elapsed_s >= limits.deadline_s
    is_enough = (
        trial.num_requests >= limits.min_requests and trial.num_shadowed >= limits.min_shadowed
    )
    may_keep = elapsed_s >= limits.soak_s and is_enough
    # The last look is kept for the end, so that a trial never ends untested.
    due = limits.min_requests * 2**num_looks
    is_due = num_looks < limits.num_looks - 1 and trial.num_requests >= due
    if is_due or may_keep or is_over:
        num_looks += is_due
        found = _breach(trial, before, limits)
        if found is not None:
            return Verdict(Decision.ROLL_BACK, num_looks, *found)
    if may_keep:
        return Verdict(Decision.KEEP, num_looks, None, f"{trial.num_requests} requests were well")
    if is_over:
        detail = (
            f"{trial.num_requests} of {limits.min_requests} requests, {trial.num_shadowed} of "
            f"{limits.min_shadowed} in shadow: too few to judge by"
        )
        return Verdict(Decision.ROLL_BACK, num_looks, Fault.TOO_FEW, detail)
    return Verdict(Decision.WAIT, num_looks)


def _breach(trial: Window, before: Window | None, limits: TrialLimits) -> tuple[Fault, str] | None:
    level = limits.alpha / (limits.num_looks * _NUM_GATES)
    num, earlier = trial.num_requests, before or Window()
    disagreed = trial.num_shadowed - trial.num_agreed
    if earlier.num_requests:
        errors = _rate_p(trial.num_errors, num, earlier.num_errors, earlier.num_requests, limits)
        escalations = _rate_p(
            trial.num_escalated, num, earlier.num_escalated, earlier.num_requests, limits
        )
    else:
        errors = upper_tail(trial.num_errors, num, limits.max_error_share)
        escalations = 1.0
    is_timed = slow_limit_ms(before, limits) is not None
    slow = upper_tail(trial.num_slow, num, _SLOW_SHARE) if is_timed else 1.0
    disagreement = upper_tail(disagreed, trial.num_shadowed, 1 - limits.min_agreement)
    gates = (
        (errors, Fault.ERRORS, f"{trial.num_errors} of {num} failed"),
        (slow, Fault.LATENCY, f"{trial.num_slow} of {num} were slow"),
        (escalations, Fault.ESCALATIONS, f"{trial.num_escalated} of {num} were escalated"),
        (
            disagreement,
            Fault.DISAGREEMENT,
            f"{disagreed} of {trial.num_shadowed} differed from the previous model",
        ),
    )
    return next(((fault, detail) for chance, fault, detail in gates if chance < level), None)


def _rate_p(num: int, of: int, num_before: int, of_before: int, limits: TrialLimits) -> float:
    """The chance of so many or more if the rate is ``max_ratio`` times that of before."""
    share = of * limits.max_ratio / (of * limits.max_ratio + of_before)
    return upper_tail(num, num + num_before, share)


def upper_tail(num: int, of: int, chance: float) -> float:
    """The chance of ``num`` or more successes in ``of`` trials; 1 where that is no surprise.

    Exact above the mean, where it is evidence; at or below the mean it is not worked out.
    ``chance`` lies between 0 and 1, both excluded, or ``of`` is 0.
    """
    if num <= of * chance:
        return 1.0
    logarithm = (
        math.lgamma(of + 1)
        - math.lgamma(num + 1)
        - math.lgamma(of - num + 1)
        + num * math.log(chance)
        + (of - num) * math.log1p(-chance)
    )
    term = math.exp(logarithm)
    total, odds = term, chance / (1 - chance)
    for at in range(num, of):
        # Above the mean every term is smaller than the one before.
        term *= (of - at) / (at + 1) * odds
        total += term
        if term <= total * _NEGLIGIBLE:
            break
    return min(1.0, total)
