"""Questions about telemetry over HTTP.

    GET /api/v1/metrics              the metrics, and by what each may be asked
    GET /api/v1/metrics/{name}       ``Report``; ``since``, ``until``, ``by``, ``where``, ``order``,
                                     ``limit``, ``cursor``
    GET /api/v1/openapi.json         OpenAPI 3.1 of these

Rules of this file:
  * errors are ``{"error": {"code", "message"}}``, and the message says what to do next;
  * few questions are answered at a time, each in a bounded time; more than wait are refused;
  * an answer has an ``ETag``; who has it already is told so without a body.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable

import msgspec
from aiohttp import web
from sqlalchemy import Engine

from cloud_tier.rollouts.http_parts import Check, json_response, told
from cloud_tier.telemetry.asking import DEFAULT_BY, DIMENSIONS, question
from cloud_tier.telemetry.bounded import Bounds
from cloud_tier.telemetry.limits import Retention
from cloud_tier.telemetry.openapi import description
from cloud_tier.telemetry.reading import answer
from runtime.errors import OverloadedError, RequestError

PREFIX = "/api/v1"
MAX_AT_ONCE, MAX_WAITING = 2, 32
_RETRY_AFTER_MS = 1000.0
_NOT_MODIFIED = 304


class MetricsApi:
    """Adds the routes; ``check`` is asked about each request first, and raises to refuse it."""

    def __init__(
        self,
        engine: Engine,
        retention: Retention,
        *,
        bounds: Bounds | None = None,
        wall_s: Callable[[], float] = time.time,
        check: Check = lambda _: None,
    ) -> None:
        self._engine, self._retention = engine, retention
        self._bounds, self._wall_s, self._check = bounds or Bounds(), wall_s, check
        self._turns = asyncio.Semaphore(MAX_AT_ONCE)
        self._num_waiting = 0

    def add_routes(self, app: web.Application) -> None:
        """Serves them from this application."""
        add = app.router.add_get
        add(f"{PREFIX}/metrics", told(self._check, self._list))
        add(f"{PREFIX}/metrics/{{name}}", told(self._check, self._answer))
        add(f"{PREFIX}/openapi.json", told(self._check, self._description))

    async def _list(self, _: web.Request) -> web.Response:
        return json_response(
            {
                "metrics": [
                    {"name": name, "by": list(known), "default_by": list(DEFAULT_BY[name])}
                    for name, known in DIMENSIONS.items()
                ]
            }
        )

    async def _description(self, _: web.Request) -> web.Response:
        return json_response(description())

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        twice = [name for name in request.query if len(request.query.getall(name)) > 1]
        if twice:
            raise RequestError(f"{twice[0][:40]} is there twice: join values with commas")
        now_s = self._wall_s()
        asked = question(
            request.match_info["name"], dict(request.query), now_s=now_s, retention=self._retention
        )
        if self._num_waiting >= MAX_WAITING:
            raise OverloadedError(
                f"{MAX_WAITING} questions wait already: ask again in a second",
                retry_after_ms=_RETRY_AFTER_MS,
            )
        self._num_waiting += 1
        try:
            async with self._turns:
                report = await asyncio.to_thread(
                    answer, self._engine, asked, now_s=now_s, bounds=self._bounds
                )
        finally:
            self._num_waiting -= 1
        body = msgspec.json.encode(report)
        tag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if tag in request.headers.get("If-None-Match", "").split(", "):
            return web.Response(status=_NOT_MODIFIED, headers=headers)
        return web.Response(body=body, content_type="application/json", headers=headers)
