"""Devices that are taken out of service for good, at the operators' port.

GET  /api/v1/fleet/retired    all that are
POST /api/v1/fleet/retire     ``RetireRequest``
POST /api/v1/fleet/restore    ``RetireRequest``

Both changes are audited.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import msgspec
from aiohttp import web

from cloud_tier.operators.access import COOKIE, Door
from cloud_tier.operators.audit import AuditLog
from cloud_tier.operators.fleet import Fleet
from cloud_tier.operators.told import tell_retired
from cloud_tier.rollouts.http_parts import json_response, read_body, told
from cloud_tier.rollouts.requests import Who, Words
from runtime.errors import StorageError
from runtime.ports import Clock

if TYPE_CHECKING:
    from cloud_tier.telemetry.retired import Retired, RetiredDevices

_Name = Annotated[str, msgspec.Meta(max_length=128)]


class RetireRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A device; ``region`` may be empty where no other has one of its name."""

    device: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    region: _Name = ""
    by: Who = "operator"
    why: Words


class RetiringApi:
    """Adds the routes."""

    def __init__(
        self, devices: RetiredDevices, audit: AuditLog, clock: Clock, fleet: Fleet
    ) -> None:
        self._devices, self._audit, self._clock, self._fleet = devices, audit, clock, fleet

    def add_routes(self, app: web.Application, door: Door) -> None:
        """Serves them to those whom the door lets pass."""
        app.router.add_get("/api/v1/fleet/retired", told(door.check, self._list))
        app.router.add_post("/api/v1/fleet/retire", told(door.check, self._retire))
        app.router.add_post("/api/v1/fleet/restore", told(door.check, self._restore))

    async def _list(self, _: web.Request) -> web.Response:
        found = await asyncio.to_thread(self._devices.all)
        return json_response({"retired": [_shown(one) for one in found]})

    async def _retire(self, request: web.Request) -> web.Response:
        asked = await read_body(request, RetireRequest)

        def work() -> Retired:
            return self._devices.retire(
                asked.device, region=asked.region, by=asked.by, why=asked.why
            )

        return await self._done(request, asked, "retire", work)

    async def _restore(self, request: web.Request) -> web.Response:
        asked = await read_body(request, RetireRequest)

        def work() -> Retired:
            return self._devices.restore(asked.device, region=asked.region)

        return await self._done(request, asked, "restore", work)

    async def _done(
        self,
        request: web.Request,
        asked: RetireRequest,
        what: str,
        work: Callable[[], Retired],
    ) -> web.Response:
        one = await asyncio.to_thread(work)
        via = "browser" if COOKIE in request.cookies else "token"
        is_kept = await asyncio.to_thread(
            self._audit.add,
            self._clock.wall_s(),
            asked.by,
            via,
            what=what,
            target=f"{one.region}/{one.site}",
            why=asked.why,
        )
        with suppress(StorageError):
            # It is done; the picture is brought up to date now and then anyway.
            await tell_retired(self._devices, self._fleet)
        return json_response({**_shown(one), "is_audited": is_kept})


def _shown(one: Retired) -> dict[str, object]:
    return {**one._asdict(), "speaks": one.speaks}
