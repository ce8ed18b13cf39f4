"""Makes ONNX files small: no names for people, no documentation, weights in half precision.

Needs the ``onnx`` package (extra ``zoo`` or ``test``), not PyTorch.
"""

from __future__ import annotations

import itertools

import numpy as np
import onnx
from onnx import helper, numpy_helper

INPUT_NAME = "image"
OUTPUT_NAME = "logits"
# Smaller arrays stay as they are: a Cast node would take more room than it saves.
MIN_HALVED_VALUES = 256


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


def halve_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose large float32 weights are stored as float16 and cast back when used.

    ONNX Runtime folds the casts at load, so that inference is the same float32 as before; only the
    rounding of the stored weights remains (relative error at most 2^-11).
    """
    small = onnx.ModelProto()
    small.CopyFrom(model)
    casts = []
    for array in small.graph.initializer:
        values = numpy_helper.to_array(array)
        if values.dtype != np.float32 or values.size < MIN_HALVED_VALUES:
            continue
        name = array.name
        array.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *small.graph.node]
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
