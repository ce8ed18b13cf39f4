"""The converter of our networks refuses what it does not know, and makes nothing up."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from model_zoo.catalog import bundled_model
from model_zoo.tflite_convert import convert
from runtime.errors import ArtifactError

Change = Callable[[onnx.GraphProto], None]


def nodes(graph: onnx.GraphProto, kind: str) -> list[onnx.NodeProto]:
    return [node for node in graph.node if node.op_type == kind]


def replace(graph: onnx.GraphProto, name: str, array: np.ndarray) -> None:
    for one in graph.initializer:
        if one.name == name:
            one.CopyFrom(numpy_helper.from_array(array, name))


def value(graph: onnx.GraphProto, name: str) -> np.ndarray:
    (found,) = [one for one in graph.initializer if one.name == name]
    array: np.ndarray = numpy_helper.to_array(found)
    return array


def attribute(kind: str, name: str, what: object) -> Change:
    def change(graph: onnx.GraphProto) -> None:
        node = nodes(graph, kind)[0]
        kept = [one for one in node.attribute if one.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, what)])

    return change


def constant(kind: str, place: int, array: np.ndarray) -> Change:
    return lambda graph: replace(graph, nodes(graph, kind)[0].input[place], array)


def unknown(graph: onnx.GraphProto) -> None:
    nodes(graph, "Relu")[0].op_type = "Softplus"


def unquantized(graph: onnx.GraphProto) -> None:
    """The first convolution's output goes on as floats."""
    name = nodes(graph, "Conv")[0].output[0]
    following = next(node for node in graph.node if name in node.input)
    following.op_type = "Relu"


def odd_bias(graph: onnx.GraphProto) -> None:
    """In steps of another size than the sums that it is added to."""
    name = nodes(graph, "Conv")[0].input[2]
    made = next(node for node in graph.node if name in node.output)
    replace(graph, made.input[1], value(graph, made.input[1]) * np.float32(2))


def lopsided_weights(graph: onnx.GraphProto) -> None:
    name = nodes(graph, "Conv")[0].input[1]
    made = next(node for node in graph.node if name in node.output)
    replace(graph, made.input[2], value(graph, made.input[2]) + np.int8(1))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (unknown, "Softplus is no operator that can be converted"),
        (attribute("Conv", "group", 2), "convolution of a kind"),
        (attribute("Conv", "dilations", [2, 2]), "convolution of a kind"),
        (attribute("Conv", "strides", [1, 2]), "convolution of a kind"),
        (attribute("Gemm", "alpha", 2.0), "a scaled Gemm"),
        (constant("Unsqueeze", 1, np.array([2])), "Unsqueeze of another axis"),
        (constant("ReduceMean", 1, np.array([1, 2])), "a mean over other axes"),
        (constant("QuantizeLinear", 2, np.array(0, np.int8)), "activations that are not uint8"),
        (unquantized, "what Conv gives is not quantized"),
        (odd_bias, "not in steps of its input and weights"),
        (lopsided_weights, "convolution of a kind"),
    ],
    ids=[
        "operator", "groups", "dilation", "strides", "alpha", "axis", "mean", "type", "floats",
        "bias", "weights",
    ],
)  # fmt: skip
def test_what_it_does_not_know_is_refused(change: Change, complaint: str) -> None:
    model = onnx.load(str(bundled_model("edge") / "edge.onnx"))
    change(model.graph)

    with pytest.raises(ArtifactError, match=complaint):
        convert(model.SerializeToString())


def test_the_same_file_gives_the_same_bytes() -> None:
    contents = (bundled_model("edge") / "edge.onnx").read_bytes()

    assert convert(contents) == convert(contents)


def test_what_is_no_onnx_file_is_refused() -> None:
    for contents in (b"", b"garbage"):
        with pytest.raises(ArtifactError, match="no ONNX file"):
            convert(contents)
