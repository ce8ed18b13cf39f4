"""Corrections and feedback over HTTP: server-sent events, long poll, one POST."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from edge_agent.agent import Agent
from runtime.errors import MalformedBodyError, OverloadedError
from runtime.exchange.wire import check_request_id

# Who listens to events at a time; each holds a connection.
MAX_LISTENERS = 32
MAX_WAIT_S = 60.0
MAX_FEEDBACK_BYTES = 8192
HEARTBEAT_S = 15.0
_MAX_DIGITS = 18


class Feedback(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``POST /v2/feedback``."""

    request_id: str
    label: int | str | None = None
    is_correct: bool | None = None
    comment: str = ""


class CorrectionsApi:
    """Handlers over one agent."""

    def __init__(self, agent: Agent, *, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._agent, self._heartbeat_s = agent, heartbeat_s
        self._num_listeners = 0

    def add_to(self, app: web.Application) -> None:
        """Adds the routes."""
        app.router.add_get("/v2/corrections", self.events)
        app.router.add_get("/v2/corrections/{request_id:.+}", self.one)
        app.router.add_post("/v2/feedback", self.feedback)
        app.on_shutdown.append(self._on_shutdown)

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Corrections as server-sent events, from the last that the listener has on."""
        said = request.headers.get("Last-Event-ID") or request.query.get("after", "0")
        if not (said.isascii() and said.isdigit() and len(said) <= _MAX_DIGITS):
            raise MalformedBodyError(f"no number of an event: {said[:40]!r}")
        if self._num_listeners >= MAX_LISTENERS:
            raise OverloadedError(f"{MAX_LISTENERS} listen already", retry_after_ms=5000)
        self._num_listeners += 1
        try:
            return await self._stream(request, int(said))
        finally:
            self._num_listeners -= 1

    async def _stream(self, request: web.Request, after: int) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        )
        await response.prepare(request)
        # A comment at once, so that the listener knows that it is heard.
        await response.write(b": corrections\n\n")
        async for event in self._agent.desk.events(after, self._heartbeat_s):
            if event is None:
                await response.write(b": heartbeat\n\n")
                continue
            data = msgspec.json.encode(event)
            await response.write(b"id: %d\nevent: correction\ndata: %b\n\n" % (event.seq, data))
        return response

    async def one(self, request: web.Request) -> web.Response:
        """The correction of one request: 200 with it, 202 while it may come, 404, 410."""
        request_id = check_request_id(request.match_info["request_id"])
        known = await self._agent.desk.known(request_id, _wait_s(request))
        if known is None:
            return _json({"error": "no correction is to come for this request"}, status=404)
        if known.event is not None:
            return _json(known.event)
        if known.state == "dropped":
            return _json({"error": "the request was given up, see `tierwise outbox`"}, status=410)
        return _json({"request_id": request_id, "state": known.state}, status=202)

    async def feedback(self, request: web.Request) -> web.Response:
        """Keeps what is said about an answer."""
        if (request.content_length or 0) > MAX_FEEDBACK_BYTES:
            raise MalformedBodyError(f"feedback has at most {MAX_FEEDBACK_BYTES} bytes")
        try:
            said = msgspec.json.decode(await request.read(), type=Feedback)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise MalformedBodyError(f"no feedback: {str(error)[:200]}") from None
        receipt = await self._agent.feedback(
            said.request_id, label=said.label, is_correct=said.is_correct, comment=said.comment
        )
        return _json({"item": receipt.item, "is_known": receipt.is_known})

    async def _on_shutdown(self, _: web.Application) -> None:
        """Ends the streams, which would otherwise hold up the end of the server."""
        self._agent.desk.hang_up()


def _wait_s(request: web.Request) -> float:
    said = request.query.get("wait_s", "0")
    try:
        wait_s = float(said)
    except ValueError:
        wait_s = -1.0
    if not 0 <= wait_s < float("inf"):
        raise MalformedBodyError(f"wait_s is a number of seconds, not {said[:40]!r}")
    return min(wait_s, MAX_WAIT_S)


def _json(value: Any, status: int = 200) -> web.Response:  # noqa: ANN401 whatever msgspec takes
    return web.Response(
        body=msgspec.json.encode(value), content_type="application/json", status=status
    )
