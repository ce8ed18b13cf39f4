"""Tests of a mean that hold for every sample size (numpy).

``p_mean_below`` is the betting test of Waudby-Smith and Ramdas (JRSS B, 2024): a gambler who bets
against the null that the mean is at least ``bound`` multiplies their capital only with probability
1/c by c, so 1 over the highest capital is a p-value (Ville). Binomial tails are exact.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
# Bets stay short of ruin.
MAX_STAKE = 0.9
_BISECTIONS = 60


def p_mean_below(values: Floats, bound: float, delta: float) -> float:
    """p-value of the null that the mean of ``values`` (n,), each in 0..1, is at least ``bound``.

    ``delta`` is the level that the bets are sized for; the p-value is valid at every level. The
    bet on a value looks at those before it only.

    Raises:
        ValueError: a value is outside 0..1 or not a number.
    """
    if not len(values):
        return 1.0
    if not (np.min(values) >= 0 and np.max(values) <= 1):
        raise ValueError("the values must be in 0..1")
    if bound >= 1:
        return 1.0
    num = len(values)
    seen = np.arange(1, num + 1)
    means = (0.5 + np.cumsum(values)) / (seen + 1)
    spreads = (0.25 + np.cumsum((values - means) ** 2)) / (seen + 1)
    before = np.concatenate([[0.25], spreads[:-1]])
    bets = np.minimum(np.sqrt(2 * math.log(1 / delta) / (num * before)), MAX_STAKE / (1 - bound))
    capital = np.cumsum(np.log1p(bets * (bound - values)))
    return math.exp(-max(0.0, float(capital.max())))


def binomial_cdf(successes: int, trials: int, chance: float) -> float:
    """P(at most ``successes`` of ``trials``)."""
    if successes >= trials:
        return 1.0
    if chance <= 0:
        return 1.0
    if chance >= 1:
        return 0.0
    total = -math.inf
    log_chance, log_miss = math.log(chance), math.log1p(-chance)
    term = trials * log_miss
    for count in range(successes + 1):
        if count:
            term += math.log((trials - count + 1) / count) + log_chance - log_miss
        total = max(total, term) + math.log1p(math.exp(-abs(total - term)))
    return min(1.0, math.exp(total))


def p_share_below(successes: int, trials: int, bound: float) -> float:
    """p-value of the null that the share of successes is at least ``bound``."""
    return binomial_cdf(successes, trials, bound)


def share_upper(successes: int, trials: int, delta: float = 0.05) -> float:
    """One-sided upper bound of a share (Clopper and Pearson, 1934)."""
    if trials == 0 or successes >= trials:
        return 1.0
    low, high = successes / trials, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if binomial_cdf(successes, trials, middle) > delta:
            low = middle
        else:
            high = middle
    return high
