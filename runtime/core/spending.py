"""How much of a chance of error each look at the figures may use: O'Brien-Fleming spending.

Whoever looks again and again finds something at last. The function of Lan and DeMets (Biometrika,
1983) that is like O'Brien and Fleming's bounds says how much of ``alpha`` may be used up to each
look: next to nothing early, all of it at the last. A bound uses what was added since the look
before, as if looks had nothing to do with one another: that is wider than the joint distribution
needs and holds whatever it is.
"""

from __future__ import annotations

import math
from statistics import NormalDist

_NORMAL = NormalDist()
# Nothing is ever so sure that a bound of more standard deviations would mean something.
_LEAST = 1e-12


def spent(alpha: float, fraction: float) -> float:
    """What may be used of a one-sided ``alpha`` up to this ``fraction`` of the looks.

    ``fraction`` is from 0 to 1.
    """
    if fraction <= 0:
        return 0.0
    return 2 - 2 * _NORMAL.cdf(_NORMAL.inv_cdf(1 - alpha / 2) / math.sqrt(min(1.0, fraction)))


def bound(alpha: float, num_looks: int, look: int, before: int = -1) -> float:
    """The normal quantile at a look (from 0), where the one before it was ``before`` (-1: none).

    Looks count as equal parts, whatever their times. Those that were missed leave their share to
    the next one.
    """
    left = spent(alpha, (look + 1) / num_looks) - spent(alpha, (before + 1) / num_looks)
    return _NORMAL.inv_cdf(1 - max(left, _LEAST))


def for_few(quantile: float, freedom: int) -> float:
    """The quantile of Student's t for a normal one, where the spread is estimated from few.

    Hill's form of the Cornish-Fisher series to the second order; ``freedom`` is at least 1.
    """
    z = quantile
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / freedom + second / freedom**2
