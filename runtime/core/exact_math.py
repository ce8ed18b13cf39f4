"""Cosine, sine, logarithm and exponential function by basic operations alone.

Addition, multiplication, division and square root are the same to the last bit on every processor
(IEEE 754); the functions of numpy and of C libraries are not: they differ between processors and
versions. Two tiers that compute features with them would ask their models different things. These
here are series of float64, one operation at a time, good to about 1e-15 of their value.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
LN2 = 0.6931471805599453
LN10 = 2.302585092994046
_HALF_PI = 1.5707963267948966
_ROOT_HALF = 0.7071067811865476
_TERMS_OF_TURN = 9
_TERMS_OF_LOG = 12
_TERMS_OF_EXP = 18


def cos_sin(places: npt.NDArray[np.int64], length: int) -> tuple[Floats, Floats]:
    """Cosine and sine of ``2 pi place / length``, for places from 0."""
    quadrant, rest = np.divmod(4 * (places % length), length)
    # Series are short where the angle is; beyond an eighth of a turn the two change roles.
    is_far = 2 * rest > length
    angle = np.where(is_far, length - rest, rest) / length * _HALF_PI
    cosine, sine = _series(angle, 0), _series(angle, 1)
    cosine, sine = np.where(is_far, sine, cosine), np.where(is_far, cosine, sine)
    # A quarter of a turn makes (-sin, cos) of (cos, sin).
    cases = [quadrant == number for number in range(4)]
    return (
        np.select(cases, [cosine, -sine, -cosine, sine]),
        np.select(cases, [sine, cosine, -sine, -cosine]),
    )


def _series(angle: Floats, first: int) -> Floats:
    """Of the cosine (``first`` 0) or sine (1), by Horner's rule."""
    square = angle * angle
    total = np.ones_like(angle)
    for term in range(_TERMS_OF_TURN, 0, -1):
        power = 2 * term + first
        total = 1.0 - total * square / (power * (power - 1))
    return total if first == 0 else total * angle


def log(values: Floats) -> Floats:
    """The natural logarithm of finite numbers above 0; NaN stays NaN."""
    mantissa, exponent = np.frexp(values)
    is_low = mantissa < _ROOT_HALF
    mantissa = np.where(is_low, mantissa * 2, mantissa)
    exponent = exponent - is_low
    # log m = 2 artanh((m - 1) / (m + 1)), and m is near 1.
    ratio = (mantissa - 1) / (mantissa + 1)
    square = ratio * ratio
    total = np.zeros_like(ratio)
    for term in range(_TERMS_OF_LOG, -1, -1):
        total = total * square + 1.0 / (2 * term + 1)
    found: Floats = 2 * ratio * total + exponent * LN2
    return found


def exp(values: Floats) -> Floats:
    """E to the power of finite numbers of moderate size."""
    whole = np.rint(values / LN2)
    rest = values - whole * LN2
    total = np.ones_like(rest)
    for term in range(_TERMS_OF_EXP, 0, -1):
        total = 1.0 + total * rest / term
    found: Floats = np.ldexp(total, whole.astype(np.int32))
    return found


def log_of(value: float) -> float:
    """The natural logarithm of one number above 0.

    Raises:
        ValueError: it is not finite, or not above 0.
    """
    if not 0 < value < math.inf:
        raise ValueError(f"{value} has no logarithm")
    return float(log(np.array([value]))[0])
