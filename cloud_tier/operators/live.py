"""What changes, as it changes: server-sent events of the operators' port.

    GET /api/v1/live    ``head``, ``regions``, ``history`` and ``totals``, ``escalations``,
                        ``control``, ``rollouts``

Rules of this file:
  * a reader gets at most five messages a second; what changed in between comes as one;
  * everything is encoded once, however many read;
  * whoever does not read is cut off, and the number of readers is bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import structlog
from aiohttp import web

from cloud_tier.operators.access import Door
from cloud_tier.operators.control_desk import ControlDesk
from cloud_tier.operators.fleet_view import MAX_REGIONS, FleetView
from cloud_tier.operators.log_reading import Tail
from cloud_tier.operators.requests_api import RequestsApi
from cloud_tier.operators.traffic import Traffic, shares_of
from cloud_tier.rollouts.http_parts import told
from runtime.errors import OverloadedError, TierwiseError
from runtime.ports import Clock

MAX_WATCHERS = 64
TICK_S = 0.2
_TICKS_A_SECOND = 5
_KEEP_ALIVE_S, _WRITE_S = 15.0, 10.0
_MAX_NEW = 50
# Requests per second by region and by who answered, as telemetry tells; and rollouts in a line.
Rates = Callable[[], Awaitable[dict[str, dict[str, float]]]]
Rollouts = Callable[[], Awaitable[list[dict[str, Any]]]]
_log = structlog.get_logger()


async def nothing() -> list[dict[str, Any]]:
    """Of a cloud tier that rolls nothing out."""
    return []


class Live:
    """One producer for all readers."""

    def __init__(
        self,
        view: FleetView,
        requests: RequestsApi,
        desk: ControlDesk,
        clock: Clock,
        *,
        rollouts: Rollouts = nothing,
    ) -> None:
        self._view, self._requests, self._desk = view, requests, desk
        self._clock, self._rollouts = clock, rollouts
        self.traffic, self._tail = Traffic(), Tail()
        # What telemetry has told last of regions, by whoever asks it.
        self.told: dict[str, dict[str, float]] = {}
        self._version = 1
        self._changed = asyncio.Event()
        self._parts: dict[str, tuple[int, bytes]] = {}
        self._regions: dict[str, tuple[int, bytes]] = {}
        self._desk_revision = -1
        self._num_ticks = self.num_watchers = 0
        self._has_failed = False

    def add_routes(self, app: web.Application, door: Door) -> None:
        """Serves them to those whom the door lets pass."""
        app.router.add_get("/api/v1/live", told(door.check, self._live))

    async def run(self) -> None:
        """Looks five times a second until cancelled."""
        while True:
            try:
                await self.tick()
                self._has_failed = False
            except TierwiseError as error:
                # A file that cannot be read just now: said once, tried again with every tick.
                if not self._has_failed:
                    _log.error("operators.live_failed", code=error.code, error=str(error))
                self._has_failed = True
            await asyncio.sleep(TICK_S)

    async def tick(self) -> None:
        """One look at everything."""
        before = self._version
        is_second = self._num_ticks % _TICKS_A_SECOND == 0
        if is_second:
            await self._look_each_second()
        self._num_ticks += 1
        for region in self._view.refresh():
            self._put_region(region)
        # What is in force is told at once; which regions there are, within the second.
        if is_second or self._desk.revision != self._desk_revision:
            self._desk_revision = self._desk.revision
            self._put("control", self._desk.shown())
        self._put("head", self._view.head())
        if self._version != before:
            self._changed.set()
            self._changed = asyncio.Event()

    async def _look_each_second(self) -> None:
        paths = await asyncio.to_thread(self._requests.paths)
        found = await asyncio.to_thread(self._tail.read, paths)
        now_s = self._clock.wall_s()
        self.traffic.add(found.rows)
        self.traffic.forget(now_s)
        self._put("totals", self._totals(now_s, found.problems, len(paths)))
        rates, moved = self.traffic.by_region(), set[str]()
        for region in self._view.fleet.regions:
            here, told_of = rates.get(region, {}), self.told.get(region, {})
            # The fuller one: of a region some logs may be at hand, or all, or none.
            is_log = sum(here.values()) >= sum(told_of.values())
            shares = shares_of(here if is_log else told_of, "logs" if is_log else "telemetry")
            shares["is_cut"] = self.traffic.is_cut(region, now_s)
            if self._view.shares.get(region) != shares:
                self._view.shares[region] = shares
                self._view.fleet.changed.add(region)
                moved.add(region)
        for region in moved | self._view.refresh():
            self._put_region(region)
        self._put("rollouts", await self._rollouts())

    def _totals(self, now_s: float, problems: list[str], num_logs: int) -> dict[str, Any]:
        return {
            **self.traffic.totals(now_s),
            # The last second is not over yet for those who write in batches.
            "second": self.traffic.second(int(now_s) - 2),
            "num_logs": num_logs,
            "num_skipped": self._tail.num_skipped,
            "problems": problems[:3],
        }

    def _put_region(self, region: str) -> None:
        if len(self._regions) < MAX_REGIONS or region in self._regions:
            encoded = msgspec.json.encode(self._view.region(region))
            if self._regions.get(region, (0, b""))[1] != encoded:
                self._version += 1
                self._regions[region] = self._version, encoded

    def _put(self, name: str, value: Any) -> None:  # noqa: ANN401 - any JSON
        encoded = msgspec.json.encode(value)
        if self._parts.get(name, (0, b""))[1] != encoded:
            self._version += 1
            self._parts[name] = self._version, encoded

    async def _live(self, request: web.Request) -> web.StreamResponse:
        if self.num_watchers >= MAX_WATCHERS:
            raise OverloadedError(f"{MAX_WATCHERS} watch already: close another page")
        self.num_watchers += 1
        try:
            response = web.StreamResponse(
                headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
            )
            await response.prepare(request)
            await self._stream(response)
        except (TimeoutError, ConnectionError):
            # Whoever watched has gone, or does not read.
            pass
        finally:
            self.num_watchers -= 1
        return response

    async def _stream(self, response: web.StreamResponse) -> None:
        history = self.traffic.history(self._clock.wall_s())
        pending = [_event("history", msgspec.json.encode(history))]
        seen, newest, is_first = 0, 0, True
        while True:
            changed = self._changed
            pending += self._news(seen)
            escalations = [row for at, row in self.traffic.escalations if at > newest]
            newest = max((at for at, _ in self.traffic.escalations), default=0)
            seen = self._version
            if escalations or is_first:
                lines = [self._requests.line(row) for row in escalations[-_MAX_NEW:]]
                pending.append(_event("escalations", msgspec.json.encode(lines)))
            is_first = False
            if pending:
                await _write(response, b"".join(pending))
            pending = []
            # So that what changes meanwhile comes as one.
            await asyncio.sleep(TICK_S)
            try:
                async with asyncio.timeout(_KEEP_ALIVE_S):
                    await changed.wait()
            except TimeoutError:
                pending.append(b": nothing new\n\n")

    def _news(self, seen: int) -> list[bytes]:
        news = [_event(name, said) for name, (at, said) in self._parts.items() if at > seen]
        regions = [said for at, said in self._regions.values() if at > seen]
        if regions:
            news.append(_event("regions", b"[" + b",".join(regions) + b"]"))
        return news


def _event(name: str, encoded: bytes) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), encoded)


async def _write(response: web.StreamResponse, contents: bytes) -> None:
    async with asyncio.timeout(_WRITE_S):
        await response.write(contents)
