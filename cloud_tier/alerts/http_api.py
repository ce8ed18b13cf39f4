"""Alerts at the operators' port.

GET  /api/v1/alerts            all alerts, and the silences that hold
POST /api/v1/alerts/silence    ``SilenceRequest``: tell nobody of some for a while
POST /api/v1/alerts/test       tells every sink a marked notice, and says what came of it
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from cloud_tier.alerts.remedies import remedy
from cloud_tier.alerts.service import Alerts
from cloud_tier.operators.access import Door
from cloud_tier.rollouts.http_parts import json_response, read_body, told
from runtime.core.alerts import Alert, Silence

MAX_SILENCE_S = 30 * 86_400.0


class SilenceRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``key`` is that of an alert, or the beginning of some with a ``*`` at its end."""

    key: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{0,64}\*?\Z", min_length=1)]
    for_s: Annotated[float, Meta(gt=0, le=MAX_SILENCE_S)]
    by: Annotated[str, Meta(min_length=1, max_length=100)]
    why: Annotated[str, Meta(max_length=500)] = ""


class AlertApi:
    """Adds the routes."""

    def __init__(self, alerts: Alerts) -> None:
        self._alerts = alerts

    def add_routes(self, app: web.Application, door: Door) -> None:
        """Serves them from this application, to those whom the door lets pass."""
        app.router.add_get("/api/v1/alerts", told(door.check, self._list))
        app.router.add_post("/api/v1/alerts/silence", told(door.check, self._silence))
        app.router.add_post("/api/v1/alerts/test", told(door.check, self._test))

    async def _list(self, _: web.Request) -> web.Response:
        now_s = self._alerts.clock.wall_s()
        alerts = await self._alerts.store.alerts()
        silences = await self._alerts.store.silences(now_s)
        shown = [_shown(key, one, silences, now_s) for key, one in sorted(alerts.items())]
        return json_response({"alerts": shown, "silences": silences})

    async def _silence(self, request: web.Request) -> web.Response:
        asked = await read_body(request, SilenceRequest)
        until_s = self._alerts.clock.wall_s() + asked.for_s
        silence = Silence(asked.key, until_s, asked.by, asked.why)
        await self._alerts.store.silence(silence)
        return json_response(msgspec.to_builtins(silence), 201)

    async def _test(self, _: web.Request) -> web.Response:
        results = await self._alerts.test()
        sinks = [{"sink": name, "ok": not why, "why": why} for name, why in results.items()]
        return json_response({"sinks": sinks})


def _shown(key: str, alert: Alert, silences: list[Silence], now_s: float) -> dict[str, object]:
    one = alert.condition
    return {
        "key": key,
        "phase": alert.phase.value,
        "kind": one.kind,
        "severity": one.severity.value,
        "region": one.region,
        "site": one.site,
        "summary": one.summary,
        "detail": one.detail,
        "remedy": remedy(one),
        "since_s": alert.since_s,
        "told_s": alert.told_s,
        "flaps": alert.flaps,
        "silenced": any(silence.covers(key, now_s) for silence in silences),
    }
