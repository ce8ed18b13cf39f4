"""Questions about telemetry over HTTP.

    GET /api/v1/metrics              the metrics, and by what each may be asked
    GET /api/v1/metrics/{name}       ``Report``; ``since``, ``until``, ``by``, ``where``, ``order``,
                                     ``limit``, ``cursor``
    GET /api/v1/openapi.json         OpenAPI 3.1 of these

Rules of this file:
  * errors are ``{"error": {"code", "message"}}``, and the message says what to do next;
  * few questions are answered at a time, each in a bounded time; more than wait are refused;
  * an answer is given again for a second (``answering``);
  * an answer has an ``ETag``; who has it already is told so without a body.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from aiohttp import web
from sqlalchemy import Engine

from cloud_tier.rollouts.http_parts import Check, json_response, told
from cloud_tier.telemetry.answering import FRESH_S, Answers
from cloud_tier.telemetry.asking import DEFAULT_BY, DIMENSIONS, Question, question
from cloud_tier.telemetry.bounded import Bounds
from cloud_tier.telemetry.limits import Retention
from cloud_tier.telemetry.openapi import description
from cloud_tier.telemetry.reading import answer
from cloud_tier.telemetry.rows import Report, Row
from runtime.errors import RequestError

PREFIX = "/api/v1"
_NOT_MODIFIED = 304


def answers_of(
    engine: Engine, bounds: Bounds | None = None, *, fresh_s: float = FRESH_S
) -> Answers:
    """Answers out of a database, each within the bounds of one question."""
    within = bounds or Bounds()

    def read(asked: Question, now_s: float) -> Report[Row]:
        return answer(engine, asked, now_s=now_s, bounds=within)

    return Answers(read, fresh_s=fresh_s)


class MetricsApi:
    """Adds the routes; ``check`` is asked about each request first, and raises to refuse it.

    With ``answers``, whoever made these ends them.
    """

    def __init__(
        self,
        engine: Engine,
        retention: Retention,
        *,
        bounds: Bounds | None = None,
        wall_s: Callable[[], float] = time.time,
        check: Check = lambda _: None,
        fresh_s: float = FRESH_S,
        answers: Answers | None = None,
    ) -> None:
        self._retention, self._wall_s, self._check = retention, wall_s, check
        self._is_shared = answers is not None
        self._answers = answers or answers_of(engine, bounds, fresh_s=fresh_s)

    def add_routes(self, app: web.Application) -> None:
        """Serves them from this application."""
        add = app.router.add_get
        if not self._is_shared:
            app.on_cleanup.append(self._end)
        add(f"{PREFIX}/metrics", told(self._check, self._list))
        add(f"{PREFIX}/metrics/{{name}}", told(self._check, self._answer))
        add(f"{PREFIX}/openapi.json", told(self._check, self._description))

    async def _end(self, _: web.Application) -> None:
        await self._answers.close()

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
        body, tag = await self._answers.answer(asked, now_s)
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if tag in request.headers.get("If-None-Match", "").split(", "):
            return web.Response(status=_NOT_MODIFIED, headers=headers)
        return web.Response(body=body, content_type="application/json", headers=headers)
