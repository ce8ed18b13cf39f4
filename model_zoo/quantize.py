"""Static int8 quantization with a choice by measurement (ONNX Runtime, no PyTorch).

Weights are quantized per channel to 7 of 8 bits: on x86 CPUs without VNNI sums of products with
8-bit weights overflow 16 bits, so that a model would answer differently on different devices. What
remains to be chosen, how the ranges of activations are found and which operators take part, is
decided by the accuracy on calibration pictures, then by their log loss.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from model_zoo.calibrate import Labels, accuracy_of, log_loss, probabilities_of
from model_zoo.onnx_files import INPUT_NAME, serialize, strip
from model_zoo.predict import Float32s, logits_of_file
from model_zoo.report import Candidate

NUM_RANGE_PICTURES = 512
_RANGE_BATCH = 64


@dataclass(frozen=True, slots=True)
class QuantizationChoice:
    """One way to quantize; ``name`` goes into reports."""

    name: str
    method: CalibrationMethod
    op_types: tuple[str, ...]


_CONVOLUTIONS = ("Conv", "Gemm")
_WITH_SUMS = ("Conv", "Gemm", "Add")
CHOICES = (
    QuantizationChoice("minmax", CalibrationMethod.MinMax, _WITH_SUMS),
    QuantizationChoice("percentile", CalibrationMethod.Percentile, _WITH_SUMS),
    QuantizationChoice("entropy", CalibrationMethod.Entropy, _WITH_SUMS),
    QuantizationChoice("minmax, float32 sums", CalibrationMethod.MinMax, _CONVOLUTIONS),
    QuantizationChoice("percentile, float32 sums", CalibrationMethod.Percentile, _CONVOLUTIONS),
)


@dataclass(frozen=True, slots=True)
class Quantized:
    """The best quantized model, its choice, and all that was tried, best first."""

    model: bytes
    choice: str
    tried: tuple[Candidate, ...]


def quantize(
    model: bytes,
    inputs: Float32s,
    labels: Labels,
    choices: tuple[QuantizationChoice, ...] = CHOICES,
    *,
    input_name: str = INPUT_NAME,
) -> Quantized:
    """The int8 model that does best on calibration examples.

    Args:
        model: float32 ONNX file with one input.
        inputs: ``(n, ...)`` float32, such as pixels in 0..1; the first 512 set the ranges of
            activations.
        labels: ``(n,)`` class indices.
        choices: what to try.
        input_name: of the file's input.
    """
    results: list[tuple[Candidate, bytes]] = []
    for choice in _different(choices, onnx.load_from_string(model)):
        small = _quantized(model, {input_name: inputs[:NUM_RANGE_PICTURES]}, choice)
        logits = logits_of_file(small, inputs, input_name)
        candidate = Candidate(
            choice=choice.name,
            accuracy=accuracy_of(logits, labels),
            log_loss=log_loss(probabilities_of([logits]), labels),
            size_bytes=len(small),
        )
        results.append((candidate, small))
    results.sort(key=lambda result: (-result[0].accuracy, result[0].log_loss))
    best, best_model = results[0]
    return Quantized(best_model, best.choice, tuple(candidate for candidate, _ in results))


def _different(
    choices: tuple[QuantizationChoice, ...], model: onnx.ModelProto
) -> list[QuantizationChoice]:
    """Leaves out choices that differ only in operators that the model does not have."""
    present = {node.op_type for node in model.graph.node}
    different = {
        (choice.method, frozenset(present.intersection(choice.op_types))): choice
        for choice in reversed(choices)
    }
    return list(reversed(different.values()))


def _quantized(model: bytes, inputs: dict[str, Float32s], choice: QuantizationChoice) -> bytes:
    # It advises a pre-processing that the export has done already, and prints what it does.
    logging.getLogger().addFilter(_drop_advice)
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            contextlib.redirect_stdout(io.StringIO()),
        ):
            path = Path(folder) / "int8.onnx"
            quantize_static(
                onnx.load_from_string(model),
                path,
                _Examples(inputs),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(choice.op_types),
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=choice.method,
                # Logits in 256 steps would make steps of the confidence, too.
                extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm"]},
            )
            return serialize(strip(onnx.load(path)))
    finally:
        logging.getLogger().removeFilter(_drop_advice)


def _drop_advice(record: logging.LogRecord) -> bool:
    return "pre-processing" not in record.getMessage()


class _Examples(CalibrationDataReader):  # type: ignore[misc] # onnxruntime ships no types
    """Hands batches of the one input to the range finder."""

    def __init__(self, inputs: dict[str, Float32s]) -> None:
        ((name, values),) = inputs.items()
        # The finder of percentiles takes batches of one size only; the last one may be shorter.
        whole = len(values) - len(values) % _RANGE_BATCH or len(values)
        self._batches: Iterator[dict[str, Float32s]] = iter(
            [
                {name: values[start : start + _RANGE_BATCH]}
                for start in range(0, whole, _RANGE_BATCH)
            ]
        )

    def get_next(self) -> dict[str, Float32s] | None:
        """The next batch, or None when there is none."""
        return next(self._batches, None)
