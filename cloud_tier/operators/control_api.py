"""Stops and overrides over HTTP, and the audit of what was changed over this port.

GET    /api/v1/control             what is stopped or overridden, by region
POST   /api/v1/control/kill        ``KillRequest``
POST   /api/v1/control/resume      ``ResumeRequest``
POST   /api/v1/overrides           ``OverrideRequest``
DELETE /api/v1/overrides/{id}      ``?region=&why=&by=``
GET    /api/v1/audit               who, what, when, why; ``cursor``, ``limit``
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Annotated, Any

import msgspec
from aiohttp import web

from cloud_tier.operators.access import COOKIE, Door
from cloud_tier.operators.audit import AuditLog, audit_line
from cloud_tier.operators.control_desk import ControlDesk, Wanted
from cloud_tier.operators.pages_of import limit_of
from cloud_tier.rollouts.http_parts import ASKED, Handler, json_response, number, read_body, told
from cloud_tier.rollouts.requests import Who, Words
from runtime.core.control import told as in_words
from runtime.core.control import with_stop, without_stops
from runtime.core.overrides import notice_of, with_override, without_overrides
from runtime.errors import RequestError
from runtime.messages import (
    ControlState,
    Override,
    OverrideKind,
    Stop,
    StopMode,
    StopScope,
    Tier,
)
from runtime.ports import Clock

OPERATOR = "operator"
_MAX_STATED = 256
_Target = Annotated[str, msgspec.Meta(max_length=128)]


class _Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every change says; ``region`` empty is the cloud's own."""

    why: Words
    by: Who = OPERATOR
    region: str = ""


class KillRequest(_Request, frozen=True, kw_only=True):
    """What is to stop; as ``Stop`` has it."""

    scope: StopScope
    mode: StopMode
    target: _Target = ""


class ResumeRequest(_Request, frozen=True, kw_only=True):
    """The stop that is to end: that of a scope and target, or ``everything``."""

    scope: StopScope = StopScope.ALL
    target: _Target = ""
    everything: bool = False


class OverrideRequest(_Request, frozen=True, kw_only=True):
    """What is to be otherwise; as ``Override`` has it."""

    kind: OverrideKind
    scope: StopScope
    lasts_s: float
    id: str = ""
    target: _Target = ""
    labels: list[str] = []
    answer: str = ""
    tier: str = ""
    amount: float = 0.0
    below: float = 1.0
    context: dict[str, str | float | bool] = {}


