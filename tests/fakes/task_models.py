"""Small ONNX detectors, anomaly scorers and embedders, and their manifests.

Pictures are 8 x 8 in 0..1. The detectors take every pixel for a box of one pixel, whose score is
its brightness times a gain, so that a test says what there is to find by drawing it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper, numpy_helper

from fakes.models import IR_VERSION, OPSET
from runtime.adapters.artifacts import describe_file, write_model
from runtime.adapters.prototypes import encode_prototypes
from runtime.binding import InputBinding, OutputBinding
from runtime.manifest import Member, ModelManifest
from runtime.messages import TensorSpec, Tier
from runtime.task_fields import AnomalyFields, DetectionFields, EmbeddingFields

SIDE = 8
NUM_PIXELS = SIDE * SIDE
PICTURE = (TensorSpec("x", "FP32", (-1, SIDE, SIDE)),)
ROW = (TensorSpec("x", "FP32", (-1, 3)),)
BOXES = TensorSpec("boxes", "FP32", (-1, -1, 4))
SCORES = TensorSpec("scores", "FP32", (-1, -1))
LABELS = ("spot",)
PROTOTYPES = np.eye(3, dtype=np.float32)
Floats = npt.NDArray[np.float32]


def picture(*spots: tuple[int, int, float]) -> Floats:
    """(1, 8, 8), dark but for pixels of (column, row, brightness)."""
    found = np.zeros((1, SIDE, SIDE), np.float32)
    for column, row, brightness in spots:
        found[0, row, column] = brightness
    return found


def finder(gain: float, least: float) -> bytes:
    """A detector that gives only boxes of more than ``least``: of a dark picture, none at all.

    It takes one picture: ``boxes`` (1, n, 4) corners and ``scores`` (1, n).
    """
    nodes = [
        helper.make_node("Mul", ["x", "gain"], ["bright"]),
        helper.make_node("Clip", ["bright", "zero", "one"], ["shares"]),
        helper.make_node("Greater", ["shares", "least"], ["is box"]),
        helper.make_node("NonZero", ["is box"], ["places"]),
        helper.make_node("Transpose", ["places"], ["rows"], perm=[1, 0]),
        helper.make_node("GatherND", ["shares", "rows"], ["flat scores"]),
        helper.make_node("Unsqueeze", ["flat scores", "first"], ["scores"]),
        helper.make_node("Cast", ["rows"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["numbers", "x and y"], ["low"], axis=1),
        helper.make_node("Add", ["low", "one"], ["high"]),
        helper.make_node("Concat", ["low", "high"], ["corners"], axis=1),
        helper.make_node("Unsqueeze", ["corners", "first"], ["boxes"]),
    ]
    return _file(
        nodes,
        {"x": [1, SIDE, SIDE]},
        {"boxes": [1, "n", 4], "scores": [1, "n"]},
        {
            "gain": np.float32(gain),
            "least": np.float32(least),
            "zero": np.float32(0),
            "one": np.float32(1),
            "first": np.array([0], np.int64),
            "x and y": np.array([2, 1], np.int64),
        },
    )


def dense(gain: float = 1.0, *, num_labels: int = 1) -> bytes:
    """A detector that gives every pixel, as YOLO does: (batch, 4 + labels, 64) in one tensor.

    Centre, width and height in pixels, then a score for each label; the first one's is brightness.
    """
    rows, columns = np.divmod(np.arange(NUM_PIXELS), SIDE)
    boxes = np.stack([columns + 0.5, rows + 0.5, np.ones(NUM_PIXELS), np.ones(NUM_PIXELS)])
    others = np.zeros((1, num_labels - 1, NUM_PIXELS), np.float32)
    nodes = [
        helper.make_node("Mul", ["x", "gain"], ["bright"]),
        helper.make_node("Clip", ["bright", "zero", "one"], ["shares"]),
        helper.make_node("Reshape", ["shares", "as row"], ["scores"]),
        helper.make_node("Mul", ["scores", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "places"], ["boxes"]),
        helper.make_node("Add", ["nothing", "others"], ["more"]),
        helper.make_node("Concat", ["boxes", "scores", "more"], ["output0"], axis=1),
    ]
    return _file(
        nodes,
        {"x": ["batch", SIDE, SIDE]},
        {"output0": ["batch", 4 + num_labels, NUM_PIXELS]},
        {
            "gain": np.float32(gain),
            "zero": np.float32(0),
            "one": np.float32(1),
            "as row": np.array([-1, 1, NUM_PIXELS], np.int64),
            "places": boxes[None].astype(np.float32),
            "others": others,
        },
    )


def linear(weights: Sequence[Sequence[float]], name: str = "y") -> bytes:
    """(batch, k) of (batch, 3): an anomaly score, or an embedding."""
    matrix = np.array(weights, np.float32)
    return _file(
        [helper.make_node("MatMul", ["x", "w"], [name])],
        {"x": ["batch", len(matrix)]},
        {name: ["batch", matrix.shape[1]]},
        {"w": matrix},
    )


def detector_folder(
    folder: Path, tier: Tier, *files: bytes, accept_at: float = 0.8, **changes: Any
) -> Path:
    """Of files that ``finder`` makes."""
    inputs = {"x": InputBinding("x", "FP32", (1, SIDE, SIDE))}
    outputs = {
        "boxes": OutputBinding("boxes", "FP32", (1, -1, 4)),
        "scores": OutputBinding("scores", "FP32", (1, -1), scores="probabilities"),
    }
    named = {f"m{number}.onnx": contents for number, contents in enumerate(files)}
    members = [Member(name[:-5], name, inputs=inputs, outputs=outputs) for name in named]
    fields = {
        "task": "detection",
        "labels": LABELS,
        "inputs": PICTURE,
        "outputs": (BOXES, SCORES),
        "detection": DetectionFields(accept=0.5),
    }
    return _written(folder, tier, named, members, fields | {"accept_at": accept_at} | changes)


def anomaly_folder(folder: Path, tier: Tier, weights: Sequence[float], **changes: Any) -> Path:
    """The score is a weighted sum; from 1 on it is anomalous."""
    fields = {
        "task": "anomaly",
        "labels": (),
        "inputs": ROW,
        "outputs": (TensorSpec("y", "FP32", (-1, 1)),),
        "anomaly": AnomalyFields(threshold=1.0, scale=0.5),
    }
    files = {"m0.onnx": linear([[one] for one in weights])}
    return _written(folder, tier, files, [Member("m0", "m0.onnx")], fields | changes)


def embedding_folder(
    folder: Path, tier: Tier, weights: Sequence[Sequence[float]], **changes: Any
) -> Path:
    """Prototypes are the three axes."""
    fields = {
        "task": "embedding",
        "labels": ("left", "middle", "right"),
        "inputs": ROW,
        "outputs": (TensorSpec("y", "FP32", (-1, 3)),),
        "embedding": EmbeddingFields("prototypes.npy"),
    }
    files = {"m0.onnx": linear(weights), "prototypes.npy": encode_prototypes(PROTOTYPES)}
    return _written(folder, tier, files, [Member("m0", "m0.onnx")], fields | changes)


def _written(
    folder: Path,
    tier: Tier,
    files: dict[str, bytes],
    members: Sequence[Member],
    fields: dict[str, Any],
) -> Path:
    described = {name: describe_file(contents) for name, contents in files.items()}
    manifest = ModelManifest(
        **{
            "name": "found",
            "version": f"{tier.value}-1",
            "tier": tier,
            "files": described,
            "members": tuple(members),
            "accept_at": 0.8,
            **fields,
        }
    )
    write_model(folder, manifest, files)
    return folder


def _file(
    nodes: list[NodeProto],
    inputs: dict[str, list[int | str]],
    outputs: dict[str, list[int | str]],
    constants: dict[str, Any],
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(k, TensorProto.FLOAT, v) for k, v in inputs.items()],
        [helper.make_tensor_value_info(k, TensorProto.FLOAT, v) for k, v in outputs.items()],
        [numpy_helper.from_array(np.asarray(one), name) for name, one in constants.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    return bytes(model.SerializeToString())
