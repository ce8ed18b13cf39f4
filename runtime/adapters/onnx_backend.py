"""Runs ONNX files with ONNX Runtime.

One call costs little more than ONNX Runtime's own: the session and the list of output names are
made once, arrays go in and out without a copy of ours, and what can be checked once is checked at
load.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from runtime.adapters.artifacts import ModelFolder
from runtime.adapters.edges import Edges, Found, Promise, match
from runtime.adapters.engine_version import check_version
from runtime.adapters.warm_up import warm_up
from runtime.core.providers import CPU, EngineReport, plan
from runtime.errors import ArtifactError, BackendError, InvalidTensorError
from runtime.manifest import Quantization
from runtime.messages import Tensors, TensorSpec

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
_RUN_ERRORS: tuple[type[Exception], ...] = (InvalidTensorError, *_ORT_ERRORS)
# ONNX Runtime's names of tensor types -> the Open Inference Protocol's.
DATATYPES = {
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
VERSION: str = ort.__version__
_ENGINE = f"onnxruntime {VERSION}"


@dataclass(frozen=True, slots=True)
class OnnxOptions:
    """How a session uses the machine.

    One thread is the fastest choice for models of about a millisecond, and leaves the other cores
    to other requests. ``spin`` lets idle threads burn a core to save some microseconds.
    ``providers`` are a wish in order, and ``preferred`` is what ``auto`` in it stands for
    (``runtime.core.providers``); the CPU is always there.
    """

    intra_op_threads: int = 1
    inter_op_threads: int = 1
    providers: tuple[str, ...] = (CPU,)
    spin: bool = False
    preferred: tuple[str, ...] = ()


class OnnxBackend:
    """One ONNX model in memory; implements ``runtime.ports.Backend``.

    ``typical_ms`` is the median time of one inference of batch size 1 at load, after the warm-up:
    callers run what takes a fraction of a millisecond inline and the rest in a thread.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        source: str,
        promise: Promise | None = None,
        report: EngineReport | None = None,
    ) -> None:
        self._session: ort.InferenceSession | None = session
        self._source = source
        inputs = [Found(_spec(node, source)) for node in session.get_inputs()]
        outputs = [
            Found(_spec(node, source))
            for node in session.get_outputs()
            if promise is None or promise.wants(node.name)
        ]
        edges = match(promise, inputs, outputs, source)
        self.inputs = tuple(edge.spec for edge in edges.inputs)
        self.outputs = tuple(edge.spec for edge in edges.outputs)
        self.report = report or EngineReport(_ENGINE, taken=tuple(session.get_providers()))
        # None in the usual case, which then costs one comparison.
        self._edges: Edges | None = None if edges.is_plain else edges
        self._is_bound = promise is not None and promise.is_bound
        self._output_names = [edge.name for edge in edges.outputs]
        self.typical_ms = 0.0

    @classmethod
    def load(
        cls,
        contents: bytes,
        *,
        source: str,
        expected: tuple[Sequence[TensorSpec], Sequence[TensorSpec]] | None = None,
        quantization: Mapping[str, Quantization] | None = None,
        promise: Promise | None = None,
        options: OnnxOptions | None = None,
    ) -> Self:
        """The model, warmed up and timed.

        Args:
            contents: an ONNX file; bytes, so that what runs is what was verified.
            source: names the file in errors.
            expected: inputs and outputs that callers see, as its manifest says.
            quantization: those of them that are integers in the file.
            promise: all of that at once.
            options: threads and execution providers.

        Raises:
            ArtifactError: not a model that ONNX Runtime can run, or not the expected tensors.
            BackendError: the warm-up failed, on the CPU too.
        """
        options = options or OnnxOptions()
        if expected is not None:
            promise = Promise(*expected, quantization or {})
        session, report = _session(contents, source, options)
        backend = cls(session, source, promise, report)
        try:
            backend._warm_up()
        except BackendError as error:
            if backend.report.taken == (CPU,):
                raise
            session, _ = _session(contents, source, _on_cpu(options))
            report = backend.report.without(backend.report.taken[0], _one_line(error))
            backend = cls(session, source, promise, report)
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
        if self._edges is not None:
            return self._run_converted(session, self._edges, inputs)
        try:
            values = session.run(self._output_names, inputs)
        except _ORT_ERRORS as error:
            raise BackendError(f"{self._source} failed to run: {_one_line(error)}") from error
        return dict(zip(self._output_names, values, strict=True))

    def close(self) -> None:
        """Frees the model as soon as no inference uses it; safe to call twice."""
        self._session = None

    def _run_converted(
        self, session: ort.InferenceSession, edges: Edges, inputs: Tensors
    ) -> Tensors:
        try:
            values = session.run(self._output_names, edges.encode(inputs))
        except _RUN_ERRORS as error:
            raise BackendError(f"{self._source} failed to run: {_one_line(error)}") from error
        return edges.decode(dict(zip(self._output_names, values, strict=True)))

    def _warm_up(self) -> None:
        # Shapes of a bound file are checked by what it is bound to.
        outputs = () if self._is_bound else self.outputs
        self.typical_ms = warm_up(self.run, self.inputs, outputs, self._source)


