"""What the operators' port says and changes of the fleet and of control states, over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cloud_tier.operators import live as live_module
from cloud_tier.operators.told import tell_fleet
from fakes.dashboard import NOW_S, Port, dashboard_port
from fakes.decisions import escalated, write_log
from fakes.stops import mode_of, operator, state, stated, stop
from fakes.waiting import eventually, until
from runtime import topics
from runtime.messages import Offline, Tier, encode_control
from runtime.ports import Message


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[Port]:
    async with dashboard_port(tmp_path) as port:
        yield port


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


async def test_a_region_that_appears_while_somebody_watches_can_be_stopped(port: Port) -> None:
    running = asyncio.create_task(port.live.run())
    async with port.session.get(f"{port.url}/api/v1/live") as response:
        first = await heard(response, {"control"})
        bus = await operator(port.broker)
        topic = topics.agent_state("later", "d")
        bus.publish(
            Message(topic, encode_control(Offline(Tier.EDGE, "d", "later", 1)), retain=True)
        )
        said = await heard(response, {"control"})
        await bus.close()
    running.cancel()
    assert "later" not in first["control"]["known_regions"]
    assert "later" in said["control"]["known_regions"]


async def test_watchers_are_few(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "MAX_WATCHERS", 1)
    async with port.session.get(f"{port.url}/api/v1/live") as response:
        assert response.status == 200
        status, message = await port.ask("GET", "/api/v1/live")
        assert (status, "watch already" in message) == (503, True)


async def test_what_changes_in_one_region_is_told_beside_the_traffic_of_another(
    port: Port,
) -> None:
    fleet, live = port.view.fleet, port.live
    fleet.tell("east", "cam-1", "edge", heard_s=1.0, is_silent=False)
    fleet.tell("west", "cam-1", "edge", heard_s=1.0, is_silent=False)
    # Up to the next look at the traffic.
    for _ in range(5):
        await live.tick()

    fleet.tell("west", "cam-2", "edge", heard_s=2.0, is_silent=False)
    live.told["east"] = {"edge": 5.0}
    await live.tick()

    west = json.loads(live._regions["west"][1])
    assert west["devices"]["reporting"] == 2
