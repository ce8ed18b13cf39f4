"""Makes ONNX files small: no names for people, no documentation, weights in 8 bits.

Needs the ``onnx`` package (extra ``zoo`` or ``test``), not PyTorch.
"""

from __future__ import annotations

import itertools

import numpy as np
import onnx
from onnx import helper, numpy_helper

INPUT_NAME = "image"
OUTPUT_NAME = "logits"
# Smaller arrays stay as they are: the nodes that restore them would take more than is saved.
MIN_STORED_SMALL = 1024
INT8_MAX = 127
MATRIX = 2


def count_parameters(model: onnx.ModelProto) -> int:
    """Values in floating-point initializers: the learned parameters of an unquantized model."""
    return sum(
        int(np.prod(array.dims))
        for array in model.graph.initializer
        if array.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16) and array.dims
    )


def strip(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without documentation, metadata and shapes in between, with short inner names."""
    small = onnx.ModelProto()
    small.CopyFrom(model)
    small.doc_string = ""
    small.producer_name = small.producer_version = ""
    del small.metadata_props[:]
    del small.functions[:]
    graph = small.graph
    graph.name = "g"
    graph.doc_string = ""
    del graph.value_info[:]
    del graph.metadata_props[:]
    del graph.quantization_annotation[:]
    kept = {value.name for value in itertools.chain(graph.input, graph.output)}
    for value in itertools.chain(graph.input, graph.output):
        value.doc_string = ""
        del value.metadata_props[:]
    short: dict[str, str] = {name: name for name in kept} | {"": ""}
    for array in graph.initializer:
        array.doc_string = ""
        del array.metadata_props[:]
        array.name = _short(array.name, short)
    for node in graph.node:
        node.name = node.doc_string = ""
        del node.metadata_props[:]
        node.input[:] = [_short(name, short) for name in node.input]
        node.output[:] = [_short(name, short) for name in node.output]
    onnx.checker.check_model(small)
    return small


def quantize_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose large float32 weights are stored as int8, with a scale for each output channel.

    A cast and a multiplication give them back; ONNX Runtime folds both at load, so that inference
    is float32 as before and only the rounding of the stored weights remains: half a step, which is
    1/254 of the largest weight of the channel.
    """
    small = onnx.ModelProto()
    small.CopyFrom(model)
    initializers = list(small.graph.initializer)
    del small.graph.initializer[:]
    restoring = []
    for array in initializers:
        values = numpy_helper.to_array(array)
        if values.dtype != np.float32 or values.size < MIN_STORED_SMALL or values.ndim < MATRIX:
            small.graph.initializer.append(array)
            continue
        name = array.name
        largest = np.abs(values).max(axis=tuple(range(1, values.ndim)), keepdims=True)
        scale = (np.maximum(largest, np.finfo(np.float32).tiny) / INT8_MAX).astype(np.float32)
        stored = np.rint(values / scale).astype(np.int8)
        small.graph.initializer.append(numpy_helper.from_array(stored, f"{name}_int8"))
        small.graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
        restoring += [
            helper.make_node("Cast", [f"{name}_int8"], [f"{name}_cast"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Mul", [f"{name}_cast", f"{name}_scale"], [name]),
        ]
    nodes = [*restoring, *small.graph.node]
    del small.graph.node[:]
    small.graph.node.extend(nodes)
    return small


def serialize(model: onnx.ModelProto) -> bytes:
    """The contents of the file, the same bytes for the same model."""
    contents: bytes = model.SerializeToString(deterministic=True)
    return contents


def _short(name: str, known: dict[str, str]) -> str:
    if name not in known:
        known[name] = f"{len(known):x}"
    return known[name]