def load_member(
    model: ModelFolder, member_name: str, options: OnnxOptions | None = None
) -> OnnxBackend:
    """The backend of one member of a verified model folder.

    Raises:
        ArtifactError: the file is not what the manifest says, or this ONNX Runtime is too old.
        BackendError: the warm-up failed.
        KeyError: the manifest names no such member.
    """
    manifest = model.manifest
    member = {member.name: member for member in manifest.members}[member_name]
    file = member.file
    if file is None:
        raise ArtifactError(f"the member {member_name!r} of {model.folder} is no file")
    check_version(manifest, "onnxruntime", ort.__version__, str(model.folder / file))
    return OnnxBackend.load(
        model.read_verified(file),
        source=str(model.folder / file),
        promise=Promise.of_member(manifest, member),
        options=options,
    )


def load_members(model: ModelFolder, options: OnnxOptions | None = None) -> tuple[OnnxBackend, ...]:
    """The backends of all members in the manifest's order, all of them ONNX files.

    Raises:
        ArtifactError: a file is not what the manifest says, or a member is none.
        BackendError: a warm-up failed.
    """
    return tuple(load_member(model, member.name, options) for member in model.manifest.members)


def open_session(contents: bytes, source: str) -> tuple[ort.InferenceSession, EngineReport]:
    """A session on the CPU, for those who want to look at a file.

    Raises:
        ArtifactError: not a model that ONNX Runtime can run.
    """
    return _session(contents, source, OnnxOptions())


def _on_cpu(options: OnnxOptions) -> OnnxOptions:
    return replace(options, providers=(CPU,))


def _session(
    contents: bytes, source: str, options: OnnxOptions
) -> tuple[ort.InferenceSession, EngineReport]:
    """The session, and on what it runs; a provider that does not work is given up for the CPU."""
    providers, skipped = plan(options.providers, ort.get_available_providers(), options.preferred)
    report = EngineReport(_ENGINE, options.providers, providers, skipped)
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.intra_op_threads
    settings.inter_op_num_threads = options.inter_op_threads
    # What goes wrong comes as an exception; the same text on stderr would only be noise.
    settings.log_severity_level = _LOG_FATAL_ONLY
    settings.add_session_config_entry("session.intra_op.allow_spinning", str(int(options.spin)))
    settings.add_session_config_entry("session.inter_op.allow_spinning", str(int(options.spin)))
    try:
        session = ort.InferenceSession(contents, settings, providers=list(providers))
    except _ORT_ERRORS as error:
        if providers != (CPU,):
            session, _ = _session(contents, source, _on_cpu(options))
            for name in providers[:-1]:
                report = report.without(name, _one_line(error))
            return session, report
        raise ArtifactError(
            f"{source} is not a model that ONNX Runtime can run: {_one_line(error)}"
        ) from error
    # Without its driver a provider is left out silently, and all runs on the CPU, ten times slower.
    for name in providers[:-1]:
        if name not in session.get_providers():
            report = report.without(name, "it did not start; check its driver")
    return session, report


def _spec(node: Any, source: str) -> TensorSpec:  # noqa: ANN401 - onnxruntime ships no types
    if node.type not in DATATYPES:
        raise ArtifactError(f"{source}: {node.name!r} is a {node.type}, which is not served")
    shape = tuple(size if isinstance(size, int) else -1 for size in node.shape)
    return TensorSpec(node.name, DATATYPES[node.type], shape)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
