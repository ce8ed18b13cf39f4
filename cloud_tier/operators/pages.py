"""The dashboard's files: a page that asks the operators' port, and nothing that needs a token."""

from __future__ import annotations

import mimetypes
from pathlib import Path

from aiohttp import web

from cloud_tier.operators.access import Door, check_address
from cloud_tier.rollouts.http_parts import told
from runtime.errors import UnknownPageError

_FOLDER = Path(__file__).with_name("static")
_TYPES = {".mjs": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


def add_pages(app: web.Application, _: Door) -> None:
    """Serves ``/`` and ``/static/``; whoever gets them has seen nothing yet."""
    app.router.add_get("/", told(check_address, _index))
    app.router.add_get("/static/{name:.+}", told(check_address, _file))


async def _index(_: web.Request) -> web.StreamResponse:
    return _response(_FOLDER / "index.html", "text/html")


async def _file(request: web.Request) -> web.StreamResponse:
    path = (_FOLDER / request.match_info["name"]).resolve()
    if not path.is_relative_to(_FOLDER) or not path.is_file():
        raise UnknownPageError(f"there is no {request.path[:80]}")
    kind = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "text/plain"
    return _response(path, kind)


def _response(path: Path, kind: str) -> web.FileResponse:
    response = web.FileResponse(path, headers={"Cache-Control": "no-cache"})
    response.content_type = kind
    if kind.startswith("text/"):
        response.charset = "utf-8"
    return response
