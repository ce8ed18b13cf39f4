"""Tiny ONNX files with weights where exporters put them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper, numpy_helper


def onnx_file(
    tensors: dict[str, npt.NDArray[np.generic]], nodes: list[NodeProto] | None = None
) -> bytes:
    """A model file with these initializers, in this order."""
    graph = helper.make_graph(
        nodes or [helper.make_node("Identity", ["x"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    file: bytes = helper.make_model(graph).SerializeToString()
    return file
