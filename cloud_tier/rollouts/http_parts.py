"""What the HTTP services of rollouts and of experiments share: bodies, numbers, errors."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from cloud_tier.rollouts.requests import MAX_BODY_BYTES
from runtime.errors import OverloadedError, RequestError, TierwiseError, public

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
# Asked about each request first; raises to refuse it.
Check = Callable[[web.Request], None]
_JSON = "application/json"
# Whoever wants to know what a handler has read from the body of its request puts a list here.
ASKED: ContextVar[list[object]] = ContextVar("asked")


def told(check: Check, handler: Handler) -> Handler:
    """A handler behind a check, whose errors become responses."""

    async def handled(request: web.Request) -> web.StreamResponse:
        try:
            check(request)
            return await handler(request)
        except TierwiseError as error:
            return error_response(error)

    return handled


async def read_body(request: web.Request, kind: type[T]) -> T:
    """The JSON of a request.

    Raises:
        RequestError: it is none, or not of that kind.
    """
    if request.content_type != _JSON:
        raise RequestError(f"send {_JSON} (Content-Type), not {request.content_type[:60]}")
    contents = await request.content.read(MAX_BODY_BYTES + 1)
    while len(contents) <= MAX_BODY_BYTES and (more := await request.content.read(MAX_BODY_BYTES)):
        contents += more
    if len(contents) > MAX_BODY_BYTES:
        raise RequestError(f"a request has at most {MAX_BODY_BYTES} bytes")
    try:
        found = msgspec.json.decode(contents, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"the request is not understood: {error}") from error
    ASKED.get([]).append(found)
    return found


def number(request: web.Request, name: str, default: int) -> int:
    """A whole number of the query.

    Raises:
        RequestError: it is none.
    """
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 16):  # noqa: PLR2004 as above
        raise RequestError(f"{name} is a whole number, not {text[:40]!r}")
    return int(text)


def json_response(value: Any, status_code: int = 200) -> web.Response:  # noqa: ANN401 - any JSON
    """A JSON response."""
    return web.Response(body=msgspec.json.encode(value), status=status_code, content_type=_JSON)


def error_response(error: TierwiseError) -> web.Response:
    """What an error is to whoever asked."""
    said = {"error": {"code": error.code, "message": str(error)}}
    response = json_response(said, public(error.code).http_status)
    if isinstance(error, OverloadedError):
        response.headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_ms / 1000)))
    return response
