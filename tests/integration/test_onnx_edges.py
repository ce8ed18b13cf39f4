"""ONNX files whose inputs and outputs are not what callers see: integers, and float16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from fakes.models import INPUTS, IR_VERSION, OPSET, OUTPUTS, WEIGHTS, manifest_of
from runtime.adapters.artifacts import open_model, write_model
from runtime.adapters.engines import load_member
from runtime.adapters.onnx_backend import OnnxBackend
from runtime.core.quantization import dequantize, quantize
from runtime.errors import ArtifactError, BackendError
from runtime.manifest import INTEGERS, Quantization, QuantizedType
from runtime.messages import TensorSpec

EXAMPLE = np.array([[1, 2, 3], [0.5, -0.25, 4]], np.float32)
LOGITS: Any = EXAMPLE @ WEIGHTS
TYPES = {
    "INT8": TensorProto.INT8,
    "UINT8": TensorProto.UINT8,
    "INT16": TensorProto.INT16,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
}


def edged_model(
    inputs: str = "FP32",
    outputs: str = "FP32",
    x: Quantization | None = None,
    y: Quantization | None = None,
) -> bytes:
    """The linear model, with casts to and from other types at its edges."""
    scale_x, zero_x = (x.scale, x.zero_point) if x else (1.0, 0)
    scale_y, zero_y = (y.scale, y.zero_point) if y else (1.0, 0)
    constants = {"sx": scale_x, "zx": zero_x, "sy": scale_y, "zy": zero_y}
    rounding = [helper.make_node("Round", ["shifted"], ["whole"])] if y else []
    low, high = INTEGERS[y.datatype] if y else (-1e9, 1e9)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["x"], ["x0"], to=TensorProto.FLOAT),
            helper.make_node("Sub", ["x0", "zx"], ["x1"]),
            helper.make_node("Mul", ["x1", "sx"], ["x2"]),
            helper.make_node("MatMul", ["x2", "w"], ["y0"]),
            helper.make_node("Div", ["y0", "sy"], ["y1"]),
            helper.make_node("Add", ["y1", "zy"], ["shifted"]),
            *rounding,
            helper.make_node("Clip", ["whole" if y else "shifted", "low", "high"], ["y3"]),
            helper.make_node("Cast", ["y3"], ["logits"], to=TYPES[outputs]),
        ],
        "edged",
        [helper.make_tensor_value_info("x", TYPES[inputs], ["n", 3])],
        [helper.make_tensor_value_info("logits", TYPES[outputs], ["n", 2])],
        [
            numpy_helper.from_array(WEIGHTS, "w"),
            *(
                numpy_helper.from_array(np.array(number, np.float32), name)
                for name, number in (constants | {"low": low, "high": high}).items()
            ),
        ],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    return bytes(model.SerializeToString())


def loaded(contents: bytes, **options: Any) -> OnnxBackend:
    return OnnxBackend.load(
        contents, source="tiny.onnx", **({"expected": (INPUTS, OUTPUTS)} | options)
    )


def close(found: Any, expected: Any, atol: float = 1e-6) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=atol)


@pytest.mark.parametrize("datatype", INTEGERS)
def test_integers_at_the_edges_are_floats_for_callers(datatype: QuantizedType) -> None:
    steps, coarse = Quantization(datatype, 0.25, 3), Quantization(datatype, 0.5, 7)
    backend = loaded(
        edged_model(datatype, datatype, steps, coarse),
        quantization={"x": steps, "logits": coarse},
    )

    outputs = backend.run({"x": EXAMPLE})["logits"]

    inside: Any = dequantize(quantize(EXAMPLE, steps), steps)
    close(outputs, dequantize(quantize(inside @ WEIGHTS, coarse), coarse))
    assert (backend.inputs, backend.outputs) == (INPUTS, OUTPUTS)
    assert outputs.dtype == np.float32


@pytest.mark.parametrize(("inputs", "outputs"), [("FP16", "FP32"), ("FP32", "FP16")])
def test_float16_at_the_edges_is_float32_for_callers(inputs: str, outputs: str) -> None:
    backend = loaded(edged_model(inputs, outputs))

    found = backend.run({"x": EXAMPLE})["logits"]

    assert found.dtype == np.float32
    close(found, LOGITS, atol=1e-2)
    large = backend.run({"x": np.array([[1e9, 0, 0]], np.float32)})["logits"]
    assert np.isfinite(np.asarray(large, np.float64)).all() == (inputs == "FP16")


def test_callers_of_a_file_of_float16_may_see_it() -> None:
    specs = (TensorSpec("x", "FP16", (-1, 3)),), (TensorSpec("logits", "FP16", (-1, 2)),)
    backend = loaded(edged_model("FP16", "FP16"), expected=specs)

    assert backend.run({"x": EXAMPLE.astype(np.float16)})["logits"].dtype == np.float16


@pytest.mark.parametrize(
    ("contents", "quantization", "complaint"),
    [
        (edged_model("INT8"), {}, "'x' is INT8 in the model and FP32 in the manifest; say in its"),
        (
            edged_model("INT8"),
            {"x": Quantization("UINT8", 1.0)},
            "manifest says that 'x' is UINT8 in the model, which has INT8",
        ),
        (
            edged_model(),
            {"x": Quantization("INT8", 1.0)},
            "manifest says that 'x' is INT8 in the model, which has FP32",
        ),
        (
            edged_model("FP16"),
            {"x": Quantization("INT8", 1.0)},
            "manifest says that 'x' is INT8 in the model, which has FP16",
        ),
    ],
    ids=["not said", "other type", "is no integer", "is a half"],
)
def test_a_manifest_that_contradicts_the_file_is_refused(
    contents: bytes, quantization: dict[str, Quantization], complaint: str
) -> None:
    with pytest.raises(ArtifactError, match=complaint):
        loaded(contents, quantization=quantization)


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"y": EXAMPLE},
        {"x": EXAMPLE, "more": EXAMPLE},
        {"x": EXAMPLE.astype(np.float64)},
        {"x": EXAMPLE[:, :2]},
        {"x": np.full((1, 3), np.nan, np.float32)},
    ],
    ids=["none", "other name", "too many", "type", "size", "nan"],
)
def test_inputs_that_do_not_fit_are_a_backend_error(inputs: Any) -> None:
    backend = loaded(edged_model("INT8"), quantization={"x": Quantization("INT8", 1.0)})

    with pytest.raises(BackendError, match=r"tiny\.onnx failed to run: "):
        backend.run(inputs)


def test_the_manifest_of_a_folder_says_it(tmp_path: Path) -> None:
    steps = Quantization("INT8", 0.25, 3)
    files = {"tiny.onnx": edged_model("INT8", x=steps)}
    write_model(tmp_path, manifest_of(files, quantization={"x": steps}), files)

    found = load_member(open_model(tmp_path), "tiny").run({"x": EXAMPLE})["logits"]

    close(found, LOGITS)


def test_plain_edges_cost_nothing_a_run() -> None:
    """They are not even looked at."""
    assert loaded(edged_model())._edges is None
