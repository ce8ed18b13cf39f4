"""Members that are servers: their manifest, their backends, and what servers say to them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from aiohttp import web

from fakes.models import WEIGHTS, manifest_of
from fakes.oip_servers import Handler
from runtime.adapters.oip_backend import OipBackend
from runtime.codec import HTTP_HEADER_LENGTH, decode_request, encode_response, parse_header_length
from runtime.manifest import Member, ModelManifest

EXAMPLE = np.array([[1, 2, 3]], np.float32)
LOGITS: Any = EXAMPLE @ WEIGHTS


_opened: list[OipBackend] = []


@contextmanager
def closing_members() -> Iterator[None]:
    """Ends the connections that a test has made."""
    yield
    for backend in _opened:
        backend.close()
    _opened.clear()


def manifest(url: str, **changes: Any) -> ModelManifest:
    return manifest_of({}, members=(Member("far", url=url, model="tiny"),), **changes)


def same(found: Any, expected: Any, atol: float = 1e-6) -> None:
    np.testing.assert_allclose(found, expected, atol=atol)


def opened(url: str, *, timeout_ms: float = 2000, **changes: Any) -> OipBackend:
    described = manifest(url, **changes)
    backend = OipBackend(described.members[0], described, run_timeout_ms=timeout_ms)
    _opened.append(backend)
    return backend


async def answer(request: web.Request) -> web.Response:
    """As a good server does, in the form that was asked for."""
    raw = await request.read()
    length = parse_header_length(request.headers.get(HTTP_HEADER_LENGTH, ""), len(raw))
    asked = decode_request(raw, length)
    found: Any = asked.inputs["x"]
    body, header_length = encode_response(
        {"logits": found @ WEIGHTS}, model_name="tiny", request=asked
    )
    headers = {} if header_length is None else {HTTP_HEADER_LENGTH: str(header_length)}
    return web.Response(body=body, headers=headers)


def saying(body: bytes, **options: Any) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=body, **options)

    return handle


def reply(data: Any = (5, 8), **changes: Any) -> bytes:
    output = {"name": "logits", "datatype": "FP32", "shape": [1, 2], "data": data} | changes
    return json.dumps({"model_name": "tiny", "outputs": [output]}).encode()
