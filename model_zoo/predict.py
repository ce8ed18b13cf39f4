"""Logits of picture sets and of ensembles, for builds and measurements (numpy, ONNX Runtime)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from model_zoo.calibrate import softmax
from model_zoo.onnx_files import INPUT_NAME, OUTPUT_NAME
from runtime.adapters.onnx_backend import OnnxBackend

if TYPE_CHECKING:
    from collections.abc import Sequence

Float32s = npt.NDArray[np.float32]
BATCH = 250


def to_pixels(pictures: npt.NDArray[np.uint8]) -> Float32s:
    """Grey values 0..255 to float32 in 0..1."""
    return pictures.astype(np.float32) * np.float32(1 / 255)


def logits_of_file(model: bytes, pixels: Float32s) -> Float32s:
    """``(n, 10)`` logits of ``(n, 28, 28)`` pixels by an ONNX file's contents."""
    backend = OnnxBackend.load(model, source="the model")
    parts = [
        backend.run({INPUT_NAME: pixels[start : start + BATCH]})[OUTPUT_NAME]
        for start in range(0, len(pixels), BATCH)
    ]
    return np.concatenate(parts).astype(np.float32, copy=False)


def combine(members: Sequence[Float32s], weights: Sequence[float] | None = None) -> Float32s:
    """Logits of an ensemble: the logarithm of the weighted mean of its members' probabilities.

    Args:
        members: ``(n, classes)`` logits of each member.
        weights: one each, any positive scale; equal when missing.
    """
    probabilities = np.stack([softmax(logits) for logits in members])
    mean = np.average(probabilities, axis=0, weights=weights)
    logits: Float32s = np.log(np.maximum(mean, np.finfo(np.float64).tiny)).astype(np.float32)
    return logits
