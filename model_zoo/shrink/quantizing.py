"""Int8 for any ONNX classifier: calibrators and operators by measurement, then mixed precision.

Of the ways to find the ranges of activations, the one is taken that comes nearest to the float32
model, on examples that are not reported on. Where even that loses more than allowed, the layers
that quantization hurts most (signal to quantization noise, as
``onnxruntime.quantization.qdq_loss_debug`` has it) stay float32: one, two, four, eight ... of them,
until it is enough.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    qdq_loss_debug,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from model_zoo.calibrate import accuracy_of, probabilities_of
from model_zoo.onnx_files import serialize
from model_zoo.policies.collect import Examples
from model_zoo.shrink.subject import Bound, Float32s, labels_of, logits_of
from runtime.errors import StartError, TierwiseError

NUM_RANGE_EXAMPLES = 256
# Activations of that many are compared layer by layer.
_NUM_COMPARED = 16
_RANGE_BATCH = 16
_WITH_WEIGHTS = ("Conv", "Gemm", "MatMul")
# With the operators between layers that have integer kernels, so that it stays in integers there.
_IN_INT8 = (*_WITH_WEIGHTS, "Add", "Concat", "MaxPool", "AveragePool", "GlobalAveragePool")
_IN_RANGES = ("Relu", "Clip")
_STATIC = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}
METHODS = (*_STATIC, "dynamic")
# ONNX Runtime's quantizer raises whatever its parts do.
_QUANTIZER_ERRORS = (ValueError, RuntimeError, TypeError, KeyError, AttributeError, TierwiseError)
# Sums of integers at run time pay for matrices; convolutions become many times slower.
_DYNAMIC = ("Gemm", "MatMul")
Progress = Callable[[int, int, str], None]


class Try(msgspec.Struct, frozen=True):
    """One way that was tried, on the examples that choices are made on.

    ``divergence`` is the mean Kullback-Leibler divergence of its probabilities from those of the
    float32 model, in nats: it tells ways apart that a few labels do not.
    """

    how: str
    accuracy: float
    agreement: float
    divergence: float
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted: methods to try, accuracy that may be lost, and for which processors.

    ``seven_bit`` keeps weights to 7 of 8 bits: without VNNI, x86 sums products of 8 bits in 16, and
    the overflow gives other answers than on ARM.
    """

    methods: Sequence[str] = METHODS
    max_loss: float = 0.005
    seven_bit: bool = True


@dataclass(frozen=True, slots=True)
class Int8:
    """The best file, how it was made, its float32 layers, what was tried and what failed."""

    contents: bytes
    how: str
    kept_float: tuple[str, ...]
    tried: tuple[Try, ...]
    failures: tuple[str, ...] = ()


def quantized(
    contents: bytes,
    examples: Examples,
    output: str,
    wish: Wish,
    progress: Progress,
    *,
    bound: Bound | None = None,
) -> Int8:
    """The int8 file of one member.

    Args:
        contents: a float32 ONNX file.
        examples: to choose by; the first 256 set the ranges of activations.
        output: the name of the scores.
        wish: what is wanted.
        progress: told what is tried.
        bound: what binds the file to its manifest, where it has other tensors.

    Raises:
        StartError: there is nothing to quantize, or no way works; with what each said.
    """
    model = _prepared(contents)
    present = {node.op_type for node in model.graph.node}
    if not present.intersection(_WITH_WEIGHTS):
        raise StartError(
            "nothing to quantize: the model has no convolution and no matrix product "
            f"({', '.join(sorted(present)[:8])})"
        )
    logits = logits_of(contents, examples, output, "the model as it is", bound)
    judge = _Judge(examples, output, logits, max_loss=wish.max_loss, bound=bound)
    results, failures = list[tuple[Try, bytes, tuple[str, ...]]](), list[str]()
    methods = [one for one in wish.methods if one != "dynamic" or present.isdisjoint({"Conv"})]
    for step, method in enumerate(methods):
        progress(step, len(wish.methods) + 1, method)
        try:
            small = _one(model, judge.inner, method, wish, ())
            results.append((judge.tried(small, method), small, ()))
        except _QUANTIZER_ERRORS as error:
            failures.append(f"{method}: {' '.join(str(error).split())[:200]}")
    if not results:
        raise StartError(f"no way to quantize it works: {'; '.join(failures)}")
    results.sort(key=_rank)
    best = results[0]
    if not judge.is_good(best[0]) and best[0].how != "dynamic":
        progress(len(wish.methods), len(wish.methods) + 1, "which layers suffer")
        try:
            results += _mixed(model, best, judge, wish)
        except _QUANTIZER_ERRORS as error:
            # What was found before is still the nearest.
            failures.append(f"mixed: {' '.join(str(error).split())[:200]}")
        good = [one for one in results if judge.is_good(one[0])]
        # The one with the fewest float32 layers that is good enough, else the nearest.
        best = min(good, key=lambda one: len(one[2])) if good else min(results, key=_rank)
    tried = tuple(one for one, _, _ in sorted(results, key=_rank))
    return Int8(best[1], best[0].how, best[2], tried, tuple(failures))


