"""Writes TensorFlow Lite files: tensors, operators and one signature (extra ``tflite``).

It knows the schema and nothing of what the operators compute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from runtime.manifest import Quantization

SCHEMA_VERSION = 3
_FILE_IDENTIFIER = b"TFL3"
_TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "float16": schema.TensorType.FLOAT16,
    "int8": schema.TensorType.INT8,
    "uint8": schema.TensorType.UINT8,
    "int16": schema.TensorType.INT16,
    "int32": schema.TensorType.INT32,
    "int64": schema.TensorType.INT64,
    "bool": schema.TensorType.BOOL,
}
Array = npt.NDArray[Any]


@dataclass(slots=True)
class TfliteFile:
    """A file in the making; ``finish`` gives its bytes, the same for the same calls.

    Sizes of -1 are free; the file then says 1 in their place, as converters write it.
    """

    name: str
    _tensors: list[Any] = field(default_factory=list)
    _operators: list[Any] = field(default_factory=list)
    _codes: list[tuple[int, int]] = field(default_factory=list)
    # The first one is empty by convention: that of everything without contents.
    _buffers: list[bytes] = field(default_factory=lambda: [b""])

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str = "float32",
        quantization: Quantization | None = None,
    ) -> int:
        """An input, an output or something between operators; returns its index."""
        index = self._add(name, shape, dtype, 0)
        if quantization is not None:
            self._quantize(index, [quantization.scale], [quantization.zero_point])
        return index

    def constant(
        self,
        name: str,
        array: Array,
        scales: Sequence[float] = (),
        zero_points: Sequence[int] = (),
        axis: int = 0,
    ) -> int:
        """Weights and the like, with a scale for all of them or for each slice of ``axis``."""
        self._buffers.append(array.astype(array.dtype.newbyteorder("<")).tobytes())
        index = self._add(name, array.shape, array.dtype.name, len(self._buffers) - 1)
        if len(scales):
            self._quantize(index, scales, zero_points or [0] * len(scales), axis)
        return index

    def operator(
        self,
        kind: str,
        inputs: Sequence[int],
        output: int,
        options: object = None,
        *,
        version: int = 1,
    ) -> int:
        """One operator, by its name in the schema; returns the index of its output."""
        code = (getattr(schema.BuiltinOperator, kind), version)
        if code not in self._codes:
            self._codes.append(code)
        made = schema.OperatorT()
        made.opcodeIndex = self._codes.index(code)
        made.inputs, made.outputs = list(inputs), [output]
        if options is not None:
            table = type(options).__name__.removesuffix("T")
            made.builtinOptionsType = getattr(schema.BuiltinOptions, table)
            made.builtinOptions = options
        self._operators.append(made)
        return output

    def finish(self, inputs: Mapping[str, int], outputs: Mapping[str, int]) -> bytes:
        """The file; inputs and outputs by the names that callers use."""
        graph = schema.SubGraphT()
        graph.tensors, graph.operators, graph.name = self._tensors, self._operators, self.name
        graph.inputs, graph.outputs = list(inputs.values()), list(outputs.values())
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = "serving_default", 0
        signature.inputs, signature.outputs = _named(inputs), _named(outputs)
        model = schema.ModelT()
        model.version, model.description = SCHEMA_VERSION, self.name
        model.operatorCodes = [_code(*code) for code in self._codes]
        model.subgraphs, model.signatureDefs = [graph], [signature]
        model.buffers = [_buffer(contents) for contents in self._buffers]
        builder = flatbuffers.Builder(0)
        builder.Finish(model.Pack(builder), file_identifier=_FILE_IDENTIFIER)
        return bytes(builder.Output())

    def _add(self, name: str, shape: Sequence[int], dtype: str, buffer: int) -> int:
        made = schema.TensorT()
        made.name, made.type, made.buffer = name, _TYPES[dtype], buffer
        made.shape = [1 if size < 0 else int(size) for size in shape]
        if any(size < 0 for size in shape):
            made.shapeSignature = [int(size) for size in shape]
        self._tensors.append(made)
        return len(self._tensors) - 1

    def _quantize(
        self, index: int, scales: Sequence[float], zero_points: Sequence[int], axis: int = 0
    ) -> None:
        made = schema.QuantizationParametersT()
        made.scale = [float(np.float32(one)) for one in scales]
        made.zeroPoint = [int(one) for one in zero_points]
        made.quantizedDimension = axis
        self._tensors[index].quantization = made


def _code(builtin: int, version: int) -> object:
    made = schema.OperatorCodeT()
    made.builtinCode, made.version = builtin, version
    # Where readers from before there were so many operators look.
    made.deprecatedBuiltinCode = min(builtin, 127)
    return made


def _buffer(contents: bytes) -> object:
    made = schema.BufferT()
    made.data = np.frombuffer(contents, np.uint8) if contents else None
    return made


def _named(tensors: Mapping[str, int]) -> list[object]:
    maps = []
    for name, index in tensors.items():
        made = schema.TensorMapT()
        made.name, made.tensorIndex = name, index
        maps.append(made)
    return maps
