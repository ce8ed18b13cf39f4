"""Writes small networks as ONNX files (extra ``zoo`` or ``test``: needs ``onnx``).

All that the layers do is in the file: standardizing, windows, the hashing of n-grams. A caller
sends what a sensor or a keyboard gives, and every tier computes the same from it. Operators of
opset 17, which every supported ONNX Runtime knows.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from model_zoo.onnx_files import INT8_MAX, OUTPUT_NAME, serialize, strip
from model_zoo.small_layers import (
    HASH_PRIME,
    Array,
    Conv1d,
    Dense,
    Dropout,
    Flatten,
    GlobalPool,
    Layer,
    NgramBag,
    Relu,
    Standardize,
)
from model_zoo.small_nets import SmallNet
from runtime.messages import TensorSpec

_OPSET, _IR_VERSION = 17, 9
_KINDS = {"FP32": onnx.TensorProto.FLOAT, "INT32": onnx.TensorProto.INT32}


class _Graph:
    """Nodes and constants as they come; ``value`` is the name of the latest output."""

    def __init__(self, first: str) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.value = first
        self.is_channels_first = False

    def constant(self, array: npt.NDArray[np.generic]) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def add(self, operator: str, *inputs: str, **attributes: int | list[int]) -> str:
        name = f"v{len(self.nodes)}"
        node = helper.make_node(operator, list(inputs), [name])
        node.attribute.extend(
            helper.make_attribute(key, value) for key, value in sorted(attributes.items())
        )
        self.nodes.append(node)
        self.value = name
        return name


def to_onnx(net: SmallNet, spec: TensorSpec, num_classes: int, *, is_small: bool = False) -> bytes:
    """The contents of an ONNX file that computes what ``net`` does, with the output ``logits``.

    ``is_small`` stores the tables of n-grams as int8, with a scale for each column; they stay so
    while the file runs. ``spec`` is the input, its first axis -1.

    Raises:
        ValueError: a layer that is none of ``model_zoo.small_layers``, or in a place where it
            cannot be written.
    """
    graph = _Graph(spec.name)
    for layer in net.layers:
        _write(graph, layer, is_small=is_small)
    graph.nodes[-1].output[0] = OUTPUT_NAME
    shape: list[str | int | None] = ["batch", *spec.shape[1:]]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "g",
            [helper.make_tensor_value_info(spec.name, _KINDS[spec.datatype], shape)],
            [
                helper.make_tensor_value_info(
                    OUTPUT_NAME, onnx.TensorProto.FLOAT, ["batch", num_classes]
                )
            ],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
    )
    onnx.checker.check_model(model, full_check=True)
    return serialize(strip(model))


def _write(graph: _Graph, layer: Layer, *, is_small: bool) -> None:
    match layer:
        case Standardize():
            shifted = graph.add("Sub", graph.value, graph.constant(layer.mean))
            graph.add("Mul", shifted, graph.constant(layer.inverse))
        case Flatten():
            graph.add("Flatten", graph.value, axis=1)
        case Relu():
            graph.add("Relu", graph.value)
        case Dropout():
            pass
        case Dense():
            weight, bias = graph.constant(layer.weight.value), graph.constant(layer.bias.value)
            graph.add("Gemm", graph.value, weight, bias)
        case Conv1d():
            _write_convolution(graph, layer)
        case GlobalPool():
            _write_pool(graph)
        case NgramBag():
            _write_bag(graph, layer, is_small=is_small)
        case _:
            raise ValueError(f"{type(layer).__name__} cannot be written as ONNX")


def _write_convolution(graph: _Graph, layer: Conv1d) -> None:
    if not graph.is_channels_first:
        graph.add("Transpose", graph.value, perm=[0, 2, 1])
        graph.is_channels_first = True
    weight = layer.weight.value.reshape(layer.width, layer.num_inputs, -1).transpose(2, 1, 0)
    graph.add(
        "Conv",
        graph.value,
        graph.constant(weight),
        graph.constant(layer.bias.value),
        strides=[layer.stride],
    )


def _write_pool(graph: _Graph) -> None:
    axis = 2 if graph.is_channels_first else 1
    series = graph.value
    mean = graph.add("ReduceMean", series, axes=[axis], keepdims=0)
    largest = graph.add("ReduceMax", series, axes=[axis], keepdims=0)
    graph.add("Concat", mean, largest, axis=1)
    graph.is_channels_first = False


def _write_bag(graph: _Graph, layer: NgramBag, *, is_small: bool) -> None:
    codes = graph.add("Cast", graph.value, to=onnx.TensorProto.INT64)
    rows, there = _write_rows(graph, layer, codes)
    table: npt.NDArray[np.generic] = layer.table.value
    scale: Array | None = None
    if is_small:
        table, scale = _as_int8(layer.table.value)
    # One more row of zeros, for what is no n-gram.
    table = np.concatenate([table, np.zeros((1, table.shape[1]), table.dtype)])
    nothing = graph.constant(np.asarray(len(table) - 1, np.int64))
    used = graph.add("Where", there, rows, nothing)
    found = graph.add("Gather", graph.constant(table), used, axis=0)
    if scale is not None:
        found = graph.add("Cast", found, to=onnx.TensorProto.FLOAT)
    axis = graph.constant(np.asarray([1], np.int64))
    total = graph.add("ReduceSum", found, axis, keepdims=0)
    if scale is not None:
        total = graph.add("Mul", total, graph.constant(scale))
    flags = graph.add("Cast", there, to=onnx.TensorProto.FLOAT)
    number = graph.add("ReduceSum", flags, axis, keepdims=1)
    least = graph.add("Max", number, graph.constant(np.asarray(1, np.float32)))
    mean = graph.add("Div", total, least)
    graph.add("Add", mean, graph.constant(layer.bias.value))


def _write_rows(graph: _Graph, layer: NgramBag, codes: str) -> tuple[str, str]:
    """What ``NgramBag.rows_of`` does: (n, n-grams) rows, and whether each is one."""
    zero = graph.constant(np.asarray(0, np.int64))
    axis = graph.constant(np.asarray([1], np.int64))
    far = graph.constant(np.asarray([np.iinfo(np.int64).max], np.int64))
    all_rows, all_there = [], []
    for part, (length, by) in enumerate(zip(layer.lengths, layer.multipliers, strict=True)):
        terms = []
        for at in range(length):
            start = graph.constant(np.asarray([at], np.int64))
            # A slice that ends before the end of the codes by what the n-gram still needs.
            rest = length - 1 - at
            end = graph.constant(np.asarray([-rest], np.int64)) if rest else far
            piece = graph.add("Slice", codes, start, end, axis)
            terms.append(graph.add("Mul", piece, graph.constant(np.asarray(by[at], np.int64))))
            final = piece
        total = terms[0]
        for term in terms[1:]:
            total = graph.add("Add", total, term)
        hashed = graph.add("Mod", total, graph.constant(np.asarray(HASH_PRIME, np.int64)))
        bucket = graph.add("Mod", hashed, graph.constant(np.asarray(layer.buckets, np.int64)))
        offset = graph.constant(np.asarray(part * layer.buckets, np.int64))
        all_rows.append(graph.add("Add", bucket, offset))
        all_there.append(graph.add("Greater", final, zero))
    return graph.add("Concat", *all_rows, axis=1), graph.add("Concat", *all_there, axis=1)


def _as_int8(table: Array) -> tuple[npt.NDArray[np.int8], Array]:
    largest = np.abs(table).max(axis=0)
    scale = (np.maximum(largest, np.finfo(np.float32).tiny) / INT8_MAX).astype(np.float32)
    return np.rint(table / scale).astype(np.int8), scale