def sensitivity(
    model: onnx.ModelProto, small: bytes, examples: Examples
) -> list[tuple[str, float]]:
    """Layers with weights, and their signal to quantization noise in dB; the worst first.

    Of what leaving a layer out would take away: the noise in what comes in, or in its weights,
    whichever is worse.
    """
    with tempfile.TemporaryDirectory() as scratch, _quiet():
        plain, int8 = Path(scratch) / "float.onnx", Path(scratch) / "int8.onnx"
        plain.write_bytes(serialize(model))
        int8.write_bytes(small)
        values = []
        for path in (plain, int8):
            shown = path.with_suffix(".shown.onnx")
            qdq_loss_debug.modify_model_output_intermediate_tensors(str(path), str(shown))
            reader = _Batches(examples, _NUM_COMPARED)
            values.append(qdq_loss_debug.collect_activations(str(shown), reader))
        activations = qdq_loss_debug.create_activation_matching(values[1], values[0])
        of_inputs = qdq_loss_debug.compute_activation_error(activations)
        weights = qdq_loss_debug.create_weight_matching(str(plain), str(int8))
        of_weights = qdq_loss_debug.compute_weight_error(weights)
    noise = {name: float(error["qdq_err"]) for name, error in of_inputs.items()}
    noise |= {name: float(error) for name, error in of_weights.items()}
    # The quantizer takes such nodes into the ranges of what comes in, under that name.
    alias = {
        node.output[0]: node.input[0] for node in model.graph.node if node.op_type in _IN_RANGES
    }
    for name, before in alias.items():
        if before in noise:
            noise.setdefault(name, noise[before])
    layers = {
        node.name: [noise[name] for name in node.input if name in noise]
        for node in model.graph.node
        if node.op_type in _WITH_WEIGHTS
    }
    ranked = [(name, min(found)) for name, found in layers.items() if found]
    return sorted(ranked, key=lambda one: one[1])


def _mixed(
    model: onnx.ModelProto,
    best: tuple[Try, bytes, tuple[str, ...]],
    judge: _Judge,
    wish: Wish,
) -> list[tuple[Try, bytes, tuple[str, ...]]]:
    """The same way with ever more of the layers that suffer most left as they are."""
    method, results = best[0].how, list[tuple[Try, bytes, tuple[str, ...]]]()
    ranked = [name for name, _ in sensitivity(model, best[1], judge.inner)]
    num = 1
    while num <= len(ranked) // 2:
        kept = tuple(ranked[:num])
        small = _one(model, judge.inner, method, wish, kept)
        how = f"{method}, {num} of {len(ranked)} layers float32"
        results.append((judge.tried(small, how), small, kept))
        if judge.is_good(results[-1][0]):
            break
        num *= 2
    return results


def _rank(result: tuple[Try, bytes, tuple[str, ...]]) -> float:
    return result[0].divergence


