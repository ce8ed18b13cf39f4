"""New models over HTTP, for people at the machine: how they stand, and the way back.

GET  /updates            what serves, what was assigned, what was counted
POST /updates/rollback   {"why": "..."}: what served before answers again
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from runtime.errors import MalformedBodyError

if TYPE_CHECKING:
    from runtime.updating.updater import Updater

MAX_WHY = 200
_MAX_BYTES = 4096


class Rollback(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``POST /updates/rollback``."""

    why: str


class UpdatesApi:
    """Handlers over one updater."""

    def __init__(self, updater: Updater) -> None:
        self._updater = updater

    def add_to(self, app: web.Application, *, may_roll_back: bool = True) -> None:
        """Adds the routes; the way back only where none but people at the machine reach them."""
        app.router.add_get("/updates", self.show)
        if may_roll_back:
            app.router.add_post("/updates/rollback", self.roll_back)

    async def show(self, _: web.Request) -> web.Response:
        """What serves and how the assignment stands."""
        return self._shown()

    async def roll_back(self, request: web.Request) -> web.Response:
        """Goes back to what served before.

        Raises:
            MalformedBodyError: nobody says why.
            ReleaseError: nothing is there to go back to.
            StorageError: it could not be written down.
        """
        if request.content_type != "application/json":
            # A page in somebody's browser may send other types here without being asked.
            raise MalformedBodyError("say `Content-Type: application/json`")
        body = await request.content.read(_MAX_BYTES + 1)
        try:
            why = msgspec.json.decode(body[:_MAX_BYTES], type=Rollback).why.strip()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise MalformedBodyError('the body is {"why": "..."}: say why') from error
        if not why or len(why) > MAX_WHY or not why.isprintable():
            raise MalformedBodyError(f"`why` has 1 to {MAX_WHY} printable characters")
        await self._updater.roll_back(why)
        return self._shown()

    def _shown(self) -> web.Response:
        body = msgspec.json.encode(self._updater.shown())
        return web.Response(body=body, content_type="application/json")
