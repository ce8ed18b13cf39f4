"""Floats to a file's integers and back: the one place of it, for every backend.

Affine quantization as TensorFlow Lite and ONNX define it:
``real = scale * (integer - zero_point)``.

Rules of this file:
  * a half rounds to the even neighbour, as engines do themselves;
  * what lies beyond the integers, infinity too, becomes the last of them: it never wraps around;
  * NaN is refused: no integer stands for it, and a made-up one could end in a confident answer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.errors import InvalidTensorError
from runtime.manifest import INTEGERS, Quantization
from runtime.tensors import dtype_of

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[Any]
# What float16 holds at most.
MAX_HALF = 65504.0


def quantize(values: Floats, quantization: Quantization) -> Array:
    """The integers that stand for ``values``; a new array of the same shape.

    Raises:
        InvalidTensorError: a value is NaN.
    """
    # float32 holds the 8-bit integers with room to spare, but not the halves of 16-bit ones.
    work = np.float64 if quantization.datatype == "INT16" else np.float32
    low, high = INTEGERS[quantization.datatype]
    scaled: Floats = np.array(values, work)
    with np.errstate(over="ignore", under="ignore"):
        scaled /= quantization.scale
    if np.isnan(scaled).any():
        raise InvalidTensorError("a value is NaN, which no integer of a quantized model stands for")
    np.rint(scaled, out=scaled)
    scaled += quantization.zero_point
    np.clip(scaled, low, high, out=scaled)
    integers: Array = scaled.astype(dtype_of(quantization.datatype))
    return integers


def dequantize(integers: Array, quantization: Quantization, datatype: str = "FP32") -> Array:
    """The floats that ``integers`` stand for; a new array of the same shape and of ``datatype``."""
    work = np.float64 if quantization.datatype == "INT16" or datatype == "FP64" else np.float32
    reals: Floats = integers.astype(work)
    reals -= quantization.zero_point
    with np.errstate(over="ignore", under="ignore"):
        reals *= quantization.scale
        floats: Array = reals.astype(dtype_of(datatype), copy=False)
    return floats


def to_half(values: Floats) -> Array:
    """The nearest float16; what is beyond its range becomes its last number, NaN stays NaN."""
    with np.errstate(under="ignore"):
        halves: Array = np.clip(values, -MAX_HALF, MAX_HALF).astype(np.float16)
    return halves
