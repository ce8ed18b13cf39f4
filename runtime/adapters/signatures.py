"""What a model file of another project says about its tensors, before it is believed.

Asks the engine that would run it. Nothing is run here but LiteRT's own reading of a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime.adapters import onnx_backend
from runtime.adapters.litert_engine import ENGINE_ERRORS, Interpreters, find_package
from runtime.adapters.litert_names import named_details
from runtime.errors import ArtifactError, InvalidTensorError
from runtime.manifest import Engine
from runtime.tensors import datatype_of

# What ONNX Runtime says at length, by a word of it.
_HERE = f"than onnxruntime {onnx_backend.VERSION} knows; update that, or export with an older one"
_HINTS = (
    ("under development", f"its opset is newer {_HERE} (--opset 17)"),
    ("ir version", f"its IR version is newer {_HERE}"),
    ("protobuf parsing failed", "it is damaged or cut off; export or download it again"),
)
_QUANTIZED = {"INT8", "UINT8", "INT16"}


@dataclass(frozen=True, slots=True)
class FileTensor:
    """One tensor of a file; ``datatype`` is empty where ``kind`` is nothing that is served.

    ``shape`` has -1 for free axes; None where the file says nothing of it. ``step`` is the scale of
    integers that stand for floats, 0 where they do not; ``datatype`` is then FP32.
    """

    name: str
    kind: str
    datatype: str
    shape: tuple[int, ...] | None
    step: float = 0.0


@dataclass(frozen=True, slots=True)
class FileSignature:
    """All inputs and outputs of a file, and what runs it: a package's name and version."""

    engine: Engine
    package: str
    package_version: str
    inputs: tuple[FileTensor, ...]
    outputs: tuple[FileTensor, ...]


def read_signature(contents: bytes, engine: Engine, source: str) -> FileSignature:
    """The tensors of a file.

    Raises:
        ArtifactError: the engine cannot read it, or is not here.
    """
    return _of_tflite(contents, source) if engine == "litert" else _of_onnx(contents, source)


def _of_onnx(contents: bytes, source: str) -> FileSignature:
    try:
        session, _ = onnx_backend.open_session(contents, source)
    except ArtifactError as error:
        hint = next((hint for sign, hint in _HINTS if sign in str(error.__cause__).lower()), "")
        if not hint:
            raise
        raise ArtifactError(f"{source} is not a model that ONNX Runtime can run: {hint}") from error
    return FileSignature(
        "onnxruntime",
        "onnxruntime",
        onnx_backend.VERSION,
        tuple(_onnx_tensor(node) for node in session.get_inputs()),
        tuple(_onnx_tensor(node) for node in session.get_outputs()),
    )


def _onnx_tensor(node: Any) -> FileTensor:  # noqa: ANN401 - onnxruntime ships no types
    shape = tuple(size if isinstance(size, int) else -1 for size in node.shape or ())
    datatype = onnx_backend.DATATYPES.get(node.type, "")
    # A scalar and a tensor of unknown rank look the same.
    return FileTensor(node.name, node.type, datatype, shape or None)


def _of_tflite(contents: bytes, source: str) -> FileSignature:
    package = find_package()
    try:
        interpreter = Interpreters(package, contents, 1, "xnnpack").new()
        inputs, outputs = named_details(interpreter)
        sides = [
            tuple(_tflite_tensor(name, one) for name, one in side.items())
            for side in (inputs, outputs)
        ]
    except ENGINE_ERRORS as error:
        raise ArtifactError(
            f"{source} is not a model that LiteRT can read: {' '.join(str(error).split())[:300]}"
        ) from error
    return FileSignature("litert", package.name, package.version, *sides)


def _tflite_tensor(name: str, details: Any) -> FileTensor:  # noqa: ANN401 - LiteRT ships no types
    dtype = np.dtype(details["dtype"])
    try:
        datatype = datatype_of(np.empty(0, dtype))
    except InvalidTensorError:
        datatype = ""
    if dtype.kind in "OSU":
        datatype = ""
    scales = details["quantization_parameters"]["scales"]
    step = float(scales[0]) if len(scales) and datatype in _QUANTIZED else 0.0
    shape = [int(size) for size in details["shape_signature"]]
    if shape[:1] == [1]:
        # LiteRT resizes it, or the backend runs it row by row.
        shape[0] = -1
    return FileTensor(name, str(dtype), "FP32" if step else datatype, tuple(shape) or None, step)
