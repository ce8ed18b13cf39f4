"""Logits of whole sets of examples, for builds and measurements (numpy, ONNX Runtime)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from model_zoo.onnx_files import INPUT_NAME, OUTPUT_NAME
from runtime.adapters.onnx_backend import OnnxBackend

Float32s = npt.NDArray[np.float32]
Inputs = npt.NDArray[np.float32] | npt.NDArray[np.int32]
BATCH = 250


def logits_of_file(model: bytes, inputs: Inputs, input_name: str = INPUT_NAME) -> Float32s:
    """``(n, classes)`` logits of ``(n, ...)`` inputs by an ONNX file's contents."""
    backend = OnnxBackend.load(model, source="the model")
    parts = [
        backend.run({input_name: inputs[start : start + BATCH]})[OUTPUT_NAME]
        for start in range(0, len(inputs), BATCH)
    ]
    return np.concatenate(parts).astype(np.float32, copy=False)
