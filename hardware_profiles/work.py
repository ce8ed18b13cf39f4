"""What one inference of a model is: operations, bytes, operators, as ONNX Runtime runs it.

The model runs once with ONNX Runtime's own profile, which names each operator with the shapes that
went in and came out. Multiplications of matrices and convolutions are counted; all else is
an operator and what an operator costs.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from runtime.adapters.artifacts import ModelFolder
from runtime.core.roofline import Work
from runtime.errors import ArtifactError
from runtime.messages import Tensors

# Where the weights are among the inputs of an operator.
_WEIGHTS_OF = {
    "Conv": 1,
    "FusedConv": 1,
    "ConvInteger": 1,
    "QLinearConv": 3,
    "ConvTranspose": 1,
    "Gemm": 1,
    "FusedGemm": 1,
    "MatMul": 1,
    "FusedMatMul": 1,
    "MatMulInteger": 1,
    "QLinearMatMul": 3,
    "QGemm": 3,
}
_FLOPS_OF_A_MULTIPLY_ADD = 2


class _Arguments(msgspec.Struct):
    """What the profile says of one operator: a mapping of datatype to shape for each tensor."""

    op_name: str
    input_type_shape: list[dict[str, list[int]]] = []
    output_type_shape: list[dict[str, list[int]]] = []


def count_work(model: ModelFolder) -> Work:
    """The work of one inference of all members with one example.

    Raises:
        ArtifactError: ONNX Runtime cannot run a file, or its profile is not understood.
    """
    from hardware_profiles.bench_worker import example  # noqa: PLC0415 - quick --help

    inputs = example(model.manifest.inputs, 1)
    counts = [
        _count(model.read_verified(member.file), str(model.folder), inputs)
        for member in model.manifest.members
        if member.file is not None
    ]
    return Work(
        num_flops=sum(one.num_flops for one in counts),
        num_int8_ops=sum(one.num_int8_ops for one in counts),
        num_bytes=float(model.manifest.size_bytes),
        num_ops=sum(one.num_ops for one in counts),
    )


def _count(contents: bytes, source: str, inputs: Tensors) -> Counted:
    import onnxruntime as ort  # noqa: PLC0415 - quick --help

    from runtime.adapters.onnx_backend import OnnxBackend  # noqa: PLC0415

    # What cannot be run is told by it.
    OnnxBackend.load(contents, source=source).close()
    with tempfile.TemporaryDirectory(prefix="tierwise-work-") as folder:
        settings = ort.SessionOptions()
        settings.enable_profiling = True
        settings.profile_file_prefix = str(Path(folder) / "profile")
        settings.intra_op_num_threads = 1
        settings.log_severity_level = 4
        # Weights that are packed before are no inputs any more, and their shape is not told.
        settings.add_session_config_entry("session.disable_prepacking", "1")
        session = ort.InferenceSession(contents, settings, providers=["CPUExecutionProvider"])
        session.run(None, inputs)
        try:
            written = Path(session.end_profiling())
            return count_events(json.loads(written.read_bytes()))
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{source}: its work could not be counted: {error}") from error


class Counted(NamedTuple):
    """What the operators of one run come to."""

    num_flops: float
    num_int8_ops: float
    num_ops: int


def count_events(events: Iterable[dict[str, Any]]) -> Counted:
    """Operations and operators in a profile of ONNX Runtime.

    Raises:
        msgspec.ValidationError: an operator is described in another way than expected.
    """
    num_flops, num_int8_ops, num_ops = 0.0, 0.0, 0
    for event in events:
        if event.get("cat") != "Node" or not str(event.get("name")).endswith("_kernel_time"):
            continue
        one = msgspec.convert(event.get("args"), _Arguments)
        num_ops += 1
        if one.op_name.startswith("Q") or one.op_name.endswith("Integer"):
            num_int8_ops += _num_operations(one)
        else:
            num_flops += _num_operations(one)
    return Counted(num_flops, num_int8_ops, num_ops)


def _num_operations(one: _Arguments) -> float:
    """Every value that comes out is a sum of products: as many as a filter, or a row, is long."""
    position = _WEIGHTS_OF.get(one.op_name)
    if position is None or len(one.input_type_shape) <= position or not one.output_type_shape:
        return 0.0
    weights = next(iter(one.input_type_shape[position].values()), [])
    out = next(iter(one.output_type_shape[0].values()), [])
    if not weights or not out:
        return 0.0
    is_convolution = "Conv" in one.op_name
    num_products = math.prod(weights[1:]) if is_convolution else _row(weights, out)
    return float(_FLOPS_OF_A_MULTIPLY_ADD * math.prod(out) * num_products)


def _row(weights: list[int], out: list[int]) -> int:
    """The length of the sums of a product of matrices, whichever way the weights lie."""
    return math.prod(weights) // out[-1] if out[-1] else 0
