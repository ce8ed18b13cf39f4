"""Sets the smallest weights to zero, as many as accuracy allows.

Magnitude pruning (Han et al., "Learning both weights and connections", NeurIPS 2015) without
training anew. One threshold for all layers, each relative to its own spread, so that no layer is
emptied first.
What it buys is size on the way: zeros compress. ONNX Runtime multiplies by them all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import onnx
import zstandard
from onnx import numpy_helper

from model_zoo.calibrate import accuracy_of
from model_zoo.onnx_files import serialize
from model_zoo.policies.collect import Examples
from model_zoo.shrink.subject import Bound, labels_of, logits_of
from runtime.errors import StartError

SPARSITIES = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9)
# Smaller arrays are biases and scales.
_MIN_WEIGHTS = 256
_MATRIX = 2
_TYPES = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8)
Progress = Callable[[int, int, str], None]


class Pruning(msgspec.Struct, frozen=True):
    """A share of zeros that was tried, and what it comes to where choices are made."""

    sparsity: float
    accuracy: float
    compressed_bytes: int


@dataclass(frozen=True, slots=True)
class Pruned:
    """The file with the most zeros that accuracy allows; ``sparsity`` 0: as it was."""

    contents: bytes
    sparsity: float
    tried: tuple[Pruning, ...]


def pruned(
    contents: bytes,
    examples: Examples,
    output: str,
    *,
    max_loss: float,
    sparsities: Sequence[float] = SPARSITIES,
    progress: Progress = lambda _done, _all, _what: None,
    bound: Bound | None = None,
) -> Pruned:
    """The sparsest of the tried that loses at most ``max_loss`` of accuracy.

    Raises:
        StartError: it has no weights that could be pruned.
    """
    model = onnx.load_from_string(contents)
    if not _prunable(model):
        raise StartError("nothing to prune: the model has no matrices of weights")
    known = labels_of(examples)
    before = logits_of(contents, examples, output, "before", bound)
    floor = accuracy_of(before, known) - max_loss
    tried, best = list[Pruning](), (contents, 0.0)
    for step, sparsity in enumerate(sorted(sparsities)):
        progress(step, len(sparsities), f"{sparsity:.0%} zeros")
        sparse = with_zeros(model, sparsity)
        accuracy = accuracy_of(logits_of(sparse, examples, output, "pruned", bound), known)
        tried.append(Pruning(sparsity, accuracy, compressed_bytes(sparse)))
        if accuracy < floor:
            break
        best = sparse, sparsity
    return Pruned(*best, tuple(tried))


def with_zeros(model: onnx.ModelProto, sparsity: float) -> bytes:
    """The file with that share of its weights set to zero."""
    sparse = onnx.ModelProto()
    sparse.CopyFrom(model)
    arrays = _prunable(sparse)
    relative = [
        np.abs(values.astype(np.float64)) / max(values.astype(np.float64).std(), 1e-12)
        for values in map(numpy_helper.to_array, arrays)
    ]
    limit = np.quantile(np.concatenate([one.ravel() for one in relative]), sparsity)
    for array, sizes in zip(arrays, relative, strict=True):
        values = numpy_helper.to_array(array)
        kept = np.where(sizes > limit, values, np.zeros((), values.dtype))
        array.CopyFrom(numpy_helper.from_array(kept, array.name))
    return serialize(sparse)


def compressed_bytes(contents: bytes) -> int:
    """What it takes on the way, with zstd."""
    return len(zstandard.ZstdCompressor(level=19).compress(contents))


def _prunable(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    return [
        array
        for array in model.graph.initializer
        if array.data_type in _TYPES
        and len(array.dims) >= _MATRIX
        and np.prod(array.dims) >= _MIN_WEIGHTS
    ]
