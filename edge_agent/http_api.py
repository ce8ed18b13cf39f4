"""The Open Inference Protocol v2 over HTTP, JSON and binary, as its neutral clients speak it.

Requests carry no dependable Content-Type, so the header-length header alone tells JSON from binary.
Errors are ``{"error": text}`` with the status of the error catalogue.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from edge_agent.agent import Agent
from edge_agent.corrections_api import CorrectionsApi
from runtime.adapters.dial import is_loopback
from runtime.adapters.http_server import errors_as_json, operations_app
from runtime.codec import (
    HTTP_HEADER_LENGTH,
    Parameters,
    RequestBody,
    decode_request,
    encode_error,
    encode_response,
    parse_header_length,
)
from runtime.errors import (
    BackendError,
    InvalidBudgetError,
    InvalidTensorError,
    MalformedBodyError,
    PayloadTooLargeError,
    UnknownModelError,
    public,
)
from runtime.exchange.context import parse_context
from runtime.exchange.wire import (
    answer_parameters,
    check_priority,
    check_request_id,
    parse_residency,
    parse_traceparent,
)
from runtime.manifest import ModelManifest
from runtime.messages import Answer, InferenceRequest, Outcome, TensorSpec
from runtime.updating.http_api import UpdatesApi
from runtime.version import software

MAX_STATED = 1e15
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_TRITON_TYPES = {"BOOL": "TYPE_BOOL", "BYTES": "TYPE_STRING"}


class InferenceApi:
    """Handlers over one agent."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def app(self) -> web.Application:
        """All routes of an agent, with health and metrics."""
        app = operations_app(
            self._agent.metrics,
            lambda: True,
            max_body_bytes=self._agent.settings.request.max_body_bytes,
            control=self._agent.control,
        )
        app.middlewares.append(errors_as_json)
        app.router.add_get("/v2", self.server_metadata)
        app.router.add_post("/v2/repository/index", self.repository_index)
        for base in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            app.router.add_get(base, self.model_metadata)
            app.router.add_get(f"{base}/ready", self.model_ready)
            app.router.add_get(f"{base}/config", self.model_config)
            app.router.add_post(f"{base}/infer", self.infer)
        CorrectionsApi(self._agent).add_to(app)
        if self._agent.updater is not None:
            host = self._agent.settings.http.host
            UpdatesApi(self._agent.updater).add_to(app, may_roll_back=is_loopback(host))
        return app

    async def server_metadata(self, _: web.Request) -> web.Response:
        """Name and extensions of this server."""
        return _json(
            {
                "name": "tierwise",
                "version": software(),
                "extensions": ["binary_tensor_data", "model_configuration", "model_repository"],
            }
        )

    async def repository_index(self, _: web.Request) -> web.Response:
        """The served models."""
        manifests = [served.model.manifest for served in self._agent.serving.loaded]
        return _json(
            [
                {"name": one.name, "version": one.version, "state": "READY", "reason": ""}
                for one in manifests
            ]
        )

    async def model_metadata(self, request: web.Request) -> web.Response:
        """Inputs and outputs of a model."""
        manifest = self._check_served(request)
        loaded = self._agent.serving.loaded
        return _json(
            {
                "name": manifest.name,
                "versions": [served.model.manifest.version for served in loaded],
                "platform": "onnxruntime_onnx",
                "inputs": [_described(spec) for spec in manifest.inputs],
                "outputs": [_described(spec) for spec in manifest.outputs],
            }
        )

    async def model_config(self, request: web.Request) -> web.Response:
        """The model configuration extension: the batch axis is left out of the dimensions."""
        manifest = self._check_served(request)
        return _json(
            {
                "name": manifest.name,
                "platform": "onnxruntime_onnx",
                "max_batch_size": 1024,
                "input": [_configured(spec) for spec in manifest.inputs],
                "output": [_configured(spec) for spec in manifest.outputs],
            }
        )

    async def model_ready(self, request: web.Request) -> web.Response:
        """200 when the model answers."""
        self._check_served(request)
        return web.Response()

    async def infer(self, request: web.Request) -> web.Response:
        """One inference."""
        arrived_s = self._agent.now_s()
        with self._agent.counting():
            self._check_served(request)
            body = await self._read(request)
            answer = await self._agent.answer(
                InferenceRequest(
                    request_id=check_request_id(body.id or self._agent.new_request_id()),
                    model_name=request.match_info["model"],
                    model_version=request.match_info.get("version", ""),
                    inputs=body.inputs,
                    outputs=body.outputs,
                    remaining_ms=self._budget_ms(body.parameters),
                    residency=parse_residency(body.parameters.get("residency", "cloud")),
                    priority=check_priority(body.parameters.get("priority", 0)),
                    traceparent=parse_traceparent(request.headers.get("traceparent", "")),
                    explain=_parse_explain(body.parameters.get("explain", False)),
                    context=parse_context(body.parameters),
                ),
                arrived_s=arrived_s,
            )
        return _respond(answer, body)

    async def _read(self, request: web.Request) -> RequestBody:
        limit = self._agent.settings.request.max_body_bytes
        try:
            raw = await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise PayloadTooLargeError(f"the body is over the limit of {limit} bytes") from None
        except web.RequestPayloadError as error:
            raise MalformedBodyError(f"the body cannot be read: {str(error)[:100]}") from None
        header_length = parse_header_length(request.headers.get(HTTP_HEADER_LENGTH, ""), len(raw))
        return decode_request(raw, header_length, max_bytes=limit)

    def _budget_ms(self, parameters: Parameters) -> float:
        """``remaining_ms``, else Triton's ``timeout`` in microseconds, else the default."""
        if "remaining_ms" in parameters:
            stated = parameters["remaining_ms"]
        elif "timeout" in parameters:
            stated = parameters["timeout"]
            if isinstance(stated, int | float) and not isinstance(stated, bool):
                # Only then: an integer too large for a float is as unusable in milliseconds.
                stated = stated / 1000 if abs(stated) < MAX_STATED else stated
        else:
            return self._agent.settings.request.default_budget_ms
        if isinstance(stated, bool) or not isinstance(stated, int | float):
            raise InvalidBudgetError(f"the budget must be a number, not {str(stated)[:40]!r}")
        # Checked against the limits by the agent, where an integer of any size is welcome.
        return stated

    def _check_served(self, request: web.Request) -> ModelManifest:
        """The model that is meant: where two releases answer, both are served."""
        manifests = [served.model.manifest for served in self._agent.serving.loaded]
        name = request.match_info["model"]
        version = request.match_info.get("version", manifests[0].version)
        for manifest in manifests:
            if (name, version) == (manifest.name, manifest.version):
                return manifest
        served = " and ".join(f"{one.name!r} version {one.version!r}" for one in manifests)
        raise UnknownModelError(f"served here is {served}")


