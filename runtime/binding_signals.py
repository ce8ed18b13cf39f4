"""Steps for sound and other series: from what a microphone or sensor gives to features.

Each is declared in a manifest like the steps for pictures (``runtime.binding``), and
``runtime.core.signals`` does them. A recording is cut into ``frames``, a ``window`` softens their
ends, ``spectrum`` says how much of each frequency is in them, ``mel`` pools frequencies as ears do,
``log`` makes loudness of energy. ``standardise`` is for sensors whose level says nothing.

Axes are of one example, without the batch axis. What a field alone shows to be impossible is
refused here; what depends on shapes, when a model is imported or loaded.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import msgspec

Axis = Annotated[int, msgspec.Meta(ge=-8, le=7)]
# What one step may make of one example: 64 MB of float32.
MAX_ELEMENTS = 1 << 24
MAX_FFT = 8192
MAX_BANDS = 512
# Fast for lengths without greater prime factors; others would take time with their square.
FACTORS = (2, 3, 5, 7)
# Below it float32 has fewer digits, and some processors make 0 of it.
LEAST_FLOOR = 1e-37
Window = Literal["hann", "hamming", "rectangular"]
Hertz = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class Frames(msgspec.Struct, frozen=True, tag_field="step", tag="frames"):
    """An axis of time becomes two, frames and the places in them: (n,) -> (frames, length).

    Each begins ``hop`` after the one before. A tail that is shorter than a frame is cut off, or
    filled up with zeros (``tail`` "pad"); then a series shorter than one frame is one.
    """

    length: Annotated[int, msgspec.Meta(ge=1, le=MAX_ELEMENTS)]
    hop: Annotated[int, msgspec.Meta(ge=1, le=MAX_ELEMENTS)]
    axis: Axis = 0
    tail: Literal["cut", "pad"] = "cut"


class Windowed(msgspec.Struct, frozen=True, tag_field="step", tag="window"):
    """Multiplied along ``axis`` with a window that is 0, or nearly, at its ends.

    hann is ``0.5 - 0.5 cos``, hamming ``0.54 - 0.46 cos``. ``periodic`` is for spectra: its last
    place is the one before the next window's first; otherwise both ends are alike. (Harris, On the
    use of windows for harmonic analysis with the discrete Fourier transform, 1978.)
    """

    kind: Window = "hann"
    periodic: bool = True
    axis: Axis = -1


class Spectrum(msgspec.Struct, frozen=True, tag_field="step", tag="spectrum"):
    """Power or magnitude of the frequencies from 0 to half the sample rate along ``axis``.

    ``fft_length`` is even, and what is shorter is filled up with zeros; ``fft_length / 2 + 1``
    frequencies come out. They are not divided by the length.

    Raises:
        ValueError: the length is odd, or has a prime factor greater than 7.
    """

    fft_length: Annotated[int, msgspec.Meta(ge=2, le=MAX_FFT)]
    kind: Literal["power", "magnitude"] = "power"
    axis: Axis = -1

    def __post_init__(self) -> None:
        """Refuses lengths that would be slow or ambiguous."""
        rest = self.fft_length
        for factor in FACTORS:
            while rest % factor == 0:
                rest //= factor
        if self.fft_length % 2 or rest != 1:
            raise ValueError(
                f"fft_length {self.fft_length} must be even and have no prime factor over "
                f"{FACTORS[-1]}: take a power of two such as {next_fft_length(self.fft_length)}"
            )


class Mel(msgspec.Struct, frozen=True, tag_field="step", tag="mel"):
    """Frequencies along ``axis``, as ``spectrum`` gives them, pooled into ``bands``.

    Each band is a triangle over frequency that rises from the middle of the one before and falls to
    the middle of the one behind; their middles are equally far apart on the mel scale between
    ``low_hz`` and ``high_hz`` (0: half the sample rate). ``scale`` "slaney" is linear below
    1000 Hz and logarithmic above (Slaney, Auditory Toolbox, Interval Research 1998-010); "htk" is
    ``2595 log10(1 + f / 700)`` (Young et al., The HTK Book, 2002). ``norm`` "area" divides each
    triangle by half its width in Hz, so that noise is as loud in all; "none" leaves its height 1.

    Raises:
        ValueError: the frequencies are in no order, or over half the sample rate.
    """

    bands: Annotated[int, msgspec.Meta(ge=1, le=MAX_BANDS)]
    rate_hz: Annotated[float, msgspec.Meta(gt=0, le=1e9)]
    low_hz: Hertz = 0.0
    high_hz: Hertz = 0.0
    scale: Literal["slaney", "htk"] = "slaney"
    norm: Literal["none", "area"] = "none"
    axis: Axis = -1

    def __post_init__(self) -> None:
        """Refuses frequencies that no spectrum of this rate has."""
        if not 0 <= self.low_hz < self.top_hz <= self.rate_hz / 2:
            raise ValueError(
                f"mel bands from {self.low_hz:g} to {self.top_hz:g} Hz: they must lie between 0 "
                f"and half the sample rate, {self.rate_hz / 2:g} Hz"
            )

    @property
    def top_hz(self) -> float:
        """Where the last band ends."""
        return self.high_hz or self.rate_hz / 2


class Log(msgspec.Struct, frozen=True, tag_field="step", tag="log"):
    """The natural logarithm, or decibels of a power (``10 log10``), of what is at least ``floor``.

    What is smaller, or below zero, counts as ``floor``: silence is a number.
    """

    kind: Literal["natural", "decibel"] = "natural"
    floor: Annotated[float, msgspec.Meta(ge=LEAST_FLOOR, le=1e30)] = 1e-10


class Standardise(msgspec.Struct, frozen=True, tag_field="step", tag="standardise"):
    """``(x - mean) / sqrt(variance + epsilon)`` of each example by itself, over ``axes``.

    No axes: over all of them. What does not change at all becomes 0.

    Raises:
        ValueError: ``epsilon`` is no number.
    """

    axes: Annotated[tuple[Axis, ...], msgspec.Meta(max_length=7)] = ()
    epsilon: Annotated[float, msgspec.Meta(ge=1e-30, le=1e30)] = 1e-8

    def __post_init__(self) -> None:
        """Refuses an axis that is named twice."""
        if len(set(self.axes)) != len(self.axes):
            raise ValueError(f"{list(self.axes)} names an axis twice")


SignalStep = Frames | Windowed | Spectrum | Mel | Log | Standardise


def next_fft_length(length: int) -> int:
    """The least power of two that holds so many samples, at least 2."""
    return 1 << max(1, math.ceil(math.log2(length)))
