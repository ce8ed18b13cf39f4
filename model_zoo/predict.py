"""Logits of whole picture sets, for builds and measurements (numpy, ONNX Runtime)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from model_zoo.onnx_files import INPUT_NAME, OUTPUT_NAME
from runtime.adapters.onnx_backend import OnnxBackend

Float32s = npt.NDArray[np.float32]
BATCH = 250


def logits_of_file(model: bytes, pixels: Float32s) -> Float32s:
    """``(n, classes)`` logits of ``(n, 28, 28)`` pixels by an ONNX file's contents."""
    backend = OnnxBackend.load(model, source="the model")
    parts = [
        backend.run({INPUT_NAME: pixels[start : start + BATCH]})[OUTPUT_NAME]
        for start in range(0, len(pixels), BATCH)
    ]
    return np.concatenate(parts).astype(np.float32, copy=False)
