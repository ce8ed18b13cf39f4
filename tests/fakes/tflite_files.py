"""Tiny TensorFlow Lite models: the linear one of ``fakes.models``, with float and integer edges."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from fakes.models import WEIGHTS
from model_zoo.tflite_writer import TfliteFile
from runtime.manifest import Quantization

Weights = npt.NDArray[np.float32]
STEPS = Quantization("INT8", 0.25, -3)
COARSE = Quantization("INT8", 0.5, 10)


def linear_tflite(
    weights: Weights = WEIGHTS,
    *,
    batch: int = -1,
    names: tuple[str, str] = ("x", "logits"),
    dtype: str = "float32",
) -> bytes:
    """``logits = x @ weights`` of FP32; ``batch`` 1 is one that engines may resize."""
    file = TfliteFile("linear")
    num_features, num_labels = weights.shape
    x = file.tensor("serving_default_x:0", (batch, num_features), dtype)
    y = file.tensor("StatefulPartitionedCall:0", (batch, num_labels))
    _dense(file, x, y, weights)
    return file.finish({names[0]: x}, {names[1]: y})


def quantized_tflite(
    inputs: Quantization | None = STEPS,
    outputs: Quantization | None = COARSE,
    weights: Weights = WEIGHTS,
) -> bytes:
    """The same of floats inside, with integers of these steps at its edges."""
    file = TfliteFile("quantized")
    num_features, num_labels = weights.shape
    real_x = x = file.tensor("x", (-1, num_features), _dtype(inputs), inputs)
    if inputs is not None:
        real_x = file.tensor("real_x", (-1, num_features))
        file.operator("DEQUANTIZE", [x], real_x, schema.DequantizeOptionsT(), version=2)
    y = real_y = file.tensor("real_y", (-1, num_labels))
    _dense(file, real_x, real_y, weights)
    if outputs is not None:
        y = file.tensor("y", (-1, num_labels), _dtype(outputs), outputs)
        file.operator("QUANTIZE", [real_y], y, schema.QuantizeOptionsT())
    return file.finish({"x": x}, {"logits": y})


def fixed_tflite(weights: Weights = WEIGHTS) -> bytes:
    """The linear model with a reshape to a batch of one in it: it takes no other."""
    file = TfliteFile("fixed")
    num_features, num_labels = weights.shape
    x = file.tensor("x", (1, num_features))
    sizes = file.constant("sizes", np.array([1, num_features], np.int32))
    flat = file.tensor("flat", (1, num_features))
    options = schema.ReshapeOptionsT()
    options.newShape = [1, num_features]
    file.operator("RESHAPE", [x, sizes], flat, options)
    y = file.tensor("logits", (1, num_labels))
    _dense(file, flat, y, weights)
    return file.finish({"x": x}, {"logits": y})


def mixing_tflite(num_labels: int = 2) -> bytes:
    """Gives every row the mean of all rows: for a batch it is not what it is for each alone."""
    file = TfliteFile("mixing")
    x = file.tensor("x", (1, num_labels))
    mean = file.tensor("mean", (1, num_labels))
    options = schema.ReducerOptionsT()
    options.keepDims = True
    axes = file.constant("axes", np.array([0], np.int32))
    file.operator("MEAN", [x, axes], mean, options)
    y = file.tensor("logits", (1, num_labels))
    file.operator("ADD", [mean, x], y, schema.AddOptionsT())
    return file.finish({"x": x}, {"logits": y})


def per_axis_tflite() -> bytes:
    """An input with a scale for each column."""
    file = TfliteFile("per axis")
    x = file.constant("x", np.zeros((1, 3), np.int8), [0.1, 0.2, 0.3], axis=1)
    file._tensors[x].buffer = 0
    real = file.tensor("logits", (1, 3))
    file.operator("DEQUANTIZE", [x], real, schema.DequantizeOptionsT(), version=2)
    return file.finish({"x": x}, {"logits": real})


def _dtype(quantization: Quantization | None) -> str:
    return "float32" if quantization is None else quantization.datatype.lower()


def _dense(file: TfliteFile, x: int, y: int, weights: Weights) -> None:
    inputs = [
        x,
        file.constant("w", np.ascontiguousarray(weights.T)),
        file.constant("b", np.zeros(weights.shape[1], np.float32)),
    ]
    file.operator("FULLY_CONNECTED", inputs, y, schema.FullyConnectedOptionsT())
