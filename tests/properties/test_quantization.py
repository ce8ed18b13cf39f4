"""Floats and the integers that stand for them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.core.quantization import MAX_HALF, dequantize, quantize, to_half
from runtime.errors import InvalidTensorError
from runtime.manifest import INTEGERS, Quantization, QuantizedType
from runtime.tensors import datatype_of

TYPES: list[QuantizedType] = ["INT8", "UINT8", "INT16"]


@st.composite
def quantizations(draw: st.DrawFn) -> Quantization:
    datatype = draw(st.sampled_from(TYPES))
    low, high = INTEGERS[datatype]
    return Quantization(
        datatype, draw(st.floats(1e-6, 1e6)), draw(st.integers(low, high) | st.just(low))
    )


@given(quantizations(), st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_inside_the_range_a_value_comes_back_within_half_a_step(
    quantization: Quantization, shares: list[float]
) -> None:
    low, high = INTEGERS[quantization.datatype]
    first = (low - quantization.zero_point) * quantization.scale
    last = (high - quantization.zero_point) * quantization.scale
    values = (first + np.array(shares) * (last - first)).astype(np.float32)

    integers = quantize(values, quantization)
    back = dequantize(integers, quantization)

    assert datatype_of(integers) == quantization.datatype
    # The last digits of float32 beside the half step; 16 bits leave it fewer of them.
    rounding = 2**-22 * max(abs(first), abs(last))
    error = np.abs(back.astype(np.float64) - values)
    assert (error <= quantization.scale / 2 + rounding).all()


@given(quantizations())
def test_every_integer_comes_back_as_itself(quantization: Quantization) -> None:
    low, high = INTEGERS[quantization.datatype]
    integers = np.arange(low, high + 1)

    reals = dequantize(integers, quantization, "FP64")

    np.testing.assert_array_equal(quantize(reals, quantization), integers)


@given(quantizations(), st.floats(1, 1e30) | st.just(float("inf")))
def test_beyond_the_range_is_the_last_integer(quantization: Quantization, excess: float) -> None:
    low, high = INTEGERS[quantization.datatype]
    most = (high - low) * quantization.scale + excess
    values = np.array([-most, most], np.float64)

    np.testing.assert_array_equal(quantize(values, quantization), [low, high])


@pytest.mark.parametrize("datatype", TYPES)
def test_a_half_goes_to_the_even_neighbour(datatype: QuantizedType) -> None:
    quantization = Quantization(datatype, 0.5, 10)
    values = np.array([0.25, 0.75, 1.25, 1.75, -0.25, -0.75], np.float32)

    np.testing.assert_array_equal(quantize(values, quantization), [10, 12, 12, 14, 10, 8])


@pytest.mark.parametrize("datatype", TYPES)
def test_nan_is_refused(datatype: QuantizedType) -> None:
    with pytest.raises(InvalidTensorError, match="NaN"):
        quantize(np.array([0, np.nan], np.float32), Quantization(datatype, 1.0))


def test_input_arrays_stay_as_they_are() -> None:
    values = np.array([1.3, 2.4], np.float32)
    integers = np.array([1, 2], np.int8)

    quantize(values, Quantization("INT8", 1.0, 5))
    dequantize(integers, Quantization("INT8", 1.0, 5))

    np.testing.assert_array_equal(values, np.array([1.3, 2.4], np.float32))
    np.testing.assert_array_equal(integers, [1, 2])


@pytest.mark.parametrize("shape", [(), (0,), (2, 3), (1, 2, 0)])
def test_shapes_stay(shape: tuple[int, ...]) -> None:
    values = np.zeros(shape, np.float32)
    quantization = Quantization("UINT8", 0.1, 3)

    assert quantize(values, quantization).shape == shape
    assert dequantize(quantize(values, quantization), quantization).shape == shape


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
def test_floats_come_in_the_type_that_is_asked_for(datatype: str) -> None:
    reals = dequantize(np.array([3], np.int8), Quantization("INT8", 0.25, 1), datatype)

    assert datatype_of(reals) == datatype
    np.testing.assert_array_equal(reals, [0.5])


@given(st.lists(st.floats(width=32), max_size=20))
def test_halves_never_become_infinite(values: list[float]) -> None:
    array = np.array(values, np.float32)

    halves = to_half(array)

    assert halves.dtype == np.float16
    np.testing.assert_array_equal(np.isnan(halves), np.isnan(array))
    assert (np.abs(halves[~np.isnan(halves)].astype(np.float64)) <= MAX_HALF).all()
