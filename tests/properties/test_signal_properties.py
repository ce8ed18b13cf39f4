"""What holds of frames, spectra and the rest, whatever the signal."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.binding import Step
from runtime.binding_signals import Frames, Log, Mel, Spectrum, Standardise, Windowed
from runtime.core.fourier import real_fourier
from runtime.core.preprocessing import prepare, shape_after

Doubles = npt.NDArray[np.float64]
LENGTHS = st.sampled_from([2, 4, 6, 8, 10, 12, 14, 16, 28, 36, 50, 64, 98, 100, 128, 210])


def _rows(length: int, seed: int, num: int = 2) -> Doubles:
    return np.random.default_rng(seed).normal(size=(num, length))


@given(LENGTHS, st.integers(0, 1000))
def test_energy_is_the_same_in_time_and_in_frequency(length: int, seed: int) -> None:
    """Parseval's theorem; what lies between both ends of half a spectrum counts twice."""
    rows = _rows(length, seed)

    real, imag = real_fourier(rows)

    power = real**2 + imag**2
    power[:, 1:-1] *= 2
    np.testing.assert_allclose(power.sum(axis=1) / length, (rows**2).sum(axis=1), rtol=1e-12)


@given(LENGTHS, st.integers(0, 1000), st.floats(-100, 100), st.floats(-100, 100))
def test_the_transform_of_a_sum_is_the_sum_of_transforms(
    length: int, seed: int, one: float, other: float
) -> None:
    left, right = _rows(length, seed), _rows(length, seed + 1)

    found = real_fourier(one * left + other * right)

    expected = [
        one * a + other * b for a, b in zip(real_fourier(left), real_fourier(right), strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-9)


@given(LENGTHS, st.integers(0, 1000), st.integers(0, 300))
def test_a_shift_around_the_end_changes_no_power(length: int, seed: int, by: int) -> None:
    rows = _rows(length, seed).astype(np.float32)

    powers = [
        prepare(one, (Spectrum(length),), "FP32") for one in (rows, np.roll(rows, by, axis=1))
    ]

    np.testing.assert_allclose(powers[0], powers[1], rtol=1e-3, atol=1e-4)


def _steps() -> st.SearchStrategy[Step]:
    axes = st.integers(-3, 2)
    return st.one_of(
        st.builds(
            Frames, st.integers(1, 12), st.integers(1, 12), axes, st.sampled_from(["cut", "pad"])
        ),
        st.builds(
            Windowed, st.sampled_from(["hann", "hamming", "rectangular"]), st.booleans(), axes
        ),
        st.builds(
            Spectrum, st.sampled_from([4, 12, 32]), st.sampled_from(["power", "magnitude"]), axes
        ),
        st.builds(Mel, st.integers(1, 6), st.just(100.0), axis=axes),
        st.builds(Log, st.sampled_from(["natural", "decibel"])),
        st.builds(Standardise, st.lists(axes, max_size=2, unique=True).map(tuple)),
    )


SHAPES = st.sampled_from([(30,), (24, 3), (2, 17), (1,), (5, 4, 3)])


@given(SHAPES, st.lists(_steps(), max_size=4), st.integers(0, 100), st.floats(1e-30, 1e38))
def test_shapes_are_foretold_and_finite_inputs_have_finite_features(
    shape: tuple[int, ...], steps: list[Step], seed: int, size: float
) -> None:
    random = np.random.default_rng(seed)
    array = (random.uniform(-1, 1, (3, *shape)) * size).astype(np.float32)
    try:
        expected = shape_after(shape, steps)
    except ValueError:
        with pytest.raises(ValueError):  # noqa: PT011 - any of them
            prepare(array, steps, "FP32")
        return

    found = prepare(array, steps, "FP32")

    assert found.shape == (3, *expected)
    assert np.isfinite(found).all()
    # A row of a batch has the bits that it has alone.
    np.testing.assert_array_equal(found[1:2], prepare(array[1:2], steps, "FP32"))


@given(st.integers(1, 200), st.integers(1, 40), st.integers(1, 40))
def test_padded_frames_lose_no_sample_that_frames_look_at(
    length: int, frame: int, hop: int
) -> None:
    series = np.arange(1, length + 1, dtype=np.float32)[None]

    found = prepare(series, (Frames(frame, hop, tail="pad"),), "FP32")

    seen = set(found[found > 0].tolist())
    assert seen == {float(n + 1) for n in range(length) if n % hop < frame}