class _Judge:
    """Compares with the float32 model on the examples that choices are made on."""

    def __init__(
        self,
        examples: Examples,
        output: str,
        logits: Float32s,
        *,
        max_loss: float,
        bound: Bound | None,
    ) -> None:
        self.examples, self._output, self._bound = examples, output, bound
        # As the file itself takes them.
        own = dict(examples.inputs)
        inputs = own if bound is None else bound.file_inputs(own)
        self.inner = Examples(inputs, examples.labels, examples.source)
        self._shares, self._labels = probabilities_of([logits]), logits.argmax(axis=1)
        self._min_accuracy = accuracy_of(logits, labels_of(examples)) - max_loss
        # What changes labels and loses nothing has only been lucky.
        self._min_agreement = 1 - 4 * max(max_loss, 0.0)

    def tried(self, contents: bytes, how: str) -> Try:
        """What a file comes to."""
        logits = logits_of(contents, self.examples, self._output, how, self._bound)
        shares = probabilities_of([logits])
        smallest = np.finfo(np.float64).tiny
        ratio = np.log(np.maximum(self._shares, smallest) / np.maximum(shares, smallest))
        return Try(
            how,
            accuracy_of(logits, labels_of(self.examples)),
            float((logits.argmax(axis=1) == self._labels).mean()),
            float((self._shares * ratio).sum(axis=1).mean()),
            len(contents),
        )

    def is_good(self, one: Try) -> bool:
        """Whether no more is lost than allowed."""
        return one.accuracy >= self._min_accuracy and one.agreement >= self._min_agreement


def _prepared(contents: bytes) -> onnx.ModelProto:
    """With constants folded, batch norms merged, shapes inferred, and every node named."""
    with tempfile.TemporaryDirectory() as scratch, _quiet():
        before, after = Path(scratch) / "before.onnx", Path(scratch) / "after.onnx"
        before.write_bytes(contents)
        quant_pre_process(str(before), str(after), skip_symbolic_shape=True)
        model = onnx.load(after)
    # The quantizer puts a digit behind names: those of weights must not become somebody's.
    has_inner = any(one.HasField("g") for node in model.graph.node for one in node.attribute)
    named = [] if has_inner else model.graph.initializer
    renamed = {one.name: f"{one.name}_weights" for one in named}
    for one in named:
        one.name = renamed[one.name]
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
        node.input[:] = [renamed.get(name, name) for name in node.input]
    return model


def _one(
    model: onnx.ModelProto,
    examples: Examples,
    method: str,
    wish: Wish,
    kept_float: tuple[str, ...],
) -> bytes:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    with tempfile.TemporaryDirectory() as scratch, _quiet():
        path = Path(scratch) / "int8.onnx"
        common: dict[str, Any] = {
            "per_channel": True,
            "reduce_range": wish.seven_bit,
            "weight_type": QuantType.QInt8,
            "nodes_to_exclude": list(kept_float),
        }
        if method == "dynamic":
            quantize_dynamic(copy, path, op_types_to_quantize=list(_DYNAMIC), **common)
        else:
            quantize_static(
                copy,
                path,
                _Batches(examples, NUM_RANGE_EXAMPLES),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(_IN_INT8),
                activation_type=QuantType.QUInt8,
                calibrate_method=_STATIC[method],
                **common,
            )
        return serialize(_with_fine_scores(onnx.load(path)))


def _with_fine_scores(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without the last rounding: scores in 256 steps would make steps of the confidence, too."""
    graph = model.graph
    made_by = {name: node for node in graph.node for name in node.output}
    used = [name for node in graph.node for name in node.input]
    for one in graph.output:
        last = made_by.get(one.name)
        if last is None or last.op_type != "DequantizeLinear":
            continue
        rounds = made_by.get(last.input[0])
        if rounds is None or rounds.op_type != "QuantizeLinear" or rounds.input[0] not in made_by:
            continue
        fine = rounds.input[0]
        if used.count(fine) > 1 or used.count(one.name) or used.count(last.input[0]) > 1:
            continue
        node = made_by[fine]
        node.output[:] = [one.name if name == fine else name for name in node.output]
        graph.node.remove(last)
        graph.node.remove(rounds)
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice that ONNX Runtime's quantizer prints."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(before)


class _Batches(CalibrationDataReader):  # type: ignore[misc] # onnxruntime ships no types
    """Hands examples to what finds ranges."""

    def __init__(self, examples: Examples, num: int) -> None:
        ends = range(0, min(num, len(examples.labels)), _RANGE_BATCH)
        parts = [examples.part(start, min(num, start + _RANGE_BATCH)) for start in ends]
        # The quantizer adds batches up, so that all have to be of one size.
        whole = [one for one in parts if len(one.labels) == len(parts[0].labels)]
        self._batches = iter([dict(one.inputs) for one in whole])

    def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
        """The next batch, or None when there is none."""
        return next(self._batches, None)
