"""Intervals that hold at all times at once, so that one may look whenever one likes.

Asymptotic confidence sequences with Robbins' normal mixture: Waudby-Smith, Arbour, Sinha, Kennedy
and Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences" (Annals of
Statistics, 2024). As an ordinary 95 % interval they need enough observations for a central limit;
unlike it they may be looked at after every one of them.
"""

from __future__ import annotations

import math

import msgspec


class Interval(msgspec.Struct, frozen=True):
    """From ``low`` to ``high``."""

    low: float
    high: float


class Moments(msgspec.Struct, frozen=True):
    """What is kept of observations: how many, their mean, and the sum of squares around it."""

    num: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def plus(self, value: float) -> Moments:
        """With one more observation (Welford)."""
        num = self.num + 1
        apart = value - self.mean
        mean = self.mean + apart / num
        return Moments(num, mean, self.squares + apart * (value - mean))

    def joined(self, other: Moments) -> Moments:
        """With those of another part, in any order (Chan, Golub and LeVeque)."""
        num = self.num + other.num
        if not num:
            return self
        apart = other.mean - self.mean
        return Moments(
            num,
            self.mean + apart * other.num / num,
            self.squares + other.squares + apart * apart * self.num * other.num / num,
        )

    @property
    def variance(self) -> float:
        """Of one observation, as if two more had been as far apart as values from 0 to 1 can be.

        Without that a few equal values would be taken for certainty.
        """
        return (self.squares + 0.5) / (self.num + 2)


def radius(variance: float, num: float, alpha: float, best_at: float) -> float:
    """Half the width of the sequence for the mean of ``num`` observations.

    ``variance`` is that of one observation. It is narrowest, for what is possible, near ``best_at``
    observations; infinite before the first.
    """
    if num <= 0 or variance <= 0:
        return math.inf if num <= 0 else 0.0
    # The mixture's parameter for a width that is least at best_at (their appendix B.2).
    small = -2 * math.log(alpha)
    rho2 = (small + math.log(small + 1)) / (best_at * variance)
    spread = num * variance * rho2 + 1
    return math.sqrt(2 * spread / (num * num * rho2) * math.log(math.sqrt(spread) / alpha))


def mean_of(moments: Moments, alpha: float, best_at: float) -> Interval:
    """The mean of values from 0 to 1, at all times with a chance of ``1 - alpha``."""
    half = radius(moments.variance, moments.num, alpha, best_at)
    return Interval(max(0.0, moments.mean - half), min(1.0, moments.mean + half))


def paired_of(differences: Moments, alpha: float, best_at: float) -> Interval:
    """The mean of differences of two values from 0 to 1, each pair of the same unit.

    What units have in common is gone from the difference, so that they may be of any kind; units
    have to be independent of one another, and observations within one need not be.
    """
    half = radius(differences.variance, differences.num, alpha, best_at)
    return Interval(max(-1.0, differences.mean - half), min(1.0, differences.mean + half))


def difference_of(first: Moments, second: Moments, alpha: float, best_at: float) -> Interval:
    """The first mean less the second, of values from 0 to 1 of two groups drawn at random.

    The two arms are one sequence of all observations, each counted for its arm by the inverse of
    the arm's share: its variance is that of the difference.
    """
    if not first.num or not second.num:
        return Interval(-1.0, 1.0)
    num = first.num + second.num
    variance = num * (first.variance / first.num + second.variance / second.num)
    half = radius(variance, num, alpha, 2 * best_at)
    apart = first.mean - second.mean
    return Interval(max(-1.0, apart - half), min(1.0, apart + half))
