"""Runs ONNX files with ONNX Runtime.

One call costs little more than ONNX Runtime's own: the session and the list of output names are
made once, arrays go in and out without a copy of ours, and what can be checked once is checked at
load.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from runtime.adapters.artifacts import ModelFolder
from runtime.errors import ArtifactError, BackendError
from runtime.messages import Tensors, TensorSpec
from runtime.tensors import dtype_of

# ONNX Runtime's exceptions share no base class, and every release adds some. The other three are
# raised by its Python side: ValueError for a missing input, for one.
_ORT_ERRORS: tuple[type[Exception], ...] = (
    *(
        kind
        for kind in vars(ort_errors).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    ),
    RuntimeError,
    TypeError,
    ValueError,
)
# ONNX Runtime's names of tensor types -> the Open Inference Protocol's.
_DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
}
_LOG_FATAL_ONLY = 4
_TIMED_RUNS = 15
_TIMING_BUDGET_S = 0.2


@dataclass(frozen=True, slots=True)
class OnnxOptions:
    """How a session uses the machine.

    One thread is the fastest choice for models of about a millisecond, and leaves the other cores
    to other requests. ``spin`` lets idle threads burn a core to save some microseconds.
    """

    intra_op_threads: int = 1
    inter_op_threads: int = 1
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    spin: bool = False


class OnnxBackend:
    """One ONNX model in memory; implements ``runtime.ports.Backend``.

    ``typical_ms`` is the median time of one inference of batch size 1 at load, after the warm-up:
    callers run what takes a fraction of a millisecond inline and the rest in a thread.
    """

    def __init__(self, session: ort.InferenceSession, source: str) -> None:
        self._session: ort.InferenceSession | None = session
        self._source = source
        self.inputs = tuple(_spec(node, source) for node in session.get_inputs())
        self.outputs = tuple(_spec(node, source) for node in session.get_outputs())
        self._output_names = [spec.name for spec in self.outputs]
        self.typical_ms = 0.0

    @classmethod
    def load(
        cls,
        contents: bytes,
        *,
        source: str,
        expected: tuple[Sequence[TensorSpec], Sequence[TensorSpec]] | None = None,
        options: OnnxOptions | None = None,
    ) -> Self:
        """The model, warmed up and timed.

        Args:
            contents: an ONNX file; bytes, so that what runs is what was verified.
            source: names the file in errors.
            expected: inputs and outputs that the file must have, as its manifest says.
            options: threads and execution providers.

        Raises:
            ArtifactError: not a model that ONNX Runtime can run, or not the expected tensors.
            BackendError: an execution provider is not there, or the warm-up failed.
        """
        backend = cls(_session(contents, source, options or OnnxOptions()), source)
        if expected is not None:
            backend._check_tensors("input", expected[0], backend.inputs)
            backend._check_tensors("output", expected[1], backend.outputs)
        backend._warm_up()
        return backend

    def run(self, inputs: Tensors) -> Tensors:
        """One inference; may be called from several threads.

        Raises:
            BackendError: the model failed, or is closed.
        """
        session = self._session
        if session is None:
            raise BackendError(f"{self._source} is closed")
        try:
            values = session.run(self._output_names, inputs)
        except _ORT_ERRORS as error:
            raise BackendError(f"{self._source} failed to run: {_one_line(error)}") from error
        return dict(zip(self._output_names, values, strict=True))

    def close(self) -> None:
        """Frees the model as soon as no inference uses it; safe to call twice."""
        self._session = None

    def _warm_up(self) -> None:
        """Runs batches of two and one, checks what comes out, and times the latter."""
        for batch in (2, 1):
            example = self._example(batch)
            outputs = self.run(example)
            for spec in self.outputs:
                shape = outputs[spec.name].shape
                wanted = (batch if spec.shape[:1] == (-1,) else None, *spec.shape[1:])
                if not _fits(shape, wanted):
                    raise ArtifactError(
                        f"{self._source}: {spec.name!r} has shape {list(shape)} for a batch of "
                        f"{batch}, where {list(spec.shape)} was announced"
                    )
        times: list[float] = []
        while len(times) < _TIMED_RUNS and sum(times) < _TIMING_BUDGET_S:
            start = time.perf_counter()
            self.run(example)
            times.append(time.perf_counter() - start)
        self.typical_ms = statistics.median(times) * 1e3

    def _example(self, batch: int) -> Tensors:
        """Zeros of every input; a free first axis is the batch, another free axis is 1."""
        example: Tensors = {}
        for spec in self.inputs:
            sizes = [1 if size < 0 else size for size in spec.shape]
            if spec.shape[:1] == (-1,):
                sizes[0] = batch
            example[spec.name] = np.zeros(sizes, dtype_of(spec.datatype))
        return example

    def _check_tensors(
        self, kind: str, expected: Sequence[TensorSpec], found: tuple[TensorSpec, ...]
    ) -> None:
        if tuple(expected) != found:
            raise ArtifactError(
                f"{self._source}: the manifest promises the {kind} {_listing(expected)}, "
                f"the model has {_listing(found)}"
            )


def load_member(
    model: ModelFolder, member_name: str, options: OnnxOptions | None = None
) -> OnnxBackend:
    """The backend of one member of a verified model folder.

    Raises:
        ArtifactError: the file is not what the manifest says, or this ONNX Runtime is too old.
        BackendError: an execution provider is not there, or the warm-up failed.
        KeyError: the manifest names no such member.
    """
    manifest = model.manifest
    file = {member.name: member.file for member in manifest.members}[member_name]
    if file is None:
        raise ArtifactError(f"the member {member_name!r} of {model.folder} is no file")
    oldest = manifest.min_runtime.get("onnxruntime", "0")
    if _version(ort.__version__) < _version(oldest):
        raise ArtifactError(
            f"{model.folder / file} needs onnxruntime {oldest} or newer, "
            f"this is {ort.__version__}; upgrade it, or use an older version of the model"
        )
    return OnnxBackend.load(
        model.read_verified(file),
        source=str(model.folder / file),
        expected=(manifest.inputs, manifest.outputs),
        options=options,
    )


def load_members(model: ModelFolder, options: OnnxOptions | None = None) -> tuple[OnnxBackend, ...]:
    """The backends of all members in the manifest's order.

    Raises:
        ArtifactError: a file is not what the manifest says.
        BackendError: an execution provider is not there, or a warm-up failed.
    """
    return tuple(load_member(model, member.name, options) for member in model.manifest.members)


def _session(contents: bytes, source: str, options: OnnxOptions) -> ort.InferenceSession:
    missing = set(options.providers) - set(ort.get_available_providers())
    if missing:
        raise BackendError(
            f"execution provider {', '.join(sorted(missing))} is not in this onnxruntime; "
            f"there are {', '.join(ort.get_available_providers())}"
        )
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.intra_op_threads
    settings.inter_op_num_threads = options.inter_op_threads
    # What goes wrong comes as an exception; the same text on stderr would only be noise.
    settings.log_severity_level = _LOG_FATAL_ONLY
    settings.add_session_config_entry("session.intra_op.allow_spinning", str(int(options.spin)))
    settings.add_session_config_entry("session.inter_op.allow_spinning", str(int(options.spin)))
    try:
        session = ort.InferenceSession(contents, settings, providers=list(options.providers))
    except _ORT_ERRORS as error:
        raise ArtifactError(
            f"{source} is not a model that ONNX Runtime can run: {_one_line(error)}"
        ) from error
    # Without its driver a provider is left out silently, and all runs on the CPU, ten times slower.
    unused = set(options.providers) - set(session.get_providers())
    if unused:
        raise BackendError(
            f"execution provider {', '.join(sorted(unused))} did not start; check its driver, "
            "or leave it out of the settings"
        )
    return session


def _spec(node: Any, source: str) -> TensorSpec:  # noqa: ANN401 - onnxruntime ships no types
    if node.type not in _DATATYPES:
        raise ArtifactError(f"{source}: {node.name!r} is a {node.type}, which is not served")
    shape = tuple(size if isinstance(size, int) else -1 for size in node.shape)
    return TensorSpec(node.name, _DATATYPES[node.type], shape)


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        size is None or size < 0 or size == found for found, size in zip(shape, wanted, strict=True)
    )


def _listing(specs: Iterable[TensorSpec]) -> str:
    return ", ".join(f"{spec.name} {spec.datatype}{list(spec.shape)}" for spec in specs)


def _version(text: str) -> tuple[int, ...]:
    """Leading numbers of a version; enough to compare releases."""
    numbers: list[int] = []
    for part in text.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
