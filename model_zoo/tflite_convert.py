"""An int8 ONNX file of this package as a TensorFlow Lite file: the same integers.

Rules of this file:
  * weights, scales and zero points are taken over as they are, so that both files answer alike and
    a threshold that was found with one holds for the other. A converter that quantizes anew, from
    float32, gives another label to nearly one picture in a hundred;
  * what it does not know it refuses: it is a converter of the networks of this package, and no
    other. The order of axes is the engine's (channels last), the padding ONNX's, made explicit.

Quantization is that of ONNX's QDQ format: integers between QuantizeLinear and DequantizeLinear.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from ai_edge_litert import schema_py_generated as schema
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from model_zoo.tflite_writer import TfliteFile
from runtime.errors import ArtifactError
from runtime.manifest import Quantization

Array = npt.NDArray[Any]
# ONNX's activations are unsigned here, TensorFlow Lite's signed.
_OFFSET = 128
_BIAS_STEPS = 1


@dataclass(frozen=True, slots=True)
class _Value:
    """A tensor of the new file, channels last; ``shape`` as it is there."""

    index: int
    shape: tuple[int, ...]
    quantization: Quantization | None = None


class Converter:
    """Follows the graph of one file from its input to its output."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self._graph = graph
        self._constants: dict[str, Array] = {
            one.name: numpy_helper.to_array(one) for one in graph.initializer
        }
        self._file = TfliteFile(graph.name or "graph")
        self._values: dict[str, _Value] = {}
        self._uses: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._uses.setdefault(name, []).append(node)
        # The output of a dequantization of weights -> integers, scales, zero points.
        self._weights: dict[str, tuple[Array, Array, Array]] = {}

    def convert(self) -> bytes:
        """The TensorFlow Lite file.

        Raises:
            ArtifactError: the graph has something that this converter does not know.
        """
        (source,), (target,) = self._graph.input, self._graph.output
        sizes = tuple(
            one.dim_value if one.HasField("dim_value") else -1
            for one in source.type.tensor_type.shape.dim
        )
        first = _Value(self._file.tensor(source.name, sizes), sizes)
        self._values[source.name] = first
        for node in self._graph.node:
            make = getattr(self, f"_make_{node.op_type.lower()}", None)
            if make is None:
                raise ArtifactError(f"{node.op_type} is no operator that can be converted")
            make(node)
        last = self._values[target.name]
        return self._file.finish({source.name: first.index}, {target.name: last.index})

    def _make_sub(self, node: onnx.NodeProto) -> None:
        self._elementwise(node, "SUB", schema.SubOptionsT())

    def _make_mul(self, node: onnx.NodeProto) -> None:
        self._elementwise(node, "MUL", schema.MulOptionsT())

    def _elementwise(self, node: onnx.NodeProto, kind: str, options: object) -> None:
        value = self._values[node.input[0]]
        number = self._file.constant(node.input[1], self._constants[node.input[1]].reshape(()))
        self._put(node, kind, [value.index, number], value.shape, options=options)

    def _make_unsqueeze(self, node: onnx.NodeProto) -> None:
        """The axis of the one channel, which is the second there and the last here."""
        value = self._values[node.input[0]]
        if self._constants[node.input[1]].tolist() != [1]:
            raise ArtifactError("Unsqueeze of another axis than that of the channel")
        self._reshape(node, value, (*value.shape, 1))

    def _make_reshape(self, node: onnx.NodeProto) -> None:
        value = self._values[node.input[0]]
        self._reshape(node, value, (-1, value.shape[-1]))

    def _reshape(self, node: onnx.NodeProto, value: _Value, shape: tuple[int, ...]) -> None:
        sizes = self._file.constant(f"{node.output[0]}_shape", np.array(shape, np.int32))
        options = schema.ReshapeOptionsT()
        options.newShape = list(shape)
        self._put(node, "RESHAPE", [value.index, sizes], shape, value.quantization, options=options)

    def _make_quantizelinear(self, node: onnx.NodeProto) -> None:
        """A step of its own only for what comes as floats: operators quantize what they give."""
        value = self._values[node.input[0]]
        quantization = self._quantization(node)
        if value.quantization == quantization:
            self._values[node.output[0]] = value
            return
        self._put(
            node,
            "QUANTIZE",
            [value.index],
            value.shape,
            quantization,
            options=schema.QuantizeOptionsT(),
            version=1 if value.quantization is None else 2,
        )

    def _make_dequantizelinear(self, node: onnx.NodeProto) -> None:
        """Integers stay integers until an operator wants floats."""
        if node.input[0] in self._constants:
            integers, scales, zero_points = (self._constants[name] for name in node.input)
            self._weights[node.output[0]] = (integers, scales, zero_points)
        else:
            self._values[node.output[0]] = self._values[node.input[0]]

    def _make_conv(self, node: onnx.NodeProto) -> None:
        attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
        value = self._values[node.input[0]]
        weights, scales, zero_points = self._weights[node.input[1]]
        if (
            value.quantization is None
            or attributes.get("group", 1) != 1
            or set(attributes.get("dilations", [1])) != {1}
            or len(set(attributes["strides"])) != 1
            or zero_points.any()
        ):
            raise ArtifactError("a convolution of a kind that cannot be converted")
        stride = attributes["strides"][0]
        padded = self._padded(node, value, attributes["pads"])
        filters = self._file.constant(
            node.input[1], np.ascontiguousarray(weights.transpose(0, 2, 3, 1)), scales.tolist()
        )
        steps = value.quantization.scale * scales.astype(np.float64)
        bias = self._bias(node.input[2], steps)
        sizes = [(size - weights.shape[2]) // stride + 1 for size in padded.shape[1:3]]
        options = schema.Conv2DOptionsT()
        options.padding = schema.Padding.VALID
        options.strideH = options.strideW = stride
        self._put(
            node,
            "CONV_2D",
            [padded.index, filters, bias],
            (-1, *sizes, weights.shape[0]),
            self._asked_for(node),
            options=options,
            version=3,
        )

    def _padded(self, node: onnx.NodeProto, value: _Value, pads: list[int]) -> _Value:
        """Zeros around it; an engine's own padding lies on other sides where a stride is 2."""
        top, left, bottom, right = pads
        if not any(pads):
            return value
        amounts = np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
        count, height, width, channels = value.shape
        shape = (count, height + top + bottom, width + left + right, channels)
        name = f"{node.output[0]}_padded"
        index = self._file.tensor(name, shape, "int8", value.quantization)
        inputs = [value.index, self._file.constant(f"{name}_by", amounts)]
        self._file.operator("PAD", inputs, index, schema.PadOptionsT(), version=2)
        return _Value(index, shape, value.quantization)

    def _bias(self, name: str, steps: Array) -> int:
        """In steps of the sums, which an engine expects; ONNX's are those, but for rounding."""
        integers, scales, _ = self._weights[name]
        exact = integers * scales.astype(np.float64) / steps
        rounded = np.rint(exact)
        if np.abs(rounded - integers).max() > _BIAS_STEPS + np.abs(integers).max() * 1e-5:
            raise ArtifactError(f"{name} is not in steps of its input and weights")
        return self._file.constant(name, rounded.astype(np.int32), steps.tolist())

    def _make_relu(self, node: onnx.NodeProto) -> None:
        value = self._values[node.input[0]]
        # Without another scale it leaves out negative steps and keeps the others: it is exact.
        following = {one.op_type for one in self._uses.get(node.output[0], [])}
        quantization = (
            self._asked_for(node) if following == {"QuantizeLinear"} else value.quantization
        )
        self._put(node, "RELU", [value.index], value.shape, quantization, version=2)

    def _make_reducemean(self, node: onnx.NodeProto) -> None:
        """Over height and width; the result is float there, and int8 as soon as it is used."""
        value = self._values[node.input[0]]
        axes = self._constants[node.input[1]].tolist()
        if sorted(axis % 4 for axis in axes) != [2, 3] or value.quantization is None:
            raise ArtifactError("a mean over other axes than height and width")
        reals = self._floats(node.input[0], value)
        over = self._file.constant(f"{node.output[0]}_axes", np.array([1, 2], np.int32))
        self._put(
            node,
            "MEAN",
            [reals.index, over],
            (-1, value.shape[-1]),
            options=schema.ReducerOptionsT(),
        )

    def _make_gemm(self, node: onnx.NodeProto) -> None:
        """In floats, as its result is not quantized: weights are few, and scores stay exact."""
        attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
        if attributes.get("alpha", 1) != 1 or attributes.get("beta", 1) != 1:
            raise ArtifactError("a scaled Gemm")
        weights, bias = (self._real_weights(name) for name in node.input[1:])
        if not attributes.get("transB"):
            weights = weights.T
        value = self._floats(node.input[0], self._values[node.input[0]])
        inputs = [
            value.index,
            self._file.constant(f"{node.output[0]}_weights", np.ascontiguousarray(weights)),
            self._file.constant(f"{node.output[0]}_bias", bias),
        ]
        self._put(
            node,
            "FULLY_CONNECTED",
            inputs,
            (-1, len(bias)),
            options=schema.FullyConnectedOptionsT(),
        )

    def _real_weights(self, name: str) -> Array:
        integers, scales, zero_points = self._weights[name]
        sides = (-1, *[1] * (integers.ndim - 1))
        whole = integers.astype(np.float64) - zero_points.astype(np.float64).reshape(sides)
        return (whole * scales.astype(np.float64).reshape(sides)).astype(np.float32)

    def _floats(self, name: str, value: _Value) -> _Value:
        if value.quantization is None:
            return value
        index = self._file.tensor(f"{name}_real", value.shape)
        self._file.operator(
            "DEQUANTIZE", [value.index], index, schema.DequantizeOptionsT(), version=2
        )
        return _Value(index, value.shape)

    def _asked_for(self, node: onnx.NodeProto) -> Quantization:
        """How what an operator gives is quantized: by the one that follows it."""
        following = self._uses.get(node.output[0], [])
        if [one.op_type for one in following] != ["QuantizeLinear"]:
            raise ArtifactError(f"what {node.op_type} gives is not quantized")
        return self._quantization(following[0])

    def _quantization(self, node: onnx.NodeProto) -> Quantization:
        scale, zero_point = (self._constants[name] for name in node.input[1:])
        if scale.size != 1 or zero_point.dtype != np.uint8:
            raise ArtifactError("activations that are not uint8 with one scale")
        return Quantization("INT8", float(scale), int(zero_point) - _OFFSET)

    def _put(
        self,
        node: onnx.NodeProto,
        kind: str,
        inputs: list[int],
        shape: tuple[int, ...],
        quantization: Quantization | None = None,
        *,
        options: object = None,
        version: int = 1,
    ) -> None:
        name = node.output[0]
        dtype = "float32" if quantization is None else "int8"
        index = self._file.tensor(name, shape, dtype, quantization)
        self._file.operator(kind, inputs, index, options, version=version)
        self._values[name] = _Value(index, shape, quantization)


def convert(contents: bytes) -> bytes:
    """The TensorFlow Lite file of an int8 ONNX file of this package.

    Raises:
        ArtifactError: it is none, or has something that this converter does not know.
    """
    try:
        model = onnx.load_model_from_string(contents)
    except DecodeError as error:
        raise ArtifactError(f"this is no ONNX file: {error}") from error
    if len(model.graph.input) != 1 or len(model.graph.output) != 1:
        raise ArtifactError("this is no ONNX file of one input and one output")
    return Converter(model).convert()
