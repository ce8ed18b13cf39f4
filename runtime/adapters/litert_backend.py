"""Runs TensorFlow Lite files with LiteRT (extra ``tflite``).

An interpreter is not re-entrant, so runs of one model take turns. It is made for one batch size;
the latest few are kept. A file of a fixed batch of one whose operators do not take another is run
row by row. ``ai-edge-litert`` verifies a file before it reads it: of some hundreds of truncated and
bit-flipped ones none crashed it. ``tflite-runtime`` does not, so another process tries each file
first. What is not to be trusted at all runs in a process of its own (``model.isolation``).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from runtime.adapters.artifacts import ModelFolder
from runtime.adapters.edges import Edge, Found, Promise, match
from runtime.adapters.engine_version import check_version
from runtime.adapters.litert_engine import (
    ENGINE_ERRORS,
    ON_CPU,
    XNNPACK,
    Interpreters,
    is_for_edge_tpu,
    open_interpreters,
)
from runtime.adapters.litert_names import named_details
from runtime.adapters.warm_up import warm_up
from runtime.core.providers import AUTO, EngineReport, Skipped
from runtime.core.quantization import Array
from runtime.errors import ArtifactError, BackendError, InvalidTensorError
from runtime.manifest import Quantization
from runtime.messages import Tensors, TensorSpec
from runtime.tensors import datatype_of, dtype_of

_RUN_ERRORS: tuple[type[Exception], ...] = (InvalidTensorError, *ENGINE_ERRORS)
_LOAD_ERRORS: tuple[type[Exception], ...] = (BackendError, *_RUN_ERRORS)
# Rows of a batch may differ from the same rows alone by rounding, integers by a step.
_ROW_TOLERANCE = 1e-3


class LiteRtBackend:
    """One TensorFlow Lite model in memory; implements ``runtime.ports.Backend``.

    ``typical_ms`` is the median time of one inference of batch size 1 at load.
    """

    def __init__(self, interpreters: Interpreters, source: str, promise: Promise | None) -> None:
        self._source = source
        self._interpreters: Interpreters | None = interpreters
        self._lock = threading.Lock()
        first = interpreters.new()
        inputs, outputs = named_details(first)
        self._edges = match(
            promise,
            [_found(name, one, source) for name, one in inputs.items()],
            [
                _found(name, one, source)
                for name, one in outputs.items()
                if promise is None or promise.wants(name)
            ],
            source,
            may_rename=True,
        )
        self._inputs = [(edge, int(inputs[edge.name]["index"])) for edge in self._edges.inputs]
        self._outputs = [(edge, int(outputs[edge.name]["index"])) for edge in self._edges.outputs]
        self._indices = tuple(index for _, index in self._inputs)
        self._is_free = all(
            tuple(inputs[edge.name]["shape_signature"])[:1] == edge.spec.shape[:1]
            for edge in self._edges.inputs
        )
        self._is_row_by_row = False
        self._is_bound = promise is not None and promise.is_bound
        self.inputs = tuple(edge.spec for edge in self._edges.inputs)
        self.outputs = tuple(edge.spec for edge in self._edges.outputs)
        self.report = EngineReport("litert", taken=interpreters.runs_on)
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
        threads: int = 1,
        delegate: str = AUTO,
    ) -> Self:
        """The model, warmed up and timed.

        Args:
            contents: a TensorFlow Lite file; bytes, so that what runs is what was verified.
            source: names the file in errors.
            expected: inputs and outputs that callers see, as its manifest says.
            quantization: what the manifest says of those that are integers in the file.
            promise: all of that at once.
            threads: of one inference.
            delegate: ``auto``, ``xnnpack``, ``none``, ``edgetpu``, or the path of a library; one
                that does not work is given up for the CPU.

        Raises:
            ArtifactError: not a model that LiteRT can run, or not the expected tensors.
        """
        if expected is not None:
            promise = Promise(*expected, quantization or {})
        interpreters, package, skipped = open_interpreters(contents, threads, delegate, source)
        report = EngineReport(
            f"{package.name} {package.version}", (delegate,), interpreters.runs_on, skipped
        )
        try:
            backend = cls._tried(interpreters, source, promise)
        except ArtifactError as error:
            if skipped and is_for_edge_tpu(contents):
                raise ArtifactError(
                    f"{error}; it was compiled for an Edge TPU, which is not here: {skipped[0].why}"
                ) from error
            if XNNPACK in interpreters.runs_on or is_for_edge_tpu(contents):
                raise
            report = EngineReport(
                report.engine,
                (delegate,),
                ON_CPU,
                (Skipped(interpreters.runs_on[0], str(error)),),
            )
            interpreters = Interpreters(package, contents, threads, "xnnpack")
            backend = cls._tried(interpreters, source, promise)
        backend.report = report
        return backend

    @classmethod
    def _tried(cls, interpreters: Interpreters, source: str, promise: Promise | None) -> Self:
        try:
            backend = cls(interpreters, source, promise)
            backend._warm_up()
        except _LOAD_ERRORS as error:
            raise ArtifactError(
                f"{source} is not a model that LiteRT can run here: {_one_line(error)}"
            ) from error
        return backend

    def run(self, inputs: Tensors) -> Tensors:
        """One inference; callers from several threads take turns.

        Raises:
            BackendError: the model failed, or is closed.
        """
        interpreters = self._interpreters
        if interpreters is None:
            raise BackendError(f"{self._source} is closed")
        try:
            batch = self._edges.check_shapes(inputs)
            tensors = self._edges.encode(inputs)
            with self._lock:
                found = self._invoke(interpreters, tensors, batch)
        except _RUN_ERRORS as error:
            raise BackendError(f"{self._source} failed to run: {_one_line(error)}") from error
        return self._edges.decode(found)

    def close(self) -> None:
        """Frees the model as soon as no inference uses it; safe to call twice."""
        self._interpreters = None

    def _invoke(self, interpreters: Interpreters, tensors: Tensors, batch: int) -> Tensors:
        if not self._is_row_by_row or batch == 1:
            return self._invoke_once(interpreters, tensors)
        free = {edge.name for edge, _ in self._inputs if edge.spec.shape[:1] == (-1,)}
        rows = [
            self._invoke_once(
                interpreters,
                {
                    name: one[row : row + 1] if name in free else one
                    for name, one in tensors.items()
                },
            )
            for row in range(batch)
        ]
        return {name: np.concatenate([one[name] for one in rows]) for name in rows[0]}

    def _invoke_once(self, interpreters: Interpreters, tensors: Tensors) -> Tensors:
        shapes = tuple(tensors[edge.name].shape for edge, _ in self._inputs)
        interpreter = interpreters.of(self._indices, shapes)
        for edge, index in self._inputs:
            interpreter.set_tensor(index, tensors[edge.name])
        interpreter.invoke()
        return {edge.name: interpreter.get_tensor(index) for edge, index in self._outputs}

    def _warm_up(self) -> None:
        if self._interpreters is not None and not self._is_free:
            self._is_row_by_row = not self._takes_two(self._interpreters)
        # Shapes of a bound file are checked by what it is bound to.
        outputs = () if self._is_bound else self.outputs
        self.typical_ms = warm_up(self.run, self.inputs, outputs, self._source)

    def _takes_two(self, interpreters: Interpreters) -> bool:
        """Whether a file for a batch of one answers two examples as it does each of them."""
        random = np.random.default_rng(0)
        pair = {edge.name: _noise(edge, random) for edge, _ in self._inputs}
        try:
            together = self._invoke_once(interpreters, pair)
        except ENGINE_ERRORS:
            return False
        self._is_row_by_row = True
        alone = self._invoke(interpreters, pair, 2)
        return all(
            together[name].shape == one.shape
            and np.allclose(
                together[name],
                one,
                rtol=_ROW_TOLERANCE,
                atol=1 if one.dtype.kind in "iu" else _ROW_TOLERANCE,
            )
            for name, one in alone.items()
        )


def load_member(
    model: ModelFolder, member_name: str, *, threads: int = 1, delegate: str = AUTO
) -> LiteRtBackend:
    """The backend of one member of a verified model folder.

    Raises:
        ArtifactError: the file is not what the manifest says, or LiteRT is missing or too old.
        KeyError: the manifest names no such member.
    """
    manifest = model.manifest
    member = {member.name: member for member in manifest.members}[member_name]
    file = member.file
    if file is None:
        raise ArtifactError(f"the member {member_name!r} of {model.folder} is no file")
    source = str(model.folder / file)
    backend = LiteRtBackend.load(
        model.read_verified(file),
        source=source,
        promise=Promise.of_member(manifest, member),
        threads=threads,
        delegate=delegate,
    )
    package, _, version = backend.report.engine.partition(" ")
    check_version(manifest, package, version, source)
    return backend


def _found(name: str, details: Any, source: str) -> Found:  # noqa: ANN401 - no types
    dtype = np.dtype(details["dtype"])
    try:
        datatype = datatype_of(np.empty(0, dtype))
    except InvalidTensorError as error:
        raise ArtifactError(f"{source}: {name!r} is a {dtype}, which is not served") from error
    shape = tuple(int(size) for size in details["shape_signature"])
    parameters = details["quantization_parameters"]
    scales, zero_points = parameters["scales"], parameters["zero_points"]
    quantization: Quantization | None = None
    if len(scales) > 1:
        raise ArtifactError(
            f"{source}: {name!r} has a scale for each of {len(scales)} slices of an axis; "
            "an input or output must have one for all"
        )
    if len(scales) and datatype in {"INT8", "UINT8", "INT16"}:
        try:
            quantization = Quantization(datatype, float(scales[0]), int(zero_points[0]))  # type: ignore[arg-type]
        except ValueError as error:
            raise ArtifactError(f"{source}: {name!r} cannot be quantized: {error}") from error
    return Found(TensorSpec(name, datatype, shape), quantization, is_resizable=True)


def _noise(edge: Edge, random: np.random.Generator) -> Array:
    sizes = [1 if size < 0 else size for size in edge.spec.shape]
    if edge.spec.shape[:1] == (-1,):
        sizes[0] = 2
    return edge.encode(random.random(sizes).astype(dtype_of(edge.spec.datatype)))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
