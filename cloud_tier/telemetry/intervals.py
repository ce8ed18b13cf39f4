"""How far an estimated share may be off: 95 % intervals. Pure.

``wilson`` is the score interval of a binomial share (Wilson, 1927). ``weighted`` is the normal
interval of a ratio of Horvitz-Thompson sums (Särndal, Swensson and Wretman, 1992, section 5.6), of
answers that were audited each with a chance of its own.
"""

from __future__ import annotations

import math
from typing import NamedTuple

Z95 = 1.959963984540054


class Share(NamedTuple):
    """An estimate with its interval, all in 0 .. 1."""

    value: float
    low: float
    high: float


def wilson(hits: float, count: float) -> Share | None:
    """The share of hits among so many; None of none."""
    if count <= 0:
        return None
    share = hits / count
    spread = Z95 * math.sqrt(share * (1 - share) / count + Z95**2 / (4 * count**2))
    middle, scale = share + Z95**2 / (2 * count), 1 + Z95**2 / count
    low, high = (middle - spread) / scale, (middle + spread) / scale
    return Share(share, max(0.0, min(low, share)), min(1.0, max(high, share)))


def weighted(hit: float, total: float, hit_squares: float, miss_squares: float) -> Share | None:
    """The share of hits by weight.

    Args:
        hit: sum of the weights of hits.
        total: sum of all weights.
        hit_squares: sum of the squared weights of hits.
        miss_squares: the same of all others.

    Where all agree, or none does, the normal interval would have no width; then it is Wilson's for
    as many equal weights as would be worth as much (Kish).
    """
    if total <= 0:
        return None
    share = min(1.0, hit / total)
    variance = ((1 - share) ** 2 * hit_squares + share**2 * miss_squares) / total**2
    if variance <= 0:
        squares = hit_squares + miss_squares
        effective = total**2 / squares if squares > 0 else 1.0
        return wilson(share * effective, effective)
    spread = Z95 * math.sqrt(variance)
    return Share(share, max(0.0, share - spread), min(1.0, share + spread))
