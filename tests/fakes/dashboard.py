"""The operators' port with all that the dashboard asks, over a small hierarchy on a memory bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from cloud_tier.alerts.http_api import AlertApi
from cloud_tier.operators.access import FILE_NAME, read_operator_file
from cloud_tier.operators.audit import AuditLog
from cloud_tier.operators.control_api import ControlApi
from cloud_tier.operators.control_desk import ControlDesk
from cloud_tier.operators.drift import DriftApi
from cloud_tier.operators.fleet_view import FleetView
from cloud_tier.operators.listener import operators_listening
from cloud_tier.operators.live import Live
from cloud_tier.operators.requests_api import RequestsApi
from cloud_tier.operators.together import Samples
from fakes.alert_desk import Desk as AlertDesk
from fakes.clock import FakeClock
from fakes.hierarchy import cloud, edge, gateway, online
from fakes.tiers import FakeTier
from fakes.waiting import eventually
from runtime.adapters.clock import SystemClock
from runtime.adapters.memory_bus import MemoryBroker, MemoryBus
from runtime.exchange.control_relay import ControlRelay

NOW_S = 1_700_000_000.0
LABELS = tuple("abcdefgh")


@dataclass
class Port:
    """The operators' port and what is behind it."""

    url: str
    session: aiohttp.ClientSession
    view: FleetView
    desk: ControlDesk
    live: Live
    audit: AuditLog
    broker: MemoryBroker
    device: FakeTier
    logs: Path

    async def ask(self, method: str, path: str, **words: Any) -> tuple[int, Any]:
        async with self.session.request(method, f"{self.url}{path}", **words) as response:
            said = await response.json()
        message = said["error"]["message"] if "error" in said else said
        return response.status, message

    async def get(self, path: str) -> Any:
        status, said = await self.ask("GET", path)
        assert status == 200, said
        return said


@asynccontextmanager
async def dashboard_port(tmp_path: Path, samples: Samples | None = None) -> AsyncIterator[Port]:
    """The port, with an agent, a gateway and a cloud online."""
    broker, clock = MemoryBroker(), FakeClock(wall_s=NOW_S)
    device, door = edge(broker, state=tmp_path / "d"), gateway(broker, state=tmp_path / "g")
    top, logs = cloud(broker, state=tmp_path / "c"), tmp_path / "logs"
    assert top.switch is not None
    bus = MemoryBus(broker, client_id="operators")
    view = FleetView(clock, "cloud", features={"rollouts": False})
    real = SystemClock()
    relay = ControlRelay(top.switch, top.bus, region="cloud", metrics=top.metrics, clock=real)
    desk = ControlDesk(
        "cloud", switch=top.switch, relay=relay, bus=bus, fleet=view.fleet, clock=real
    )
    requests = RequestsApi([logs], clock, LABELS, samples=samples)
    live = Live(view, requests, desk, clock)
    audit = AuditLog(tmp_path, max_lines=3)
    parts: list[Any] = [
        ControlApi(desk, audit, real), view, requests, live, DriftApi(requests, clock.wall_s),
    ]  # fmt: skip
    view.listen(bus)
    desk.listen()
    async with AsyncExitStack() as stack:
        for tier in (device, door, top):
            assert tier.switch is not None
            tier.switch.watch(tier.presence.look)
            keeping = asyncio.create_task(tier.presence.refresh())
            stack.callback(keeping.cancel)
        await online(stack, device, door, top)
        await bus.start()
        stack.push_async_callback(bus.close)
        alerts = AlertDesk(tmp_path / "alerts")
        parts.append(AlertApi(await alerts.start()))
        stack.push_async_callback(alerts.close)
        adders = [one.add_routes for one in parts]
        url = await stack.enter_async_context(operators_listening(tmp_path, 0, real, adders))
        found = read_operator_file(tmp_path / FILE_NAME)
        assert found is not None
        headers = {"Authorization": f"Bearer {found.token}"}
        session = await stack.enter_async_context(aiohttp.ClientSession(headers=headers))
        await eventually(lambda: len(list(view.fleet.online())) == 3)
        yield Port(url, session, view, desk, live, audit, broker, device, logs)
    audit.close()
