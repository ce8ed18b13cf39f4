"""Hears how all processes on the cloud's broker are, and says it over HTTP.

GET /api/v1/features     what is switched on here
GET /api/v1/hierarchy    regions and gateways, devices as numbers
GET /api/v1/devices      one by one: ``region``, ``tier``, ``state``, ``q``, ``cursor``, ``limit``
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec
import structlog
from aiohttp import web

from cloud_tier.operators.access import Door
from cloud_tier.operators.fleet import Fleet, devices_page, region_view
from cloud_tier.operators.pages_of import cursor_of, limit_of, place_of, words_of
from cloud_tier.rollouts.http_parts import json_response, told
from runtime import topics
from runtime.messages import Birth, Draining, Offline, decode_control
from runtime.ports import Clock, Message, MessageBus

# Of so many regions the hierarchy tells at once.
MAX_REGIONS = 2000
_log = structlog.get_logger()


class _After(msgspec.Struct, array_like=True, frozen=True):
    region: str
    name: str


class FleetView:
    """The fleet as this broker and telemetry tell of it."""

    def __init__(
        self,
        clock: Clock,
        region: str,
        fleet: Fleet | None = None,
        features: Mapping[str, bool] = MappingProxyType({}),
    ) -> None:
        self._features = dict(features)
        self.fleet = fleet or Fleet()
        self._clock, self._region = clock, region
        self._views: dict[str, dict[str, Any]] = {}
        self.num_malformed = 0
        # Who answers how much of a region, by what is known now (``live.Live`` keeps it).
        self.shares: dict[str, dict[str, Any]] = {}

    def listen(self, bus: MessageBus) -> None:
        """Hears the retained states of all regions of a broker."""
        # At QoS 1 mosquitto drops of what is retained all that does not fit its queue, which is of
        # a thousand. At QoS 0 it writes as fast as we read.
        for topic in topics.all_states():
            bus.subscribe(topic, self._on_state, qos=0)

    def _on_state(self, message: Message) -> None:
        state = decode_control(message.payload)
        if not isinstance(state, Birth | Offline | Draining):
            # An empty payload clears what was retained: an operator has tidied up.
            self.num_malformed += bool(message.payload)
            return
        self.fleet.take(
            topics.region_of_state(message.topic),
            topics.site_of_state(message.topic),
            state,
            self._clock.wall_s(),
            is_agent=topics.is_agent_state(message.topic),
        )

    def refresh(self) -> set[str]:
        """Adds up what has changed; returns the regions that are other than before."""
        changed, self.fleet.changed = self.fleet.changed, set()
        different = set()
        for region in changed:
            view = region_view(region, self.fleet)
            if self._views.get(region) != view:
                self._views[region] = view
                different.add(region)
        return different

    def region(self, name: str) -> dict[str, Any]:
        """A region's summary, as of the last ``refresh``."""
        return {**self._views[name], "traffic": self.shares.get(name)}

    def head(self) -> dict[str, Any]:
        """What is said of the whole."""
        return {
            "cloud_region": self._region,
            "num_regions": len(self._views),
            "num_sites": self.fleet.num_sites,
            "num_left_out": self.fleet.num_left_out,
        }

    def add_routes(self, app: web.Application, door: Door) -> None:
        """Serves it to those whom the door lets pass."""
        app.router.add_get("/api/v1/features", told(door.check, self._show_features))
        app.router.add_get("/api/v1/hierarchy", told(door.check, self._hierarchy))
        app.router.add_get("/api/v1/devices", told(door.check, self._devices))

    async def _show_features(self, _: web.Request) -> web.Response:
        return json_response(self._features)

    async def _hierarchy(self, _: web.Request) -> web.Response:
        self.refresh()
        names = sorted(self._views)[:MAX_REGIONS]
        return json_response({**self.head(), "regions": [self.region(one) for one in names]})

    async def _devices(self, request: web.Request) -> web.Response:
        wanted = words_of(request, ("region", "tier", "state", "q"))
        limit, place = limit_of(request), place_of(request, _After)
        after = (place.region, place.name) if isinstance(place, _After) else ("", "")
        devices, more = devices_page(self.fleet, wanted, after, limit)
        return json_response(
            {"devices": devices, "next": cursor_of(more), "num_sites": self.fleet.num_sites}
        )
