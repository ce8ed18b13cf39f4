"""The operators' port: routes of the cloud tier behind their door, on loopback.

    POST   /api/v1/session     {"token": "..."}: a cookie for a browser
    GET    /api/v1/session     whether the door is open
    DELETE /api/v1/session     ends it

Whoever has more to serve adds its routes with ``Door.check``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import structlog
from aiohttp import web

from cloud_tier.operators.access import (
    COOKIE,
    SESSION_S,
    Door,
    check_address,
    token_of,
    write_operator_file,
)
from cloud_tier.operators.pages import add_pages
from cloud_tier.rollouts.http_parts import read_body, told
from runtime.adapters.http_server import serving
from runtime.ports import Clock

AddRoutes = Callable[[web.Application, Door], None]
# Pages of this port load what this port serves, and are shown in no frame of others.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; font-src 'self'; form-action 'none'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_log = structlog.get_logger()


class _LogIn(msgspec.Struct, frozen=True):
    token: str


class SessionApi:
    """Adds the routes of sessions."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def add_routes(self, app: web.Application) -> None:
        """Serves them from this application."""
        app.router.add_post("/api/v1/session", told(check_address, self._log_in))
        app.router.add_get("/api/v1/session", told(self._door.check, self._is_in))
        app.router.add_delete("/api/v1/session", told(self._door.check, self._log_out))

    async def _log_in(self, request: web.Request) -> web.Response:
        session = self._door.log_in((await read_body(request, _LogIn)).token)
        response = web.Response(status=204)
        response.set_cookie(
            COOKIE, session, max_age=int(SESSION_S), httponly=True, samesite="Strict", path="/"
        )
        return response

    async def _is_in(self, _: web.Request) -> web.Response:
        return web.Response(status=204)

    async def _log_out(self, request: web.Request) -> web.Response:
        self._door.log_out(request.cookies.get(COOKIE, ""))
        response = web.Response(status=204)
        response.del_cookie(COOKIE, path="/")
        return response


@asynccontextmanager
async def operators_listening(
    folder: Path, port: int, clock: Clock, adders: Iterable[AddRoutes]
) -> AsyncIterator[str]:
    """Serves operators until left; gives the base URL.

    Raises:
        StartError: the port cannot be listened on, or the state folder takes no file.
    """
    token = token_of(folder)
    door = Door(token, clock)
    app = web.Application(client_max_size=1_048_576)
    app.on_response_prepare.append(_add_headers)
    SessionApi(door).add_routes(app)
    add_pages(app, door)
    for add in adders:
        add(app, door)
    async with serving(app, "127.0.0.1", port, setting="operators.port") as url:
        path = write_operator_file(folder, url, token)
        _log.info("operators.listening", url=url, token_in=str(path))
        yield url


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