def _parse_explain(value: object) -> bool:
    if not isinstance(value, bool):
        raise MalformedBodyError(f"explain is true or false, not {str(value)[:40]!r}")
    return value


def _respond(answer: Answer, body: RequestBody) -> web.Response:
    if answer.outcome is Outcome.FAILED:
        shown = public(answer.error_code)
        return web.Response(
            status=shown.http_status,
            body=encode_error(f"{shown.text} ({answer.reason.value})"),
            content_type="application/json",
        )
    try:
        payload, header_length = encode_response(
            answer.outputs,
            model_name=answer.model_name,
            model_version=answer.model_version,
            request_id=answer.request_id,
            parameters=_parameters(answer),
            request=body,
        )
    except InvalidTensorError as error:
        # The caller is not to blame for an output that JSON cannot carry.
        raise BackendError(str(error)) from error
    if header_length is None:
        return web.Response(body=payload, content_type="application/json")
    return web.Response(
        body=payload,
        content_type="application/octet-stream",
        headers={HTTP_HEADER_LENGTH: str(header_length)},
    )


def _parameters(answer: Answer) -> Parameters:
    said = answer_parameters(answer)
    return {**said, "explanation": answer.explanation} if answer.explanation else said


def _json(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


def _described(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _configured(spec: TensorSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "data_type": _TRITON_TYPES.get(spec.datatype, f"TYPE_{spec.datatype}"),
        "dims": list(spec.shape[1:]),
    }
