"""The discrete Fourier transform of real rows by basic operations alone.

Libraries fuse multiplications with additions where a processor can; this one does not, so that its
results have the same bits everywhere (see ``runtime.core.exact_math``).

Stockham's autosort algorithm, decimation in frequency, with one pass for each factor of the length
(Van Loan, Computational Frameworks for the Fast Fourier Transform, 1992, chapters 1.7 and 2); two
neighbouring samples are one complex number, as both halves of a real spectrum say the same (Cooley,
Lewis and Welch, 1970). The rows are the last axis inside, so that every operation runs along them.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from runtime.core.exact_math import cos_sin

Floats = npt.NDArray[np.float64]
_FACTORS = (4, 2, 3, 5, 7)


def real_fourier(rows: Floats) -> tuple[Floats, Floats]:
    """Real and imaginary part, ``(m, n / 2 + 1)`` each, of ``(m, n)`` with an even n.

    n has no prime factor over 7.
    """
    half = rows.shape[1] // 2
    real, imag = _transform(rows[:, 0::2].T, rows[:, 1::2].T)
    # The last frequency is the first one again: there is no other after half a turn.
    there = np.arange(half + 1) % half
    back = (half - np.arange(half + 1)) % half
    even_re, even_im = (real[there] + real[back]) / 2, (imag[there] - imag[back]) / 2
    odd_re, odd_im = (imag[there] + imag[back]) / 2, (real[back] - real[there]) / 2
    cosine, sine = (one[:, None] for one in _half_turns(half))
    found_re = even_re + (odd_re * cosine + odd_im * sine)
    found_im = even_im + (odd_im * cosine - odd_re * sine)
    return found_re.T, found_im.T


def _transform(real: Floats, imag: Floats) -> tuple[Floats, Floats]:
    """Of complex columns ``(n, m)``."""
    length, num = real.shape
    real, imag = np.ascontiguousarray(real), np.ascontiguousarray(imag)
    left, stride = length, 1
    for factor in _factors_of(length):
        rest = left // factor
        shape = (factor, rest, stride, num)
        turned = _butterflies(real.reshape(shape), imag.reshape(shape), factor)
        out_re, out_im = (np.empty((rest, factor, stride, num)) for _ in range(2))
        cosines, sines = _turns(factor, left)
        for which, (re, im) in enumerate(turned):
            cos, sin = cosines[which], sines[which]
            out_re[:, which] = re * cos + im * sin if which else re
            out_im[:, which] = im * cos - re * sin if which else im
        real, imag = out_re.reshape(length, num), out_im.reshape(length, num)
        left, stride = rest, stride * factor
    return real, imag


def _butterflies(re: Floats, im: Floats, factor: int) -> list[tuple[Floats, Floats]]:
    """The transform of ``factor`` numbers, along the first axis."""
    if factor == 2:  # noqa: PLR2004
        return [(re[0] + re[1], im[0] + im[1]), (re[0] - re[1], im[0] - im[1])]
    if factor == 4:  # noqa: PLR2004
        sum_re, sum_im, away_re, away_im = (
            re[0] + re[2], im[0] + im[2], re[0] - re[2], im[0] - im[2]
        )  # fmt: skip
        odd_re, odd_im, turn_re, turn_im = (
            re[1] + re[3], im[1] + im[3], im[1] - im[3], re[3] - re[1]
        )  # fmt: skip
        return [
            (sum_re + odd_re, sum_im + odd_im),
            (away_re + turn_re, away_im + turn_im),
            (sum_re - odd_re, sum_im - odd_im),
            (away_re - turn_re, away_im - turn_im),
        ]
    return [_one_output(re, im, which, factor) for which in range(factor)]


def _one_output(re: Floats, im: Floats, which: int, factor: int) -> tuple[Floats, Floats]:
    sum_re, sum_im = re[0], im[0]
    cosines, sines = cos_sin(np.arange(factor) * which, factor)
    for place in range(1, factor):
        cos, sin = cosines[place], sines[place]
        sum_re = sum_re + (re[place] * cos + im[place] * sin)
        sum_im = sum_im + (im[place] * cos - re[place] * sin)
    return sum_re, sum_im


@functools.lru_cache(maxsize=64)
def _turns(factor: int, length: int) -> tuple[Floats, Floats]:
    """Of ``2 pi j k / length``, outputs j, places k: ``(factor, length / factor, 1, 1)``."""
    places = np.arange(factor)[:, None, None, None] * np.arange(length // factor)[:, None, None]
    return cos_sin(places, length)


@functools.lru_cache(maxsize=16)
def _half_turns(half: int) -> tuple[Floats, Floats]:
    return cos_sin(np.arange(half + 1), 2 * half)


def _factors_of(length: int) -> list[int]:
    found = []
    for factor in _FACTORS:
        while length % factor == 0:
            found.append(factor)
            length //= factor
    return found
