"""Rollouts over HTTP, on the port of the tier's operations.

    GET  /rollouts                    all, the newest first
    POST /rollouts                    ``StartRequest``: start one, or draft it
    GET  /rollouts/{id}               how it stands; ``?devices=1`` with all devices
    POST /rollouts/{id}/{command}     ``CommandRequest``: approve, pause, resume, abort, rollback,
                                      promote
    GET  /rollouts/{id}/history       the audit; ``?after=SEQ&limit=N``
    GET  /rollouts/{id}/events        server-sent events: ``audit``, ``status`` and at last ``end``
    GET  /rollout-devices             what each device has said last

Rules of this file:
  * errors are ``{"error": {"code", "message"}}``, and the message says what to do next;
  * what changes something is JSON by its content type, which no page of another site may send;
  * whoever watches and does not read is cut off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

from cloud_tier.rollouts.committing import AuditRow
from cloud_tier.rollouts.controller import Controller
from cloud_tier.rollouts.desk import Desk
from cloud_tier.rollouts.http_parts import json_response, number, read_body, told
from cloud_tier.rollouts.requests import CommandRequest, StartRequest
from cloud_tier.rollouts.views import ENDED, audit_line, device_line, status, summary
from runtime.errors import OverloadedError

MAX_WATCHERS = 64
MAX_LINES = 1000
_POLL_S, _KEEP_ALIVE_S, _WRITE_S = 2.0, 15.0, 30.0


class RolloutApi:
    """Adds the routes; ``check`` is asked about each request first, and raises to refuse it."""

    def __init__(
        self,
        controller: Controller,
        desk: Desk,
        check: Callable[[web.Request], None] = lambda _: None,
    ) -> None:
        self._controller, self._desk, self._check = controller, desk, check
        self._num_watchers = 0

    def add_routes(self, app: web.Application) -> None:
        """Serves them from this application."""
        add = app.router.add_route
        add("GET", "/rollouts", told(self._check, self._list))
        add("POST", "/rollouts", told(self._check, self._start))
        add("GET", "/rollout-devices", told(self._check, self._devices))
        add("GET", "/rollouts/{id}", told(self._check, self._show))
        add("GET", "/rollouts/{id}/history", told(self._check, self._history))
        add("GET", "/rollouts/{id}/events", told(self._check, self._events))
        add("POST", "/rollouts/{id}/{command}", told(self._check, self._command))

    async def _list(self, _: web.Request) -> web.Response:
        return json_response(
            {"rollouts": [summary(one) for one in await self._controller.store.all()]}
        )

    async def _devices(self, _: web.Request) -> web.Response:
        rows = await self._controller.register.devices()
        return json_response({"devices": [device_line(row) for row in rows]})

    async def _start(self, request: web.Request) -> web.Response:
        return json_response(
            status(await self._desk.start(await read_body(request, StartRequest))), 201
        )

    async def _show(self, request: web.Request) -> web.Response:
        kept = await self._controller.store.get(request.match_info["id"])
        return json_response(status(kept, with_devices=request.query.get("devices") == "1"))

    async def _command(self, request: web.Request) -> web.Response:
        asked = await read_body(request, CommandRequest)
        name = request.match_info["command"]
        return json_response(
            status(await self._desk.command(request.match_info["id"], name, asked))
        )

    async def _history(self, request: web.Request) -> web.Response:
        rollout_id = request.match_info["id"]
        after, limit = number(request, "after", 0), number(request, "limit", MAX_LINES)
        await self._controller.store.get(rollout_id)
        rows = await self._controller.store.history(rollout_id, after, min(limit, MAX_LINES))
        return json_response({"history": [audit_line(row) for row in rows]})

    async def _events(self, request: web.Request) -> web.StreamResponse:
        rollout_id = request.match_info["id"]
        await self._controller.store.get(rollout_id)
        after = number(request, "after", 0)
        said = request.headers.get("Last-Event-ID", "")
        if said.isascii() and said.isdigit() and len(said) < 16:  # noqa: PLR2004 digits of a number
            after = int(said)
        if self._num_watchers >= MAX_WATCHERS:
            raise OverloadedError(f"{MAX_WATCHERS} watch already; ask for the status instead")
        self._num_watchers += 1
        try:
            response = web.StreamResponse(
                headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
            )
            await response.prepare(request)
            await self._stream(rollout_id, after, response)
        except (TimeoutError, ConnectionError):
            # Whoever watched has gone, or does not read.
            pass
        finally:
            self._num_watchers -= 1
        return response

    async def _stream(self, rollout_id: str, after: int, response: web.StreamResponse) -> None:
        revision, silent_s = -1, 0.0
        while True:
            changed = self._controller.changed
            rows = await self._controller.store.history(rollout_id, after, MAX_LINES)
            for row in rows:
                await _write(response, _event("audit", audit_line(row), row))
                after = row.seq
            if len(rows) == MAX_LINES:
                continue
            kept = await self._controller.store.get(rollout_id)
            if kept.rollout.revision != revision:
                revision, silent_s = kept.rollout.revision, 0.0
                await _write(response, _event("status", status(kept)))
            if kept.rollout.phase in ENDED:
                await _write(response, _event("end", summary(kept)))
                return
            if silent_s >= _KEEP_ALIVE_S:
                silent_s = 0.0
                await _write(response, b": nothing new\n\n")
            silent_s += _POLL_S
            try:
                # Another process may change it, too, which tells nobody here.
                async with asyncio.timeout(_POLL_S):
                    await changed.wait()
            except TimeoutError:
                continue


def _event(name: str, value: dict[str, Any], row: AuditRow | None = None) -> bytes:
    head = f"id: {row.seq}\n" if row else ""
    return f"{head}event: {name}\ndata: ".encode() + msgspec.json.encode(value) + b"\n\n"


async def _write(response: web.StreamResponse, contents: bytes) -> None:
    async with asyncio.timeout(_WRITE_S):
        await response.write(contents)
