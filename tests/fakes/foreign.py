"""Small classifiers of other projects, in ONNX and TFLite: odd names, layouts and scores.

All know the same task: pictures of 8 x 8 in 0..255, dark but for one of three bright places. What
they are trained on is 0..1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema
from onnx import NodeProto, TensorProto, helper, numpy_helper

from model_zoo.tflite_writer import TfliteFile

SIDE = 8
CLASSES = ("left", "middle", "right")
OPSET, IR_VERSION = 18, 10
Floats = npt.NDArray[np.float32]
Array = npt.NDArray[Any]


def pictures(num: int = 900, seed: int = 1, noise: float = 70.0) -> tuple[Array, Array]:
    """(n, 8, 8) uint8 and (n,) labels."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, len(CLASSES), num)
    values = random.normal(60, noise, (num, SIDE, SIDE))
    for label, columns in enumerate((slice(0, 2), slice(3, 5), slice(6, 8))):
        rows = np.flatnonzero(labels == label)
        values[rows, 1:4, columns] += 70
    return np.clip(values, 0, 255).astype(np.uint8), labels.astype(np.int64)


@cache
def _trained(num: int) -> tuple[Floats, Floats]:
    """Softmax regression on flattened pictures in 0..1: (64, 3) weights and (3,) biases."""
    x, y = pictures(num, seed=7)
    x = x.reshape(len(x), -1).astype(np.float64) / 255
    weights, bias = np.zeros((x.shape[1], len(CLASSES))), np.zeros(len(CLASSES))
    wanted = np.eye(len(CLASSES))[y]
    for _ in range(300):
        scores = x @ weights + bias
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        error = (shares - wanted) / len(x)
        weights -= 3.0 * (x.T @ error + 1e-4 * weights)
        bias -= 3.0 * error.sum(axis=0)
    return weights.astype(np.float32), bias.astype(np.float32)


def weights_of(kind: str = "good") -> tuple[Array, Array]:
    """A well trained classifier, and one that has seen a few examples only."""
    return _trained(2000 if kind == "good" else 60)


def onnx_classifier(
    *,
    weights: tuple[Array, Array] | None = None,
    names: tuple[str, str] = ("Placeholder:0", "dense_2/Softmax:0"),
    shape: Sequence[int | str | None] = ("N", 1, SIDE, SIDE),
    softmax: bool = True,
    channels_last: bool = False,
    extra: Callable[[str], tuple[list[NodeProto], list[Any]]] | None = None,
    dtype: int = TensorProto.FLOAT,
    flat_axis: int = 1,
    last: str | None = None,
    baked: bool = False,
) -> bytes:
    """One dense layer behind a picture; ``extra`` adds outputs made of the logits.

    ``last`` is an operator behind it, where it is not softmax. ``baked`` has a batch of one in it,
    whatever it says.
    """
    matrix, bias = weights or weights_of()
    nodes, before = [], names[0]
    if channels_last:
        # Its own order of pixels: columns before rows, so that a wrong layout is seen.
        nodes.append(helper.make_node("Transpose", [before], ["moved"], perm=[0, 3, 1, 2]))
        before = "moved"
    if baked:
        nodes.append(helper.make_node("Reshape", [before, "one row"], ["flat"]))
    else:
        nodes.append(helper.make_node("Flatten", [before], ["flat"], axis=flat_axis))
    last = "Softmax" if softmax else last
    raw = "the logits" if last else names[1]
    nodes.append(helper.make_node("Gemm", ["flat", "w", "b"], [raw]))
    if last:
        nodes.append(helper.make_node(last, [raw], [names[1]]))
    numpy_type = helper.tensor_dtype_to_np_dtype(dtype)
    rows = shape[0] if isinstance(shape[0], int) and flat_axis else "N"
    outputs = [helper.make_tensor_value_info(names[1], dtype, [rows, len(bias)])]
    if extra is not None:
        more, infos = extra(raw)
        nodes += more
        outputs = [*infos, *outputs]
    graph = helper.make_graph(
        nodes,
        "torch_jit",
        [helper.make_tensor_value_info(names[0], dtype, list(shape))],
        outputs,
        [
            numpy_helper.from_array(matrix.astype(numpy_type), "w"),
            numpy_helper.from_array(bias.astype(numpy_type), "b"),
            numpy_helper.from_array(np.array([1, SIDE * SIDE], np.int64), "one row"),
        ],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", 2)],
        ir_version=IR_VERSION,
    )
    return bytes(model.SerializeToString())


def tflite_classifier(
    *,
    weights: tuple[Array, Array] | None = None,
    batch: int = 1,
    softmax: bool = True,
    centred: bool = False,
    example: tuple[int, ...] = (SIDE, SIDE, 1),
) -> bytes:
    """(batch, 8, 8, 1) floats, or ``example``; ``centred`` wants them in -1..1."""
    matrix, bias = weights or weights_of()
    if centred:
        # Of z in -1..1, half of what is one more is in 0..1.
        matrix, bias = matrix / 2, bias + matrix.sum(axis=0) / 2
    file = TfliteFile("converted")
    x = file.tensor("serving_default_keras_tensor_5:0", (batch, *example))
    flat = file.tensor("sequential/flatten", (batch, len(matrix)))
    options = schema.ReshapeOptionsT()
    options.newShape = [-1, len(matrix)]
    sizes = file.constant("sizes", np.array([-1, len(matrix)], np.int32))
    file.operator("RESHAPE", [x, sizes], flat, options)
    dense = file.tensor("sequential/dense", (batch, len(bias)))
    inputs = [
        flat,
        file.constant("w", np.ascontiguousarray(matrix.T, np.float32)),
        file.constant("b", bias.astype(np.float32)),
    ]
    file.operator("FULLY_CONNECTED", inputs, dense, schema.FullyConnectedOptionsT())
    last = dense
    if softmax:
        last = file.tensor("StatefulPartitionedCall:0", (batch, len(bias)))
        chances = schema.SoftmaxOptionsT()
        chances.beta = 1.0
        file.operator("SOFTMAX", [dense], last, chances)
    return file.finish({"keras_tensor_5": x}, {"output_0": last})


def save_data(path: Path, num: int = 900, seed: int = 1, **renamed: str) -> Path:
    """Labelled pictures as an ``.npz``; ``x`` and ``y`` may be renamed."""
    x, y = pictures(num, seed)
    arrays: dict[str, Any] = {renamed.get("x", "x"): x, renamed.get("y", "y"): y}
    np.savez(path, **arrays)
    return path
