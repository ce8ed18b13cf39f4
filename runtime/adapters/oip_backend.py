"""Asks anyone's Open Inference Protocol v2 server over HTTP: a member of a model that is no file.

Rules of this file:
  * a server that is away, at the start too, fails its runs and nothing else: the member's breaker
    leaves it out until it answers;
  * whatever comes back is checked against the manifest before it counts as an answer;
  * tensors travel as raw bytes where the server has that extension, else as JSON.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from typing import TypeVar

import msgspec
import structlog

from runtime.adapters.artifacts import ModelFolder
from runtime.adapters.edges import Edges, Found, Promise, match
from runtime.adapters.oip_answers import OK, described, read_answer
from runtime.adapters.oip_http import HttpServer, Reply
from runtime.adapters.warm_up import example
from runtime.codec import HTTP_HEADER_LENGTH, encode_request
from runtime.core.providers import SERVER, EngineReport, Skipped
from runtime.errors import ArtifactError, BackendError, RequestError
from runtime.manifest import Member, ModelManifest
from runtime.messages import Tensors, TensorSpec

# A run gets this much of what its examples usually take, on top of the time that is set.
PATIENCE = 20.0
# What a run is taken to last while nothing was ever measured.
UNKNOWN_MS = 20.0
MAX_METADATA_BYTES = 1 << 20
# Whatever the manifest's free axes would allow.
MAX_ANSWER_BYTES = 64 << 20
_BINARY_EXTENSION = "binary_tensor_data"
# Of one number as JSON writes it, and of everything around the numbers.
_JSON_BYTES = 32
_HEADER_BYTES = 1 << 16
_NOT_FOUND = 404
# What servers say to bodies that they do not understand.
_OTHER_FORM = (400, 415, 422)
_Kind = TypeVar("_Kind", bound=msgspec.Struct)
_log = structlog.get_logger()


class _Tensor(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int] = []


class _ModelMetadata(msgspec.Struct):
    inputs: list[_Tensor] = []
    outputs: list[_Tensor] = []


class _ServerMetadata(msgspec.Struct):
    name: str = ""
    version: str = ""
    extensions: list[str] = []


class OipBackend:
    """A model on a server; implements ``runtime.ports.Backend``.

    ``typical_ms`` is what a run took at load, or a guess where there was no answer.
    """

    def __init__(
        self, member: Member, manifest: ModelManifest, *, run_timeout_ms: float = 500.0
    ) -> None:
        """Looks at the server, and goes on without it when it does not answer.

        Raises:
            ArtifactError: it has a model of other tensors than the manifest.
        """
        self._member, self._promise = member, Promise.of(manifest)
        self._server = HttpServer(member.url)
        version = f"/versions/{member.version}" if member.version else ""
        self._path = f"/v2/models/{member.model}{version}"
        self._source = f"{member.url.rstrip('/')}{self._path}"
        self._run_timeout_ms = run_timeout_ms
        self._edges: Edges | None = None
        self._is_binary = True
        self._is_form_known = False
        self._is_closed = False
        self._lock = threading.Lock()
        self.inputs: tuple[TensorSpec, ...] = manifest.inputs
        self.outputs: tuple[TensorSpec, ...] = manifest.outputs
        self.typical_ms = UNKNOWN_MS
        self.report = EngineReport("oip", (self._source,), (SERVER,))
        try:
            inputs = example(self.inputs, 1)
            self.run(inputs)
            start_s = time.monotonic()
            self.run(inputs)
            self.typical_ms = (time.monotonic() - start_s) * 1e3
        except BackendError as error:
            if isinstance(error.__cause__, ArtifactError):
                self.close()
                raise error.__cause__ from None
            self.report = EngineReport(
                "oip", (self._source,), skipped=(Skipped(self._source, str(error)),)
            )
            _log.warning(
                "member.away",
                member=member.name,
                error=str(error),
                remedy="it is left out until it answers; look at that server, or at `url` and "
                "`model` in the manifest",
            )

    def run(self, inputs: Tensors) -> Tensors:
        """One inference there.

        Raises:
            BackendError: the server is away, late, or gave no answer of this model.
        """
        if self._is_closed:
            raise BackendError(f"{self._source} is closed")
        until_s = time.monotonic() + self._timeout_s(inputs)
        edges = self._edges or self._look(until_s)
        try:
            batch = edges.check_shapes(inputs)
            tensors = edges.encode(inputs)
        except RequestError as error:
            raise BackendError(f"{self._source} cannot take this: {error}") from error
        reply = self._ask(edges, tensors, batch, until_s)
        return read_answer(edges, reply, batch, self._source)

    def close(self) -> None:
        """Ends the connections; safe to call twice."""
        self._is_closed = True
        self._server.close()

    def _timeout_s(self, inputs: Tensors) -> float:
        first = next(iter(inputs.values()), None)
        batch = first.shape[0] if first is not None and first.shape else 1
        return (self._run_timeout_ms + PATIENCE * self.typical_ms * max(1, batch)) / 1000

    def _ask(self, edges: Edges, tensors: Tensors, batch: int, until_s: float) -> Reply:
        reply = self._post(edges, tensors, batch, until_s, binary=self._is_binary)
        if reply.status in _OTHER_FORM and not self._is_form_known:
            other = self._post(edges, tensors, batch, until_s, binary=not self._is_binary)
            if other.status == OK:
                self._is_binary = not self._is_binary
                reply = other
        self._is_form_known = self._is_form_known or reply.status == OK
        return reply

    def _post(
        self, edges: Edges, tensors: Tensors, batch: int, until_s: float, *, binary: bool
    ) -> Reply:
        try:
            body, length = encode_request(
                tensors, outputs=[edge.name for edge in edges.outputs], binary=binary
            )
        except RequestError as error:
            raise BackendError(f"{self._source} cannot take this: {error}") from error
        headers = {"Content-Type": "application/json"}
        if binary:
            headers = {
                "Content-Type": "application/octet-stream",
                HTTP_HEADER_LENGTH: str(length),
            }
        return self._server.ask(
            f"{self._path}/infer",
            until_s=until_s,
            max_bytes=min(
                MAX_ANSWER_BYTES, _HEADER_BYTES + _JSON_BYTES * _num_elements(edges, batch)
            ),
            body=body,
            headers=headers,
        )

    def _look(self, until_s: float) -> Edges:
        """Compares the model there with the manifest, once it can be asked.

        Raises:
            BackendError: it cannot, or they differ.
        """
        with self._lock:
            if self._edges is None:
                server = self._metadata("/v2", _ServerMetadata, until_s)
                self._is_binary = _BINARY_EXTENSION in server.extensions
                model = self._metadata(self._path, _ModelMetadata, until_s)
                try:
                    self._edges = match(
                        self._promise,
                        _found(model.inputs, self._promise.inputs),
                        _found(model.outputs, self._promise.outputs),
                        self._source,
                    )
                except ArtifactError as error:
                    raise BackendError(str(error)) from error
                engine = f"oip {server.name} {server.version}".strip()[:100]
                self.report = EngineReport(engine, (self._source,), (SERVER,))
            return self._edges

    def _metadata(self, path: str, kind: type[_Kind], until_s: float) -> _Kind:
        reply = self._server.ask(path, until_s=until_s, max_bytes=MAX_METADATA_BYTES)
        if reply.status == _NOT_FOUND:
            raise BackendError(
                f"{self._member.url} has no {path}; look whether the model "
                f"{self._member.model!r} is loaded there"
            )
        if reply.status != OK:
            raise BackendError(f"{self._member.url}{path} answered {described(reply)}")
        try:
            return msgspec.json.decode(reply.body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BackendError(
                f"{self._member.url}{path} says nothing of the Open Inference Protocol "
                f"({error}); look what answers there: {described(reply)}"
            ) from error


def load_member(
    model: ModelFolder, member_name: str, *, run_timeout_ms: float = 500.0
) -> OipBackend:
    """The backend of a member that is a server.

    Raises:
        ArtifactError: it has a model of other tensors than the manifest.
        KeyError: the manifest names no such member.
    """
    member = {member.name: member for member in model.manifest.members}[member_name]
    return OipBackend(member, model.manifest, run_timeout_ms=run_timeout_ms)


def _found(there: list[_Tensor], promised: Sequence[TensorSpec]) -> list[Found]:
    """What a server has of what was promised; one that says nothing is taken at its word.

    Servers have more outputs than are wanted, and -1 where any size will do.
    """
    specs = {spec.name: spec for spec in promised}
    if not there:
        return [Found(spec) for spec in promised]
    found = []
    for one in there:
        spec = specs.get(one.name)
        shape = tuple(one.shape)
        if spec is None:
            continue
        if len(shape) == len(spec.shape) and all(
            size in {-1, wanted} for size, wanted in zip(shape, spec.shape, strict=True)
        ):
            shape = spec.shape
        found.append(Found(TensorSpec(one.name, one.datatype, shape)))
    return found


def _num_elements(edges: Edges, batch: int) -> int:
    """How many numbers an answer has, at least; a free axis beside the batch counts a thousand."""
    free = 1000
    return sum(
        batch * math.prod(free if size < 0 else size for size in edge.spec.shape[1:])
        for edge in edges.outputs
    )
