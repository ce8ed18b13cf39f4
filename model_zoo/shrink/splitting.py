"""Cuts a model in two: a head for the device, with an early exit, and a tail for a tier above.

    head: inputs -> `logits`, `embedding`        tail: `embedding` -> the scores of the whole model

A cut is a tensor through which everything flows. The exit is a softmax regression on the embedding
(averaged over its picture, where it is one), fitted on labelled examples; it is what lets the
device answer alone. Head and tail together give what the whole gave; where the embedding is of half
precision, as nearly as that goes.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference, utils

from model_zoo.calibrate import Labels
from model_zoo.onnx_files import serialize
from model_zoo.policies.collect import Examples
from model_zoo.shrink.subject import labels_of
from runtime.adapters.onnx_backend import OnnxBackend
from runtime.errors import StartError

EMBEDDING, LOGITS = "embedding", "logits"
# An exit for the device costs something: the embedding of the first few layers knows little.
_MIN_DEPTH = 0.25
# A head that does all of the work is no head.
_MAX_DEPTH = 0.8
_STEPS, _RATE, _DECAY = 400, 0.05, 1e-3
_PICTURE = 4
_BATCH = 64
_LESSONS = 0.7
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU")
Float64s = npt.NDArray[np.float64]


class Cut(msgspec.Struct, frozen=True):
    """A place to cut: ``depth`` is the share of layers before it, ``num_values`` what goes on."""

    tensor: str
    depth: float
    num_values: int


@dataclass(frozen=True, slots=True)
class Split:
    """The two files, where they were cut, and the accuracy of the exit on its own examples."""

    head: bytes
    tail: bytes
    cut: Cut
    embedding_shape: tuple[int, ...]
    datatype: str = "FP32"


def cuts_of(contents: bytes) -> list[Cut]:
    """All places through which everything flows, from the inputs on.

    Raises:
        StartError: there is none.
    """
    model = shape_inference.infer_shapes(onnx.load_from_string(contents))
    graph = model.graph
    shapes = {value.name: _shape(value) for value in graph.value_info}
    constants = {one.name for one in graph.initializer}
    nodes = list(graph.node)
    last_use: dict[str, int] = {}
    for place, node in enumerate(nodes):
        for name in node.input:
            last_use[name] = place
    for one in graph.output:
        last_use[one.name] = len(nodes)
    # What is derived of constants alone is no flow.
    flows = {one.name for one in graph.input} - constants
    found, alive = [], set(flows)
    has_weights = [node.op_type in _LAYERS for node in nodes]
    for place, node in enumerate(nodes):
        if flows.intersection(node.input):
            flows.update(node.output)
            alive.update(name for name in node.output if name in last_use)
        alive = {name for name in alive if last_use.get(name, -1) > place}
        if len(alive) != 1 or place + 1 == len(nodes):
            continue
        (tensor,) = alive
        shape = shapes.get(tensor, ())
        if len(shape) > 1 and all(size > 0 for size in shape[1:]):
            depth = sum(has_weights[: place + 1]) / max(1, sum(has_weights))
            found.append(Cut(tensor, depth, int(np.prod(shape[1:]))))
    # A tensor stays the only one over nodes that use constants alone.
    first = {one.tensor: one for one in reversed(found)}
    if not first:
        raise StartError("there is no place to cut: no inner tensor that everything flows through")
    return sorted(first.values(), key=lambda one: one.depth)


def choose_cut(cuts: list[Cut]) -> Cut:
    """The one that passes on least, of those that share the work; of equal ones the first."""
    deep = [one for one in cuts if _MIN_DEPTH <= one.depth <= _MAX_DEPTH] or cuts
    return min(deep, key=lambda one: (one.num_values, one.depth))


def split(
    contents: bytes, cut: Cut, examples: Examples, num_classes: int, *, is_half: bool = False
) -> Split:
    """Both files, with an exit fitted on the examples; ``is_half`` passes FP16 on.

    Raises:
        StartError: the model cannot be cut there.
    """
    model = onnx.load_from_string(contents)
    graph = model.graph
    constants = {one.name for one in graph.initializer}
    inputs = [one.name for one in graph.input if one.name not in constants]
    with tempfile.TemporaryDirectory() as scratch:
        whole, part = Path(scratch) / "whole.onnx", Path(scratch) / "part.onnx"
        onnx.save(shape_inference.infer_shapes(model), whole)
        parts = []
        for begins, ends in ((inputs, [cut.tensor]), ([cut.tensor], [graph.output[0].name])):
            try:
                utils.extract_model(str(whole), str(part), begins, ends)
            except (ValueError, onnx.checker.ValidationError) as error:
                raise StartError(f"it cannot be cut at {cut.tensor}: {error}") from error
            parts.append(onnx.load(part))
    head, tail = parts
    _rename(head, cut.tensor, EMBEDDING)
    _rename(tail, cut.tensor, EMBEDDING)
    embeddings = _run(serialize(head), examples)
    weights, bias = fit_exit(_pooled(embeddings), labels_of(examples), num_classes)
    _add_exit(head, weights, bias, is_picture=embeddings.ndim == _PICTURE)
    if is_half:
        _halve(head, tail)
    for one in (head, tail):
        onnx.checker.check_model(one)
    datatype = "FP16" if is_half else "FP32"
    return Split(serialize(head), serialize(tail), cut, embeddings.shape[1:], datatype)


def _halve(head: onnx.ModelProto, tail: onnx.ModelProto) -> None:
    """Makes half precision of the embedding at the end of the head, and floats of it again."""
    full = "embedding_float"
    for model, edges in ((head, head.graph.output), (tail, tail.graph.input)):
        _rename(model, EMBEDDING, full)
        (edge,) = (one for one in edges if one.name == full)
        edge.name = EMBEDDING
        edge.type.tensor_type.elem_type = TensorProto.FLOAT16
    head.graph.node.append(helper.make_node("Cast", [full], [EMBEDDING], to=TensorProto.FLOAT16))
    first = helper.make_node("Cast", [EMBEDDING], [full], to=TensorProto.FLOAT)
    tail.graph.node.insert(0, first)


def lessons_of(choice: Examples) -> tuple[Examples, Examples]:
    """What the exit learns from, and what its temperature is fitted on.

    On what it has learned from, it is surer than it has reason to be.
    """
    num = int(_LESSONS * len(choice.labels))
    return choice.part(0, num), choice.part(num, None)


def fit_exit(features: Float64s, labels: Labels, num_classes: int) -> tuple[Float64s, Float64s]:
    """Softmax regression with weight decay, by Adam on all examples; ``(f, classes)`` and bias."""
    mean, spread = features.mean(axis=0), features.std(axis=0) + 1e-6
    scaled = np.hstack([(features - mean) / spread, np.ones((len(features), 1))])
    wanted = np.eye(num_classes)[labels]
    weights = np.zeros((scaled.shape[1], num_classes))
    first, second = np.zeros_like(weights), np.zeros_like(weights)
    for step in range(1, _STEPS + 1):
        scores = scaled @ weights
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares = powers / powers.sum(axis=1, keepdims=True)
        slope = scaled.T @ (shares - wanted) / len(labels) + _DECAY * weights
        first = 0.9 * first + 0.1 * slope
        second = 0.999 * second + 0.001 * slope**2
        weights -= _RATE * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    # Back to features as they are.
    slopes = weights[:-1] / spread[:, None]
    return slopes, weights[-1] - mean @ slopes


def _add_exit(
    head: onnx.ModelProto, weights: Float64s, bias: Float64s, *, is_picture: bool
) -> None:
    graph = head.graph
    pooled = EMBEDDING
    if is_picture:
        graph.node.append(helper.make_node("GlobalAveragePool", [pooled], ["exit_pooled"]))
        pooled = "exit_pooled"
    graph.node.append(helper.make_node("Flatten", [pooled], ["exit_features"], axis=1))
    for name, values in (("exit_weights", weights), ("exit_bias", bias)):
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    names = ["exit_features", "exit_weights", "exit_bias"]
    graph.node.append(helper.make_node("Gemm", names, [LOGITS]))
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_param or None
    shape: list[Any] = [batch, weights.shape[1]]
    scores = helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, shape)
    others = list(graph.output)
    del graph.output[:]
    graph.output.extend([scores, *others])


def _rename(model: onnx.ModelProto, old: str, new: str) -> None:
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        if value.name == old:
            value.name = new


def _run(contents: bytes, examples: Examples) -> Float64s:
    backend = OnnxBackend.load(contents, source="head")
    parts = [
        backend.run(dict(examples.part(start, start + _BATCH).inputs))[EMBEDDING]
        for start in range(0, len(examples.labels), _BATCH)
    ]
    backend.close()
    return np.concatenate(parts).astype(np.float64)


def _pooled(embeddings: Float64s) -> Float64s:
    if embeddings.ndim == _PICTURE:
        embeddings = np.asarray(embeddings.mean(axis=(2, 3)), np.float64)
    return embeddings.reshape(len(embeddings), -1)


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(
        one.dim_value if one.HasField("dim_value") else -1
        for one in value.type.tensor_type.shape.dim
    )
