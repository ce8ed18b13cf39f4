"""Sound and sensor series become features: each step against plain float64 arithmetic."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import msgspec
import numpy as np
import pytest

from runtime.binding import InputBinding, Step
from runtime.binding_signals import (
    MAX_ELEMENTS,
    Frames,
    Log,
    Mel,
    Spectrum,
    Standardise,
    Windowed,
    next_fft_length,
)
from runtime.core import exact_math, signals
from runtime.core.fourier import real_fourier
from runtime.core.preprocessing import prepare, shape_after

LOG_MEL = (
    Frames(400, 160),
    Windowed(axis=1),
    Spectrum(512, axis=1),
    Mel(40, 16000.0, axis=1),
    Log(),
)


def _sound(num: int = 1, length: int = 1600, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(0, 0.1, (num, length)).astype(np.float32)


def _done(array: Any, *steps: Step) -> Any:
    return prepare(array, steps, "FP32")


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 400, 8192])
def test_turns_are_those_of_mathematics(n: int) -> None:
    cosine, sine = exact_math.cos_sin(np.arange(2 * n), n)

    turns = 2 * np.pi * np.arange(2 * n) / n
    np.testing.assert_allclose(cosine, np.cos(turns), atol=4e-15)
    np.testing.assert_allclose(sine, np.sin(turns), atol=4e-15)


def test_logarithm_and_exponential_are_those_of_mathematics() -> None:
    values = np.concatenate([np.exp(np.linspace(-87, 200, 5001)), [1.0, 0.5, 2.0]])

    np.testing.assert_allclose(exact_math.log(values), np.log(values), rtol=1e-14, atol=1e-16)
    logs = np.linspace(-80, 80, 999)
    np.testing.assert_allclose(exact_math.exp(logs), np.exp(logs), rtol=2e-14)
    assert np.isnan(exact_math.log(np.array([np.nan]))).all()


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_what_has_no_logarithm_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="no logarithm"):
        exact_math.log_of(value)


@pytest.mark.parametrize("n", [2, 4, 6, 8, 10, 12, 14, 30, 70, 400, 512, 1260, 8192])
def test_the_spectrum_is_the_discrete_fourier_transform(n: int) -> None:
    rows = np.random.default_rng(n).normal(size=(3, n))

    real, imag = real_fourier(rows)

    expected = np.fft.rfft(rows)
    np.testing.assert_allclose(real + 1j * imag, expected, atol=1e-13 * np.sqrt(n))


@pytest.mark.parametrize(
    ("kind", "periodic", "expected"),
    [
        ("hann", False, np.hanning(16)),
        ("hann", True, np.hanning(17)[:-1]),
        ("hamming", False, np.hamming(16)),
        ("hamming", True, np.hamming(17)[:-1]),
        ("rectangular", True, np.ones(16)),
    ],
)
def test_windows_are_the_usual_ones(kind: Any, periodic: bool, expected: Any) -> None:
    found = _done(np.ones((1, 2, 16), np.float32), Windowed(kind, periodic))

    np.testing.assert_allclose(found[0], [expected] * 2, atol=1e-7)


@pytest.mark.parametrize("periodic", [True, False])
def test_a_window_of_one_sample_takes_nothing_away(periodic: bool) -> None:
    assert _done(np.full((1, 1), 3, np.float32), Windowed("hann", periodic)).tolist() == [[3.0]]


@pytest.mark.parametrize(
    ("length", "frame", "hop", "tail", "expected"),
    [
        (6, 3, 3, "cut", [[0, 1, 2], [3, 4, 5]]),
        (7, 3, 2, "cut", [[0, 1, 2], [2, 3, 4], [4, 5, 6]]),
        (5, 3, 3, "cut", [[0, 1, 2]]),
        (5, 3, 3, "pad", [[0, 1, 2], [3, 4, 0]]),
        (6, 3, 3, "pad", [[0, 1, 2], [3, 4, 5]]),
        (2, 3, 1, "pad", [[0, 1, 0]]),
        # Between frames that are apart, what nothing looks at is no tail.
        (4, 2, 5, "pad", [[0, 1]]),
        (6, 2, 5, "pad", [[0, 1], [5, 0]]),
    ],
)
def test_frames_and_what_becomes_of_the_tail(
    length: int, frame: int, hop: int, tail: Any, expected: list[list[int]]
) -> None:
    found = _done(np.arange(length, dtype=np.int16)[None], Frames(frame, hop, tail=tail))

    assert found[0].tolist() == expected


def test_frames_of_several_channels_keep_them() -> None:
    array = np.arange(24, dtype=np.float32).reshape(1, 12, 2)

    found = _done(array, Frames(4, 4))

    assert found.shape == (1, 3, 4, 2)
    np.testing.assert_array_equal(found[0, 1, :, 1], array[0, 4:8, 1])
    np.testing.assert_array_equal(
        _done(array.transpose(0, 2, 1), Frames(4, 4, axis=-1)), found.transpose(0, 3, 1, 2)
    )


def _reference_filters(bands: int, rate: float, fft: int, scale: str) -> Any:
    """Triangles written out one by one, with numpy's functions."""

    def to_mel(hertz: Any) -> Any:
        if scale == "htk":
            return 2595 * np.log10(1 + hertz / 700)
        high = 15 + 27 * np.log(np.maximum(hertz, 1) / 1000) / np.log(6.4)
        return np.where(hertz < 1000, hertz * 3 / 200, high)

    fine = np.linspace(0, rate / 2, 2_000_001)
    edges = np.interp(np.linspace(0, to_mel(np.float64(rate / 2)), bands + 2), to_mel(fine), fine)
    weights = np.zeros((fft // 2 + 1, bands))
    for k in range(fft // 2 + 1):
        hertz = k * rate / fft
        for band in range(bands):
            low, mid, high = edges[band : band + 3]
            if low < hertz < high:
                up, down = (hertz - low) / (mid - low), (high - hertz) / (high - mid)
                weights[k, band] = min(up, down)
    return weights, 2 / (edges[2:] - edges[:-2])


@pytest.mark.parametrize("scale", ["slaney", "htk"])
@pytest.mark.parametrize("norm", ["none", "area"])
def test_mel_bands_are_triangles_over_frequency(scale: Any, norm: Any) -> None:
    power = np.random.default_rng(5).random((2, 3, 257)).astype(np.float32)

    found = _done(power, Mel(32, 16000.0, scale=scale, norm=norm))

    weights, by_area = _reference_filters(32, 16000.0, 512, scale)
    expected = power @ weights * (by_area if norm == "area" else 1.0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_mel_scales_at_known_places() -> None:
    """1000 Hz is 15 on Slaney's scale, and very near 1000 on that of the HTK Book."""
    assert signals.mel_of(1000.0, "slaney") == pytest.approx(15)
    assert signals.mel_of(6400.0, "slaney") == pytest.approx(42)
    assert signals.mel_of(1000.0, "htk") == pytest.approx(1000, abs=0.02)


def test_log_mel_of_a_tone_is_loudest_where_the_tone_is() -> None:
    time = np.arange(16000) / 16000
    tone = np.sin(2 * np.pi * 1000 * time).astype(np.float32)[None]

    found = _done(tone, *LOG_MEL)

    middles = [(band + 1) / 41 * signals.mel_of(8000.0, "slaney") for band in range(40)]
    nearest = int(np.argmin(np.abs(np.array(middles) - 15)))
    assert found.shape == (1, 98, 40)
    assert set(found[0].argmax(axis=1).tolist()) == {nearest}


def test_log_mel_is_that_of_plain_float64_arithmetic() -> None:
    sound = _sound(2, 4000)

    found = _done(sound, *LOG_MEL)

    window = np.hanning(401)[:-1]
    frames = np.stack([sound[:, k * 160 : k * 160 + 400] for k in range(23)], axis=1)
    power = np.abs(np.fft.rfft(frames.astype(np.float64) * window, 512)) ** 2
    weights, _ = _reference_filters(40, 16000.0, 512, "slaney")
    expected = np.log(np.maximum(power @ weights, 1e-10))
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize(
    ("log", "of_ten", "silent"),
    [(Log(floor=1e-4), math.log(10), math.log(1e-4)), (Log("decibel", 1e-4), 10.0, -40.0)],
)
def test_silence_is_the_floor_and_never_minus_infinity(
    log: Log, of_ten: float, silent: float
) -> None:
    found = _done(np.array([[10, 0, -3, 1e-9]], np.float32), log)

    np.testing.assert_allclose(found, [[of_ten, silent, silent, silent]], rtol=1e-6)


def test_standardised_examples_know_nothing_of_one_another() -> None:
    array = np.random.default_rng(2).normal(5, 3, (4, 50, 6)).astype(np.float32)

    each = _done(array, Standardise((0,)))
    whole = _done(array, Standardise())

    plain = array.astype(np.float64)
    expected = (plain - plain.mean(1, keepdims=True)) / plain.std(1, keepdims=True)
    np.testing.assert_allclose(each, expected, atol=1e-5)
    np.testing.assert_allclose(whole.mean(axis=(1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(whole.std(axis=(1, 2)), 1, atol=1e-5)
    np.testing.assert_array_equal(_done(array[2:3], Standardise()), whole[2:3])


def test_what_does_not_change_becomes_nothing() -> None:
    assert not _done(np.full((1, 9), 7, np.float32), Standardise()).any()


def test_standardising_along_the_first_of_two_axes_is_that_along_both_ways() -> None:
    array = np.random.default_rng(3).normal(size=(2, 4, 5)).astype(np.float32)

    np.testing.assert_array_equal(
        _done(array, Standardise((0,))),
        _done(array.transpose(0, 2, 1), Standardise((-1,))).transpose(0, 2, 1),
    )


def test_the_bits_are_these_on_every_machine() -> None:
    """A digest of features that was written down once; other processors must come to it too."""
    values = (np.arange(3200, dtype=np.int64) * 7919 % 2003 - 1001).astype(np.float32) / 1001

    features = [
        _done(values[None], *LOG_MEL),
        _done(values[None], Frames(420, 420), Windowed("hamming"), Spectrum(420, "magnitude")),
        _done(values.reshape(1, 640, 5), Standardise((0,))),
        _done(
            values[None],
            *LOG_MEL[:3],
            Mel(20, 16000.0, 60.0, 7600.0, "htk", "area"),
            Log("decibel", 1e-7),
        ),
    ]

    digest = hashlib.sha256(b"".join(one.astype("<f4").tobytes() for one in features))
    assert digest.hexdigest() == "b1dcf1a3e666a8089948e8bf10b39c8451b90a27e84aa7d4ecbd0ab43ad23fe1"


@pytest.mark.parametrize(
    ("value", "outcome"), [(math.nan, "nan"), (math.inf, "finite"), (3e38, "finite")]
)
def test_what_is_not_finite_stays_in_its_example(value: float, outcome: str) -> None:
    """NaN makes NaN of the frames it is in; what is too large counts as the largest float32."""
    sound = _sound(3, 800)
    alone = _done(sound[[0, 2]], *LOG_MEL)
    sound[1, 100] = value

    found = _done(sound, *LOG_MEL)

    np.testing.assert_array_equal(found[[0, 2]], alone)
    assert np.isnan(found[1, 0]).all() == (outcome == "nan")
    assert np.isfinite(found[1, 0]).all() == (outcome == "finite")
    assert np.isfinite(found[1, 1:]).all()
    assert np.isfinite(_done(sound[[1]], Standardise())).all() == (outcome == "finite")


@pytest.mark.parametrize(
    ("shape", "step", "because"),
    [
        ((100,), Frames(101, 1), "shorter than a frame"),
        ((100,), Frames(10, 1, axis=1), "no axis 1"),
        ((), Frames(10, 1), "no axis 0"),
        ((100,), Windowed(axis=3), "no axis 3"),
        ((100,), Spectrum(64), "do not fit the fft_length 64"),
        ((100,), Spectrum(128, axis=-2), "no axis -2"),
        ((1,), Mel(1, 8000.0), "no spectrum"),
        ((129,), Mel(100, 16000.0), "100 mel bands are too many"),
        ((257,), Mel(10, 16000.0, 10.0, 20.0), "too many"),
        ((3, 4), Standardise((2,)), "no axis 2"),
        ((3, 4), Standardise((1, -1)), "each once"),
        ((), Standardise(), "has not the axes"),
        ((MAX_ELEMENTS // 4,), Frames(1000, 1), "numbers an example"),
    ],
)
def test_a_step_that_cannot_be_done_says_why(
    shape: tuple[int, ...], step: Step, because: str
) -> None:
    with pytest.raises(ValueError, match=because):
        shape_after(shape, (step,))


def test_a_step_is_bounded_by_what_it_makes_and_not_by_what_it_is_given() -> None:
    large = (MAX_ELEMENTS, 3)

    assert shape_after(large, (Windowed(),)) == large
    with pytest.raises(ValueError, match="numbers an example"):
        shape_after((MAX_ELEMENTS,), (Frames(400, 399),))


REFUSED: dict[str, dict[str, object]] = {
    "a hop of 0": {"step": "frames", "length": 400, "hop": 0},
    "a frame of 0": {"step": "frames", "length": 0, "hop": 1},
    "a huge frame": {"step": "frames", "length": MAX_ELEMENTS + 1, "hop": 1},
    "an unknown tail": {"step": "frames", "length": 4, "hop": 1, "tail": "mirror"},
    "an unknown window": {"step": "window", "kind": "kaiser"},
    "an odd length": {"step": "spectrum", "fft_length": 401},
    "a prime factor": {"step": "spectrum", "fft_length": 22},
    "a long transform": {"step": "spectrum", "fft_length": 16384},
    "no bands": {"step": "mel", "bands": 0, "rate_hz": 16000},
    "many bands": {"step": "mel", "bands": 100_000, "rate_hz": 16000},
    "no rate": {"step": "mel", "bands": 4, "rate_hz": 0},
    "over half the rate": {"step": "mel", "bands": 4, "rate_hz": 16000, "high_hz": 9000},
    "in no order": {"step": "mel", "bands": 4, "rate_hz": 16000, "low_hz": 900, "high_hz": 800},
    "an unknown scale": {"step": "mel", "bands": 4, "rate_hz": 16000, "scale": "bark"},
    "no floor": {"step": "log", "floor": 0},
    "a floor that is no normal float32": {"step": "log", "floor": 1e-40},
    "no epsilon": {"step": "standardise", "epsilon": 0},
    "an axis twice": {"step": "standardise", "axes": [0, 0]},
}


@pytest.mark.parametrize("kind", sorted(REFUSED))
def test_impossible_steps_are_refused_when_they_are_read(kind: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(REFUSED[kind], Step)


def test_steps_are_the_same_after_a_manifest_was_written_and_read() -> None:
    bind = InputBinding("x", "FP32", (-1, 98, 40), (*LOG_MEL, Standardise((0,))))

    again = msgspec.json.decode(msgspec.json.encode(bind), type=InputBinding)

    assert again == bind


def test_powers_of_two_for_frames() -> None:
    assert [next_fft_length(n) for n in (1, 2, 3, 400, 512, 513)] == [2, 2, 4, 512, 512, 1024]
