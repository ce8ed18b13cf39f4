"""Small ONNX models and whole model folders for tests."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, checker, helper, numpy_helper

from runtime.adapters.artifacts import ModelFolder, describe_file, open_model, write_model
from runtime.manifest import Member, ModelManifest
from runtime.messages import TensorSpec, Tier

NUM_FEATURES = 3
LABELS = ("no", "yes")
INPUTS = (TensorSpec("x", "FP32", (-1, NUM_FEATURES)),)
OUTPUTS = (TensorSpec("logits", "FP32", (-1, len(LABELS))),)
WEIGHTS = np.array([[1, -1], [2, 0], [0, 3]], np.float32)
OPSET = 18
IR_VERSION = 10


def linear_model(
    weights: npt.NDArray[np.float32] = WEIGHTS,
    *,
    input_name: str = "x",
    batch: int | str = "batch",
    sides: Sequence[int] | None = None,
) -> bytes:
    """``logits = flattened x @ weights`` of FP32; ``sides`` is the shape of one example."""
    num_features, num_labels = weights.shape
    one_example = list(sides) if sides is not None else [num_features]
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", [input_name], ["flat"], axis=1),
            helper.make_node("Gemm", ["flat", "w", "b"], ["logits"]),
        ],
        "linear",
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, [batch, *one_example])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, num_labels])],
        [
            numpy_helper.from_array(weights, "w"),
            numpy_helper.from_array(np.zeros(num_labels, np.float32), "b"),
        ],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    checker.check_model(model)
    return bytes(model.SerializeToString())


def slow_model(size: int = 700, num_layers: int = 80) -> bytes:
    """The usual answers after a lot of work."""
    layers = [f"h{n}" for n in range(num_layers + 1)]
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "spread"], [layers[0]]),
            *(
                helper.make_node("MatMul", [one, "identity"], [other])
                for one, other in itertools.pairwise(layers)
            ),
            helper.make_node("MatMul", [layers[-1], "w"], ["logits"]),
        ],
        "slow",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", NUM_FEATURES])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", len(LABELS)])],
        [
            numpy_helper.from_array(np.eye(NUM_FEATURES, size, dtype=np.float32), "spread"),
            numpy_helper.from_array(np.eye(size, dtype=np.float32), "identity"),
            numpy_helper.from_array(np.pad(WEIGHTS, ((0, size - NUM_FEATURES), (0, 0))), "w"),
        ],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    return bytes(model.SerializeToString())


def manifest_of(files: dict[str, bytes], **changes: object) -> ModelManifest:
    """A valid manifest of one-file members with these contents."""
    fields: dict[str, object] = {
        "name": "tiny",
        "version": "1",
        "tier": Tier.EDGE,
        "files": {name: describe_file(contents) for name, contents in files.items()},
        "members": tuple(Member(Path(name).stem, name) for name in files),
        "inputs": INPUTS,
        "outputs": OUTPUTS,
        "labels": LABELS,
        "accept_at": 0.8,
    }
    return ModelManifest(**(fields | changes))  # type: ignore[arg-type]


def model_folder(folder: Path, files: dict[str, bytes] | None = None) -> ModelFolder:
    """A written and verified model folder; of one linear model unless ``files`` are given."""
    files = {"tiny.onnx": linear_model()} if files is None else files
    write_model(folder, manifest_of(files), files)
    return open_model(folder)
