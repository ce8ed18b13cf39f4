"""Predictions against what then happened: each figure, both intervals, and whether they meet.

Intervals are those of 95 %: normal for shares (of the examples behind the prediction and of the
requests), order statistics for latencies, Poisson for counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

Z_95 = 1.959964


class Compared(msgspec.Struct, frozen=True):
    """One figure; ``measured`` is None where it cannot be known from the source."""

    name: str
    predicted: float
    predicted_low: float
    predicted_high: float
    measured: float | None = None
    measured_low: float | None = None
    measured_high: float | None = None

    @property
    def is_within(self) -> bool | None:
        """Whether the intervals meet; None where nothing was measured."""
        if self.measured_low is None or self.measured_high is None:
            return None
        return self.measured_low <= self.predicted_high and self.predicted_low <= self.measured_high


def compare_shares(
    predicted: Mapping[str, float], counts: Mapping[str, int], num_examples: int
) -> list[Compared]:
    """Answers by tier; a tier that was not predicted is compared with 0.

    Args:
        predicted: share of the answers by tier.
        counts: requests by tier that answered, "none" among them.
        num_examples: behind the prediction; 0 for an estimate.
    """
    total = sum(counts.values())
    found = []
    for name in (*predicted, *sorted(counts.keys() - predicted.keys())):
        told = predicted.get(name, 0.0)
        doubt = Z_95 * math.sqrt(told * (1 - told) / num_examples) if num_examples else 0.0
        share = counts.get(name, 0) / total
        low, high = _wilson(counts.get(name, 0), total)
        found.append(
            Compared(
                f"answered by {name}",
                told,
                max(0.0, told - doubt),
                min(1.0, told + doubt),
                share,
                low,
                high,
            )
        )
    return found


def _wilson(count: int, total: int) -> tuple[float, float]:
    """Wilson's interval of a share, which is sound at 0 and 1, too."""
    share, square = count / total, Z_95**2
    middle = (share + square / (2 * total)) / (1 + square / total)
    spread = share * (1 - share) / total + square / (4 * total**2)
    half = Z_95 / (1 + square / total) * math.sqrt(spread)
    # At the ends rounding may miss what is exact.
    return min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half))


def measured_quantile(ordered: Sequence[float], share: float) -> tuple[float, float, float]:
    """A quantile of ascending values, with its interval by order statistics."""
    num = len(ordered)
    half = Z_95 * math.sqrt(num * share * (1 - share))

    def at(rank: float) -> float:
        return ordered[min(num, max(1, math.ceil(rank))) - 1]

    return at(num * share), at(num * share - half), at(num * share + half + 1)


def bucket_quantile(
    buckets: Sequence[tuple[float, float]], share: float
) -> tuple[float, float, float] | None:
    """The same from a cumulative histogram: (upper bound, count up to it), ascending.

    The interval is the bucket; None where nothing was counted.
    """
    total = buckets[-1][1] if buckets else 0.0
    if not total > 0:
        return None
    below = [bound for bound, count in buckets if count < share * total]
    bound = buckets[len(below)][0]
    return bound, below[-1] if below else 0.0, bound


def compare_load(
    predicted: tuple[float, float, float], num_requests: int, over_s: float
) -> Compared:
    """Requests per second; predicted are the mean, the quietest and the busiest hour."""
    mean, low, high = predicted
    if not over_s > 0:
        return Compared("requests per s", mean, low, high)
    doubt = Z_95 * math.sqrt(num_requests)
    return Compared(
        "requests per s",
        mean,
        low,
        high,
        num_requests / over_s,
        max(0.0, num_requests - doubt) / over_s,
        (num_requests + doubt) / over_s,
    )
