"""Frames, windows, spectra, mel bands and the like of ``runtime.binding_signals``.

Every operation is a basic one of float64, in an order that this file sets: no library's Fourier
transform, matrix product or sum, whose order of additions depends on the processor. So features
have the same bits on every tier, and a row of a batch those that it has alone. Between steps,
numbers are float32.

NaN stays NaN, in its own example. What is too large for float32, infinity too, counts as the
largest float32, so that finite inputs have finite features.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.binding_signals import (
    MAX_ELEMENTS,
    Frames,
    Log,
    Mel,
    SignalStep,
    Spectrum,
    Standardise,
    Window,
    Windowed,
)
from runtime.core import exact_math
from runtime.core.fourier import real_fourier

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Shape = tuple[int, ...]
Work = Callable[[Floats], Floats]
LARGEST = float(np.finfo(np.float32).max)
# Rows are worked on in pieces of about so many numbers, which stay in the processor's cache.
_PIECE = 1 << 15
# Slaney: 200/3 Hz a mel up to 1000 Hz, from there 27 steps to 6.4 times the frequency.
_LINEAR_HZ, _LINEAR_TO_HZ = 200 / 3, 1000.0
_LINEAR_MELS = _LINEAR_TO_HZ / _LINEAR_HZ
_STEPS, _RATIO = 27.0, 6.4
_HTK, _HTK_HZ = 2595.0, 700.0


def shape_after(shape: Shape, step: SignalStep) -> Shape:
    """What a step makes of one example of this shape.

    Raises:
        ValueError: it cannot be done; the text says why.
    """
    match step:
        case Frames():
            place = place_of(shape, step.axis)
            num = _num_frames(shape[place], step)
            return (*shape[:place], num, step.length, *shape[place + 1 :])
        case Windowed():
            place_of(shape, step.axis)
            return shape
        case Spectrum():
            place = place_of(shape, step.axis)
            if shape[place] > step.fft_length:
                raise ValueError(
                    f"{shape[place]} samples do not fit the fft_length {step.fft_length}: cut them "
                    "into shorter frames, or take a longer one"
                )
            return (*shape[:place], step.fft_length // 2 + 1, *shape[place + 1 :])
        case Mel():
            place = place_of(shape, step.axis)
            _filters(step, shape[place])
            return (*shape[:place], step.bands, *shape[place + 1 :])
        case Log():
            return shape
        case _:
            _places_of(shape, step)
            return shape


def done(array: npt.NDArray[Any], step: SignalStep) -> Singles:
    """``(n, ...)`` after a step that ``shape_after`` allows for these shapes."""
    match step:
        case Frames():
            return _frames(_singles(array), step, place_of(array.shape[1:], step.axis) + 1)
        case Windowed():
            place = place_of(array.shape[1:], step.axis) + 1
            window = window_of(step.kind, array.shape[place], periodic=step.periodic)
            sizes = [1] * array.ndim
            sizes[place] = -1
            return _singles(_doubles(array) * window.reshape(sizes))
        case Spectrum():
            return _along(array, step.axis, step.fft_length, lambda rows: _spectrum(rows, step))
        case Mel():
            return _along(array, step.axis, step.bands, lambda rows: _mel(rows, step))
        case Log():
            loud = exact_math.log(np.maximum(_doubles(array), step.floor))
            return _singles(loud * (10 / exact_math.LN10) if step.kind == "decibel" else loud)
        case _:
            return _standardised(array, step)


def place_of(shape: Shape, axis: int) -> int:
    """The axis counted from the first.

    Raises:
        ValueError: there is none.
    """
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"{list(shape)} has no axis {axis}")
    return axis % len(shape)


def check_size(shape: Shape, before: Shape) -> Shape:
    """The shape itself.

    Raises:
        ValueError: a step makes more of an example than may be allocated for it.
    """
    if math.prod(shape) > max(MAX_ELEMENTS, math.prod(before)):
        raise ValueError(f"{list(shape)} are over {MAX_ELEMENTS} numbers an example")
    return shape


def _num_frames(length: int, step: Frames) -> int:
    whole = max(0, (length - step.length) // step.hop + 1)
    ends = (whole - 1) * step.hop + step.length if whole else 0
    has_tail = ends < length and whole * step.hop < length
    num = whole + (step.tail == "pad" and has_tail)
    if num == 0:
        raise ValueError(
            f'{length} samples are shorter than a frame of {step.length}: `tail` "pad" fills it up'
        )
    return num


def _frames(array: Singles, step: Frames, place: int) -> Singles:
    length = array.shape[place]
    num = _num_frames(length, step)
    missing = (num - 1) * step.hop + step.length - length
    if missing > 0:
        widths = [(0, 0)] * array.ndim
        widths[place] = (0, missing)
        array = np.pad(array, widths)
    places = np.arange(num)[:, None] * step.hop + np.arange(step.length)
    found: Singles = np.take(array, places, axis=place)
    return found


@functools.lru_cache(maxsize=16)
def window_of(kind: Window, length: int, *, periodic: bool) -> Floats:
    """``(length,)``; of one sample it is 1."""
    around = length if periodic else length - 1
    if kind == "rectangular" or around == 0 or length == 1:
        return np.ones(length)
    share = 0.5 if kind == "hann" else 0.54
    cosine, _ = exact_math.cos_sin(np.arange(length), around)
    return share - (1 - share) * cosine


def _doubles(array: npt.NDArray[Any]) -> Floats:
    return np.clip(np.asarray(array, np.float64), -LARGEST, LARGEST)


def _singles(array: npt.NDArray[Any]) -> Singles:
    found: Singles = np.clip(array, -LARGEST, LARGEST).astype(np.float32)
    return found


def _along(array: npt.NDArray[Any], axis: int, width: int, work: Work) -> Singles:
    """``work`` on rows ``(m, k)`` that lie along an axis, in pieces of limited size."""
    place = place_of(array.shape[1:], axis) + 1
    moved = np.moveaxis(array, place, -1)
    rows = moved.reshape(-1, moved.shape[-1])
    size = max(1, _PIECE // max(width, rows.shape[1]))
    parts = [work(_doubles(rows[start : start + size])) for start in range(0, len(rows), size)]
    found = np.concatenate([_singles(part) for part in parts])
    return np.moveaxis(found.reshape(*moved.shape[:-1], -1), -1, place)


def _spectrum(rows: Floats, step: Spectrum) -> Floats:
    real = np.zeros((len(rows), step.fft_length))
    real[:, : rows.shape[1]] = rows
    real, imag = real_fourier(real)
    power = real * real + imag * imag
    return power if step.kind == "power" else np.sqrt(power)


def mel_of(hertz: float, scale: str) -> float:
    """Hertz on the mel scale."""
    if scale == "htk":
        return _HTK / exact_math.LN10 * exact_math.log_of(1 + hertz / _HTK_HZ)
    if hertz < _LINEAR_TO_HZ:
        return hertz / _LINEAR_HZ
    steps = exact_math.log_of(hertz / _LINEAR_TO_HZ) / exact_math.log_of(_RATIO)
    return _LINEAR_MELS + _STEPS * steps


def hertz_of(mels: Floats, scale: str) -> Floats:
    """The other way round."""
    if scale == "htk":
        return _HTK_HZ * (exact_math.exp(mels * (exact_math.LN10 / _HTK)) - 1)
    above = np.maximum(mels - _LINEAR_MELS, 0)
    curved = _LINEAR_TO_HZ * exact_math.exp(above * (exact_math.log_of(_RATIO) / _STEPS))
    return np.where(mels < _LINEAR_MELS, mels * _LINEAR_HZ, curved)


@functools.lru_cache(maxsize=16)
def _filters(step: Mel, num_bins: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """First bin of each band, and the weights from there ``(bands, width)``.

    Raises:
        ValueError: a band has no frequency of the spectrum.
    """
    if not 2 <= num_bins <= MAX_ELEMENTS // step.bands:  # noqa: PLR2004 - 0 and half the rate
        raise ValueError(f"{num_bins} frequencies are no spectrum for {step.bands} mel bands")
    low, high = mel_of(step.low_hz, step.scale), mel_of(step.top_hz, step.scale)
    mels = low + (high - low) * (np.arange(step.bands + 2) / (step.bands + 1))
    edges = hertz_of(mels, step.scale)
    bins = np.arange(num_bins) * (step.rate_hz / 2 / (num_bins - 1))
    left, middle, right = (edges[start : start + step.bands, None] for start in range(3))
    rising, falling = (bins - left) / (middle - left), (right - bins) / (right - middle)
    weights = np.maximum(0.0, np.minimum(rising, falling))
    if step.norm == "area":
        weights = weights * (2.0 / (right - left))
    is_empty = ~weights.any(axis=1)
    if is_empty.any():
        raise ValueError(
            f"{step.bands} mel bands are too many for {num_bins} frequencies: "
            f"{int(is_empty.sum())} would be empty. Take fewer bands or a longer fft_length"
        )
    first = (weights > 0).argmax(axis=1)
    width = int((weights > 0).sum(axis=1).max())
    places = first[:, None] + np.arange(width)
    inside = np.where(places < num_bins, places, 0)
    return first, np.where(places < num_bins, np.take_along_axis(weights, inside, axis=1), 0.0)


def _mel(rows: Floats, step: Mel) -> Floats:
    first, weights = _filters(step, rows.shape[1])
    total = np.zeros((len(rows), step.bands))
    for place in range(weights.shape[1]):
        inside = np.minimum(first + place, rows.shape[1] - 1)
        total += rows[:, inside] * weights[:, place]
    return total


def _places_of(shape: Shape, step: Standardise) -> list[int]:
    places = [place_of(shape, axis) for axis in step.axes] or list(range(len(shape)))
    if not places or len(set(places)) != len(places):
        raise ValueError(f"{list(shape)} has not the axes {list(step.axes)}, each once")
    return places


def _standardised(array: npt.NDArray[Any], step: Standardise) -> Singles:
    places = _places_of(array.shape[1:], step)
    ends = tuple(range(-len(places), 0))
    moved = np.moveaxis(_doubles(array), [place + 1 for place in places], ends)
    kept = moved.shape[: moved.ndim - len(places)]
    rows = moved.reshape(math.prod(kept), -1)
    away = rows - _sum(rows) / rows.shape[1]
    deviation = np.sqrt(_sum(away * away) / rows.shape[1] + step.epsilon)
    found = (away / deviation).reshape(moved.shape)
    return _singles(np.moveaxis(found, ends, [place + 1 for place in places]))


def _sum(rows: Floats) -> Floats:
    """``(m, 1)``: halves added to one another until one column is left, always in this order."""
    while rows.shape[1] > 1:
        half = rows.shape[1] // 2
        left = rows[:, :half] + rows[:, half : 2 * half]
        rows = np.concatenate([left, rows[:, 2 * half :]], axis=1)
    return rows
