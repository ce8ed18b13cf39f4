"""How many machines may fail at once: a Beta posterior, and the count to be ready for.

Each machine fails in a period with an unknown chance. Prior Beta(1/2, 1/2) (Jeffreys); after f
failures in n machine-periods it is Beta(f + 1/2, n - f + 1/2). How many of m machines fail in a
period is then beta-binomial, which is what ``spare_machines`` takes its tail from, so that little
evidence asks for more of them.
"""

from __future__ import annotations

import math

import msgspec

from runtime.errors import SettingsError

PRIOR = 0.5
MAX_SPARE = 1 << 14


class Failures(msgspec.Struct, frozen=True):
    """Observed failures in machine-periods (a machine watched for a period counts one)."""

    num_failures: float
    num_periods: float

    def check(self) -> None:
        """Refuses what was not observed.

        Raises:
            SettingsError: negative, not finite, or more failures than periods.
        """
        if not 0 <= self.num_failures <= self.num_periods < math.inf:
            raise SettingsError(
                f"{self.num_failures:g} failures in {self.num_periods:g} machine-periods cannot be"
            )

    @property
    def chance(self) -> float:
        """Posterior mean that a machine fails in a period."""
        return (self.num_failures + PRIOR) / (self.num_periods + 2 * PRIOR)


def chance_of_more(failures: Failures, num_machines: int, num_lost: int) -> float:
    """Posterior chance that more than ``num_lost`` of the machines fail in one period."""
    if num_lost >= num_machines:
        return 0.0
    alpha = failures.num_failures + PRIOR
    beta = failures.num_periods - failures.num_failures + PRIOR
    # Ratio of neighbouring terms, so that 10,000 machines take 10,000 steps and no overflow.
    log_term = _log_beta(alpha, beta + num_machines) - _log_beta(alpha, beta)
    at_most = math.exp(log_term)
    for count in range(num_lost):
        log_term += math.log((num_machines - count) / (count + 1))
        log_term += math.log((alpha + count) / (beta + num_machines - count - 1))
        at_most += math.exp(log_term)
    return min(1.0, max(0.0, 1.0 - at_most))


def spare_machines(failures: Failures, needed: int, max_chance: float) -> int:
    """The fewest k such that of ``needed`` + k machines more than k fail with at most that chance.

    One more machine can add one failure at most, so that chance falls with every k.

    Raises:
        SettingsError: a chance outside (0, 1), failures that cannot be, or too little evidence for
            any reasonable number of machines.
    """
    failures.check()
    if not 0 < max_chance < 1:
        raise SettingsError(f"the chance {max_chance:g} is not between 0 and 1")
    if not needed:
        return 0
    low, high = 0, 1
    while chance_of_more(failures, needed + high, high) > max_chance:
        low, high = high, 2 * high
        if high > MAX_SPARE:
            raise SettingsError(
                f"with {failures.num_failures:g} failures in {failures.num_periods:g} "
                f"machine-periods, not even {MAX_SPARE} spare machines keep the chance of a "
                f"shortage at {max_chance:g}: observe longer, or allow a larger chance"
            )
    if chance_of_more(failures, needed, 0) <= max_chance:
        return 0
    while high - low > 1:
        middle = (low + high) // 2
        if chance_of_more(failures, needed + middle, middle) <= max_chance:
            high = middle
        else:
            low = middle
    return high


def _log_beta(alpha: float, beta: float) -> float:
    return math.lgamma(alpha) + math.lgamma(beta) - math.lgamma(alpha + beta)
