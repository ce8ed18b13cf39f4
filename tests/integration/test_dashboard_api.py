"""What the operators' port says and changes: over HTTP, with real logs and a cloud on a bus."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cloud_tier.operators import live as live_module
from cloud_tier.operators.access import FILE_NAME, read_operator_file
from cloud_tier.operators.audit import AuditLog
from cloud_tier.operators.control_api import ControlApi
from cloud_tier.operators.control_desk import ControlDesk
from cloud_tier.operators.drift import DriftApi
from cloud_tier.operators.fleet_view import FleetView
from cloud_tier.operators.listener import operators_listening
from cloud_tier.operators.live import Live
from cloud_tier.operators.requests_api import RequestsApi
from cloud_tier.operators.told import tell_fleet
from fakes.clock import FakeClock
from fakes.decisions import decision, escalated, write_log, write_log_of_version_1
from fakes.hierarchy import cloud, edge, gateway, online
from fakes.stops import mode_of, operator, state, stated, stop
from fakes.tiers import FakeTier
from fakes.waiting import eventually, until
from runtime import topics
from runtime.adapters.clock import SystemClock
from runtime.adapters.memory_bus import MemoryBroker, MemoryBus
from runtime.exchange.control_relay import ControlRelay
from runtime.messages import Offline, Tier, encode_control
from runtime.ports import Message

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


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[Port]:
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
    requests = RequestsApi([logs], clock, LABELS)
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
        adders = [one.add_routes for one in parts]
        url = await stack.enter_async_context(operators_listening(tmp_path, 0, real, adders))
        found = read_operator_file(tmp_path / FILE_NAME)
        assert found is not None
        headers = {"Authorization": f"Bearer {found.token}"}
        session = await stack.enter_async_context(aiohttp.ClientSession(headers=headers))
        await eventually(lambda: len(list(view.fleet.online())) == 3)
        yield Port(url, session, view, desk, live, audit, broker, device, logs)
    audit.close()


async def test_nothing_is_said_without_the_token(port: Port) -> None:
    async with aiohttp.ClientSession() as stranger:
        for path in ("hierarchy", "devices", "requests", "control", "audit", "live", "drift"):
            async with stranger.get(f"{port.url}/api/v1/{path}") as response:
                assert response.status == 401


async def test_the_hierarchy_tells_who_is_there(port: Port) -> None:
    said = await port.get("/api/v1/hierarchy")
    assert (said["cloud_region"], said["num_sites"]) == ("cloud", 3)
    regions = {one["name"]: one for one in said["regions"]}
    assert regions["r"]["devices"]["online"] == 1
    assert regions["r"]["link"] == "up"
    assert [one["tier"] for one in regions["cloud"]["clouds"]] == ["cloud"]
    assert await port.get("/api/v1/features") == {"rollouts": False}


async def test_what_is_no_state_is_counted_and_harms_nobody(port: Port) -> None:
    bus = await operator(port.broker)
    for payload in (b"", b"{", b"\xff\xfe", b'{"kind": "cancel", "request_id": "x"}', b"[" * 9999):
        bus.publish(Message(topics.agent_state("r", "x"), payload))
    await eventually(lambda: port.view.num_malformed == 4)
    assert port.view.fleet.num_sites == 3
    await bus.close()


async def test_telemetry_tells_of_sites_of_other_brokers(port: Port) -> None:
    pages = {
        "": {"rows": [_site("far", "cam-1", 5.0)], "next": "more"},
        "more": {"rows": [_site("far", "cam-2", 5000.0)], "next": ""},
    }

    async def ask(metric: str, words: Any) -> Any:
        assert metric == "fleet"
        return pages[words.get("cursor", "")]

    await tell_fleet(ask, port.view.fleet)

    found = await port.get("/api/v1/devices?region=far")
    assert [one["state"] for one in found["devices"]] == ["reporting", "silent"]


def _site(region: str, name: str, silent_s: float) -> Any:
    group = {"region": region, "site": name}
    return {"group": group, "tiers": ["edge"], "last_heard_s": 1.0, "silent_s": silent_s}


async def test_devices_come_in_pages(port: Port) -> None:
    first = await port.get("/api/v1/devices?limit=2")
    rest = await port.get(f"/api/v1/devices?limit=2&cursor={first['next']}")
    assert [len(first["devices"]), len(rest["devices"]), rest["next"]] == [2, 1, ""]
    for query in ("limit=0", "limit=x", "cursor=%21", "cursor=e30", "what=1", "q=a&q=b"):
        status, message = await port.ask("GET", f"/api/v1/devices?{query}")
        assert (status, bool(message)) == (400, True), query
    status, _ = await port.ask("GET", f"/api/v1/devices?q={'x' * 200}")
    assert status == 400


KILL = {"scope": "all", "mode": "stop", "why": "wrong", "by": "Ada"}


async def test_the_clouds_region_is_stopped_and_resumed_for_all_below(port: Port) -> None:
    status, said = await port.ask("POST", "/api/v1/control/kill", json=KILL)
    assert status == 200, said
    assert (said["problem"], said["missing"], said["is_audited"]) == ("", [], True)
    await eventually(lambda: mode_of(port.device) == "stop")
    control = await port.get("/api/v1/control")
    assert control["mode"] == "stop"
    assert "wrong" in control["regions"][0]["stops"][0]["told"]

    resume = {"why": "right", "by": "Ada"}
    status, said = await port.ask("POST", "/api/v1/control/resume", json=resume)
    assert (status, said["stops"]) == (200, [])
    await eventually(lambda: mode_of(port.device) == "")

    status, message = await port.ask("POST", "/api/v1/control/resume", json=resume)
    assert (status, "nothing like that" in message) == (400, True)
    lines = (await port.get("/api/v1/audit"))["lines"]
    assert [one["what"] for one in lines] == ["resume", "kill"]
    assert {one["who"] for one in lines} == {"Ada"}
    assert {one["via"] for one in lines} == {"token"}


async def test_another_region_of_the_broker_changes_by_what_it_retains(port: Port) -> None:
    status, said = await port.ask("POST", "/api/v1/control/kill", json={**KILL, "region": "r"})
    assert (status, said["region"], said["problem"]) == (200, "r", "")
    await eventually(lambda: mode_of(port.device) == "stop")
    assert "r" in port.desk.states()


async def test_what_two_operators_say_at_once_is_told(port: Port) -> None:
    asking = asyncio.create_task(
        port.ask("POST", "/api/v1/control/kill", json={**KILL, "region": "r"})
    )
    await eventually(lambda: "r" in port.desk.states())
    bus = await operator(port.broker)
    later = state(2**50, stop("device", "somebody"))
    bus.publish(stated(later))
    status, said = await asking
    # Either was first; what holds in the end is told as it is.
    is_held = any(one["scope"] == "all" for one in said["stops"])
    assert (status, bool(said["problem"])) == (200, not is_held)
    await bus.close()


async def test_a_state_that_is_not_understood_is_not_written_over(port: Port) -> None:
    bus = await operator(port.broker)
    bus.publish(Message(topics.control("new"), b'{"kind": "later"}', retain=True))
    await until(lambda: port.get("/api/v1/control"), lambda said: said["unreadable"] == ["new"])
    status, message = await port.ask("POST", "/api/v1/control/kill", json={**KILL, "region": "new"})
    assert (status >= 400, "not understood" in message) == (True, True)
    bus.publish(Message(topics.control("new"), b"", retain=True))
    await until(lambda: port.get("/api/v1/control"), lambda said: said["unreadable"] == [])
    await bus.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"why": ""},
        {"why": "   "},
        {"by": ""},
        {"scope": "all", "target": "x"},
        {"scope": "device"},
        {"scope": "everything"},
        {"mode": "pause"},
        {"region": "a/b"},
        {"region": "+"},
        {"more": 1},
        {"why": "x" * 501},
    ],
)
async def test_a_stop_that_cannot_be_meant_is_refused(port: Port, changes: Any) -> None:
    status, message = await port.ask("POST", "/api/v1/control/kill", json={**KILL, **changes})
    assert (status, bool(message)) == (400, True)
    assert port.desk.states() == {}


OVERRIDE = {
    "kind": "ban", "scope": "all", "lasts_s": 60, "labels": ["a"], "why": "wrong", "by": "Ada",
}  # fmt: skip


async def test_an_override_is_made_and_removed(port: Port) -> None:
    status, said = await port.ask("POST", "/api/v1/overrides", json=OVERRIDE)
    assert status == 200, said
    name = said["overrides"][0]["id"]
    assert name.startswith("ban-")

    status, message = await port.ask("DELETE", f"/api/v1/overrides/{name}")
    assert (status, "why" in message) == (400, True)
    path = f"/api/v1/overrides/{name}?why=over&by=Ada"
    status, said = await port.ask("DELETE", path)
    assert (status, said["overrides"]) == (200, [])
    status, _ = await port.ask("DELETE", path)
    assert status == 400


@pytest.mark.parametrize(
    "changes",
    [{"labels": []}, {"lasts_s": 0}, {"lasts_s": 1e9},
     {"kind": "tier", "labels": [], "tier": "sky"}, {"id": "a b"}, {"answer": "a"}, {"below": 2}],
)  # fmt: skip
async def test_an_override_that_cannot_be_is_refused(port: Port, changes: Any) -> None:
    status, message = await port.ask("POST", "/api/v1/overrides", json={**OVERRIDE, **changes})
    assert (status, bool(message)) == (400, True)


async def test_the_audit_keeps_the_newest_lines_and_none_is_changed(port: Port) -> None:
    for at in range(5):
        assert port.audit.add(at, "Ada\n", "token", what="kill", target=str(at), why="x" * 900)
    first = await port.get("/api/v1/audit?limit=2")
    rest = await port.get(f"/api/v1/audit?limit=2&cursor={first['next']}")
    lines = first["lines"] + rest["lines"]
    assert [one["seq"] for one in lines] == [5, 4, 3]
    assert (lines[0]["who"], len(lines[0]["why"]), rest["next"]) == ("Ada?", 500, "")


async def test_requests_are_shown_once_and_explained(port: Port) -> None:
    at_s = NOW_S - 10
    write_log(
        port.logs / "camera-1",
        decision("r1", wall_s=at_s, label=1),
        escalated("r2", wall_s=at_s + 1, answered_by="cloud", label=2),
    )
    write_log(
        port.logs / "cloud-1",
        decision("r2", wall_s=at_s + 2, tier="cloud", site="cloud-1", hop=2, answered_by="cloud"),
    )
    said = await port.get("/api/v1/requests")
    found = [(one["request_id"], one["tier"], one["label_name"]) for one in said["requests"]]
    assert found == [("r2", "edge", "c"), ("r1", "edge", "b")]
    for query, num in (("reason=unsure", 1), ("label=1", 1), ("label=x", 0), ("region=south", 0)):
        assert len((await port.get(f"/api/v1/requests?{query}"))["requests"]) == num, query
    status, _ = await port.ask("GET", "/api/v1/requests?nothing=1")
    assert status == 400

    facets = await port.get("/api/v1/requests/facets?last_s=60")
    assert (facets["decisions"], facets["escalated"]) == (3, 1)
    assert {one["value"]: one["count"] for one in facets["facets"]["tier"]} == {
        "edge": 2, "cloud": 1,
    }  # fmt: skip
    story = await port.get("/api/v1/requests/r2")
    assert [one["tier"] for one in story["hops"]] == ["edge", "cloud"]
    assert any("In the end" in line for line in story["ending"])
    status, message = await port.ask("GET", "/api/v1/requests/r3")
    assert (status, "2 decision logs" in message) == (404, True)


async def test_pages_of_requests_hold_each_once(port: Port) -> None:
    write_log(port.logs, *(decision(f"r{one:02}", wall_s=NOW_S - one // 3) for one in range(20)))
    found, cursor = [], ""
    while True:
        said = await port.get(f"/api/v1/requests?limit=3&cursor={cursor}")
        found += [one["request_id"] for one in said["requests"]]
        cursor = said["next"]
        if not cursor:
            break
    assert sorted(found) == [f"r{one:02}" for one in range(20)]


async def test_old_and_damaged_logs_are_named_and_the_others_answer(port: Port) -> None:
    (port.logs / "old").mkdir(parents=True)
    write_log_of_version_1(port.logs / "old", decision("old", wall_s=NOW_S - 5))
    (port.logs / "bad").mkdir()
    (port.logs / "bad" / "decisions.sqlite").write_bytes(b"no database" * 1000)
    said = await port.get("/api/v1/requests")
    assert [one["request_id"] for one in said["requests"]] == ["old"]
    assert "bad" in said["problems"][0]
    assert "bad" in (await port.get("/api/v1/requests/facets"))["problems"][0]
    assert "bad" in (await port.get("/api/v1/drift?last_s=60"))["problems"][0]


async def test_confidences_over_time_show_where_guarantees_were_suspended(port: Port) -> None:
    write_log(
        port.logs,
        *(decision(f"a{one}", wall_s=NOW_S - 50, confidence=0.95) for one in range(60)),
        *(
            decision(f"b{one}", wall_s=NOW_S - 2, confidence=0.25, guarantee="suspended")
            for one in range(60)
        ),
        decision("c", wall_s=NOW_S - 2, confidence=None),
        decision("d", wall_s=NOW_S - 2, confidence=1.0),
    )
    said = await port.get("/api/v1/drift?last_s=60&tier=edge")
    series = said["series"][0]
    assert (series["count"], series["suspended"]) == (121, 60)
    far = [one["distance"] for one in series["pieces"] if one["distance"] is not None]
    assert far == [pytest.approx(0.5, abs=0.02)] * 2
    assert (await port.get("/api/v1/drift?last_s=60&tier=cloud"))["series"] == []
    for last_s in ("1", "99999999"):
        assert (await port.ask("GET", f"/api/v1/drift?last_s={last_s}"))[0] == 400


async def heard(response: aiohttp.ClientResponse, names: set[str]) -> dict[str, Any]:
    """The first value of each of these events."""
    found: dict[str, Any] = {}
    name = ""
    async with asyncio.timeout(10):
        while not names <= found.keys():
            line = (await response.content.readline()).decode().rstrip()
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                found.setdefault(name, json.loads(line.removeprefix("data: ")))
    return found


async def test_whoever_watches_is_told_what_changes(port: Port) -> None:
    write_log(port.logs, escalated("r1", wall_s=NOW_S - 3))
    running = asyncio.create_task(port.live.run())
    async with port.session.get(f"{port.url}/api/v1/live") as response:
        first = await heard(
            response, {"head", "regions", "history", "totals", "escalations", "control", "rollouts"}
        )
        assert {one["name"] for one in first["regions"]} == {"r", "cloud"}
        assert first["totals"]["num_logs"] == 1
        gone = Offline(Tier.EDGE, port.device.identity.site, "r", 1)
        bus = await operator(port.broker)
        topic = topics.agent_state("r", port.device.identity.site)
        bus.publish(Message(topic, encode_control(gone), retain=True))
        said = await heard(response, {"regions"})
        await bus.close()
    assert [one["name"] for one in said["regions"]] == ["r"]
    assert said["regions"][0]["devices"]["online"] == 0
    await eventually(lambda: port.live.num_watchers == 0)
    running.cancel()


async def test_watchers_are_few(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "MAX_WATCHERS", 1)
    async with port.session.get(f"{port.url}/api/v1/live") as response:
        assert response.status == 200
        status, message = await port.ask("GET", "/api/v1/live")
        assert (status, "watch already" in message) == (503, True)