class ControlApi:
    """Adds the routes; every change that was made is audited."""

    def __init__(self, desk: ControlDesk, audit: AuditLog, clock: Clock) -> None:
        self._desk, self._audit, self._clock = desk, audit, clock

    def add_routes(self, app: web.Application, door: Door) -> None:
        """Serves them to those whom the door lets pass."""
        app.middlewares.append(self._keep_commands)
        for method, path, handler in (
            ("GET", "/api/v1/control", self._show),
            ("POST", "/api/v1/control/kill", self._kill),
            ("POST", "/api/v1/control/resume", self._resume),
            ("POST", "/api/v1/overrides", self._override),
            ("DELETE", "/api/v1/overrides/{id}", self._remove),
            ("GET", "/api/v1/audit", self._show_audit),
        ):
            app.router.add_route(method, path, told(door.check, handler))

    async def _show(self, _: web.Request) -> web.Response:
        return json_response(self._desk.shown())

    async def _kill(self, request: web.Request) -> web.Response:
        asked = await read_body(request, KillRequest)
        _check_target(asked.scope, asked.target)
        made: list[Stop] = []

        def make(before: ControlState | None, sequence: int, now_s: float) -> ControlState:
            stop = Stop(asked.scope, asked.mode, asked.why, asked.by, now_s, asked.target)
            made.append(stop)
            state = with_stop(before, self._region(asked), stop, sequence=sequence)
            return _checked(state)

        return await self._done(request, asked, make, lambda: ("kill", in_words(made[0])))

    async def _resume(self, request: web.Request) -> web.Response:
        asked = await read_body(request, ResumeRequest)
        named = (asked.scope, asked.target)

        def make(before: ControlState | None, sequence: int, _: float) -> ControlState | None:
            gone = [
                one
                for one in (before.stops if before else ())
                if asked.everything or (one.scope, one.target) == named
            ]
            if before is None or not gone:
                return None
            return without_stops(before, gone, sequence=sequence, by=asked.by, why=asked.why)

        what = "everything" if asked.everything else f"{asked.scope.value} {asked.target}".strip()
        return await self._done(request, asked, make, lambda: ("resume", what))

    async def _override(self, request: web.Request) -> web.Response:
        asked = await read_body(request, OverrideRequest)
        _check_target(asked.scope, asked.target)
        if asked.tier and asked.tier not in list(Tier):
            raise RequestError(f"tier is one of {', '.join(Tier)}, not {asked.tier[:40]!r}")
        override = self._override_of(asked)

        def make(before: ControlState | None, sequence: int, _: float) -> ControlState:
            return _checked(with_override(before, self._region(asked), override, sequence=sequence))

        what = notice_of([override])
        return await self._done(request, asked, make, lambda: ("override", what))

    def _override_of(self, asked: OverrideRequest) -> Override:
        said = {
            name: value for name, value in msgspec.to_builtins(asked).items() if name != "region"
        }
        said["id"] = asked.id or f"{asked.kind.value}-{secrets.token_hex(3)}"
        said["wall_s"] = self._clock.wall_s()
        try:
            return msgspec.convert(said, Override)
        except msgspec.ValidationError as error:
            raise RequestError(f"the override cannot be used: {error}") from None

    async def _remove(self, request: web.Request) -> web.Response:
        said = {name: request.query[name] for name in request.query}
        try:
            asked = msgspec.convert(said, _Request)
        except msgspec.ValidationError as error:
            raise RequestError(f"say why in the query (?why=...): {error}") from None
        name = request.match_info["id"]

        def make(before: ControlState | None, sequence: int, _: float) -> ControlState | None:
            if before is None or name not in {one.id for one in before.overrides}:
                return None
            return without_overrides(before, [name], sequence=sequence, by=asked.by, why=asked.why)

        return await self._done(request, asked, make, lambda: ("override removed", name))

    def _region(self, asked: _Request) -> str:
        return asked.region or self._desk.region

    async def _done(
        self,
        request: web.Request,
        asked: _Request,
        make: Wanted,
        what: Any,  # noqa: ANN401
    ) -> web.Response:
        region = self._region(asked)
        standing = await self._desk.change(region, make)
        word, target = what()
        is_kept = await self._keep(request, asked.by, word, f"{region}: {target}", asked.why)
        return json_response({**standing, "is_audited": is_kept})

    async def _keep(self, request: web.Request, who: str, what: str, target: str, why: str) -> bool:
        via = "browser" if COOKIE in request.cookies else "token"
        now_s = self._clock.wall_s()
        return await asyncio.to_thread(
            self._audit.add, now_s, who, via, what=what, target=target, why=why
        )

    @property
    def _keep_commands(self) -> Any:  # noqa: ANN401 - a middleware of aiohttp
        @web.middleware
        async def keep_commands(request: web.Request, handler: Handler) -> web.StreamResponse:
            """Commands of rollouts and experiments, when they were done."""
            read: list[object] = []
            ASKED.set(read)
            response = await handler(request)
            asked = read[-1] if read else None
            path = request.path.split("/")
            if response.status < 300 and path[1] in ("rollouts", "experiments"):  # noqa: PLR2004
                who, why = getattr(asked, "by", ""), getattr(asked, "why", "")
                if request.method == "POST" and who:
                    word = path[3] if len(path) > 3 else "start"  # noqa: PLR2004 /rollouts/ID/WORD
                    name = path[2] if len(path) > 2 else _named(asked)  # noqa: PLR2004
                    await self._keep(request, who, f"{path[1][:-1]} {word}", name, why)
            return response

        return keep_commands

    async def _show_audit(self, request: web.Request) -> web.Response:
        limit = limit_of(request)
        before = number(request, "cursor", 0)
        lines = await asyncio.to_thread(self._audit.page, before, limit + 1)
        more = str(lines[limit - 1].seq) if len(lines) > limit else ""
        return json_response({"lines": [audit_line(one) for one in lines[:limit]], "next": more})


def _named(asked: object) -> str:
    version = getattr(asked, "version", "")
    return f"{getattr(asked, 'model', '')} {version}".strip()


def _check_target(scope: StopScope, target: str) -> None:
    if (scope is StopScope.ALL) != (not target):
        raise RequestError(
            "the scope `all` takes no target" if target else f"the scope {scope} needs a target"
        )


def _checked(state: ControlState) -> ControlState:
    if len(state.stops) > _MAX_STATED or len(state.overrides) > _MAX_STATED:
        raise RequestError(f"a region has at most {_MAX_STATED} of these: take some back first")
    return state
