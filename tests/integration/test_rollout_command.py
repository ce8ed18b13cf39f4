"""``tierwise rollout`` and the HTTP service behind it, with thirty devices below."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
from aiohttp import web

from cloud_tier.rollouts import http_api
from cloud_tier.rollouts.http_api import RolloutApi
from cloud_tier.rollouts.requests import MAX_BODY_BYTES
from fakes.catalogue import Cloud
from fakes.ports import free_port
from fakes.rollout_fleet import Fleet, digest
from fakes.waiting import until
from runtime.adapters.http_server import serving
from runtime.errors import StoppedError
from tierwise import rollout_watch
from tierwise.cli import main

pytestmark = pytest.mark.usefixtures("operator_file")

PLAN = """
shares = [0.1, 0.4, 1.0]
baseline_s = 1800.0
fill_s = 3600.0
[gate]
looks_s = [600.0, 1200.0]
"""


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    cloud = Cloud(tmp_path / "repository")
    for version in (1, 2):
        cloud.publish(version)
    async with Fleet(tmp_path, cloud) as fleet:
        await fleet.baseline()
        yield fleet


@pytest.fixture
async def url(fleet: Fleet) -> AsyncIterator[str]:
    app = web.Application()
    RolloutApi(fleet.service.controller, fleet.service.desk).add_routes(app)
    async with serving(app, "127.0.0.1", 0) as base:
        yield base


class Shell:
    """Types commands, and reads what they print."""

    def __init__(self, url: str, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        self._url, self._capsys = url, capsys
        self.plan = folder / "plan.toml"
        self.plan.write_text(PLAN)

    async def run(self, *words: str, code: int = 0) -> str:
        """What a command prints; where it is to fail, what it says of that."""
        self._capsys.readouterr()
        argv = ["rollout", *words, "--url", self._url]
        assert await asyncio.to_thread(main, argv) == code, self._capsys.readouterr()
        said = self._capsys.readouterr()
        return said.err or said.out

    async def json(self, *words: str) -> Any:
        return json.loads(await self.run(*words, "--json"))

    async def start(self, *words: str, code: int = 0) -> str:
        why = ("--why", "better on shirts", "--by", "anna", "--id", "r1")
        plan = ("--plan", str(self.plan), "--no-shadow")
        return await self.run("start", "--model", "m", *plan, *why, *words, code=code)


@pytest.fixture
def shell(url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Shell:
    # Lines of the service's log are none of what a command prints.
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    return Shell(url, capsys, tmp_path)


async def test_a_rollout_from_the_start_to_its_end(fleet: Fleet, shell: Shell) -> None:
    assert "no rollout was ever started" in await shell.run("list")
    started = await shell.start("--version", "2")
    assert started.splitlines()[0] == "r1: m/2 is canary"
    assert "started by anna: better on shirts" in started
    assert "ever ran it: 0 of 30 devices" in started
    watching = asyncio.create_task(shell.run("watch", "r1"))
    await asyncio.sleep(0)

    await fleet.until("done")
    watched = await asyncio.wait_for(watching, 10)

    assert "draft -> approved, by operator:anna: better on shirts" in watched
    assert "wave -> done" in watched
    assert watched.splitlines()[-1] == (
        "  ever ran it: 30 of 30 devices (cloud/d02, cloud/d05, cloud/d08, cloud/d11, cloud/d14, "
        "cloud/d17, cloud/d20, cloud/d23 and 22 more)"
    )
    status = await shell.json("status", "r1", "--devices")
    assert status["blast_radius"]["num"] == 30
    assert [wave["states"] for wave in status["waves"]] == [
        {"confirmed": 3}, {"confirmed": 9}, {"confirmed": 18},
    ]  # fmt: skip
    assert {one["state"] for one in status["executions"]} == {"confirmed"}
    assert "eu/d00     pi5" in await shell.run("status", "r1", "--devices")
    history = (await shell.json("history", "r1"))["history"]
    assert [one["seq"] for one in history] == sorted(one["seq"] for one in history)
    assert len(history) > 60
    last = (await shell.json("history", "r1", "--after", str(history[-2]["seq"])))["history"]
    assert last == history[-1:]
    assert "-> confirmed, by device:" in await shell.run("history", "r1")
    (listed,) = (await shell.json("list"))["rollouts"]
    assert (listed["phase"], listed["confirmed"], listed["failed"]) == ("done", 30, 0)
    assert "m/2      done" in await shell.run("list")


async def test_a_bad_version_ends_with_its_blast_radius(fleet: Fleet, shell: Shell) -> None:
    for device in fleet.devices:
        device.error_rate[digest(2)] = 0.1
    await shell.start()
    await fleet.until("rolled_back")

    lines = (await shell.run("watch", "r1", "--json", code=1)).splitlines()
    events = [json.loads(line) for line in lines]
    assert events[-1]["event"] == "end"
    assert events[-1]["phase"] == "rolled_back"
    assert events[-1]["has_run"] == 3
    shown = await shell.run("status", "r1")

    assert "look 1 of 2: breach" in shown
    assert "errors: breach, 5.00 times as often as before" in shown
    assert "ever ran it: 3 of 30 devices" in shown.splitlines()[-1]


async def test_people_pause_resume_abort_and_return(fleet: Fleet, shell: Shell) -> None:
    why = ("--why", "looks odd")
    await shell.start("--rollback", "manual")
    assert "r1: m/2 is paused (canary)" in await shell.run("pause", "r1", *why)
    refused = await shell.run("pause", "r1", *why, code=1)
    assert refused == "tierwise: r1: a rollout that is paused cannot pause\n"
    assert "is canary" in await shell.run("resume", "r1", *why)
    assert "only where an operator was asked" in await shell.run("promote", "r1", *why, code=1)
    await fleet.pass_time()
    assert "r1: m/2 is aborted" in await shell.run("abort", "r1", *why)
    assert "rolling back" in await shell.run("rollback", "r1", *why, "--by", "ben")
    await fleet.until("rolled_back")

    history = (await shell.json("history", "r1"))["history"]

    people = [(one["who"], one["why"]) for one in history if one["now"] == "rolling_back"]
    assert people == [("operator:ben", "looks odd")]


async def test_a_draft_waits_for_somebody_else(fleet: Fleet, shell: Shell) -> None:
    assert "r1: m/2 is draft" in await shell.start("--draft")
    why = ("--why", "read it")
    refused = await shell.run("approve", "r1", *why, "--by", "anna", code=1)
    assert "somebody else approves" in refused

    assert "is canary" in await shell.run("approve", "r1", *why, "--by", "ben")
    assert (await fleet.kept()).rollout.devices


async def test_where_people_are_asked_they_promote(fleet: Fleet, shell: Shell) -> None:
    await shell.start()
    for _ in range(8):
        fleet.clock.advance(300)
        await fleet.report_all()
        await fleet.settle()
    assert "you are asked: canary, last look" in await shell.run("status", "r1")

    assert "is wave (40 %)" in await shell.run("promote", "r1", "--why", "seen by hand")


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("status", "nope"), 1, "there is no rollout 'nope': `tierwise rollout list` has all"),
        (("status", "a/../b?x"), 1, "there is no rollout 'a/../b?x'"),
        (("history", "nope"), 1, "there is no rollout"),
        (("watch", "nope"), 1, "there is no rollout"),
        (("pause", "nope", "--why", "x"), 1, "there is no rollout"),
        (("pause", "nope"), 2, "--why"),
        (("pause", "nope", "--why", " "), 2, "the request is not understood"),
        (("stop", "nope"), 2, "unknown command 'stop': choose from start"),
        (("start", "--model", "m", "--why", "x", "--version", "9"), 1, "m/9.json is not in the"),
        (("start", "--model", "other", "--why", "x"), 1, "no version of it is"),
        (("start", "--model", "../m", "--why", "x"), 2, "the request is not understood"),
        (("start", "--model", "m", "--why", "x", "--shares", "a,b"), 2, "is no list such as"),
        (("start", "--model", "m", "--why", "x", "--shares", "1,0.5"), 2, "have to rise"),
        (("start", "--model", "m", "--why", "x", "--plan", "/nowhere"), 2, "cannot be read"),
    ],
)
async def test_what_is_refused_says_what_to_do(
    words: tuple[str, ...], code: int, text: str, shell: Shell
) -> None:
    assert text in await shell.run(*words, code=code)


async def test_a_plan_with_an_unknown_setting_is_refused(shell: Shell) -> None:
    shell.plan.write_text("share = [1.0]")

    assert "a plan has no share" in await shell.start(code=2)


async def test_without_a_service_it_is_said_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    url = f"http://127.0.0.1:{free_port()}"

    assert await asyncio.to_thread(main, ["rollout", "list", "--url", url]) == 3
    assert f"no answer from the cloud tier at {url}" in capsys.readouterr().err


async def test_a_port_without_rollouts_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(web.Application(), "127.0.0.1", 0) as base:
        assert await asyncio.to_thread(main, ["rollout", "list", "--url", base]) == 3

    assert "is it the operators' port of a cloud tier" in capsys.readouterr().err


async def test_events_go_on_where_a_reader_left(fleet: Fleet, url: str) -> None:
    await fleet.service.start()
    await fleet.service.ask("abort")
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{url}/rollouts/r1/events") as response:
            whole = (await response.read()).decode()
        ids = [line for line in whole.splitlines() if line.startswith("id: ")]
        last = {"Last-Event-ID": ids[-2].removeprefix("id: ")}
        async with session.get(f"{url}/rollouts/r1/events", headers=last) as response:
            rest = (await response.read()).decode()

    assert response.headers["Content-Type"] == "text/event-stream"
    assert [line for line in rest.splitlines() if line.startswith("id: ")] == ids[-1:]
    names = [line for line in rest.splitlines() if line.startswith("event: ")]
    assert names == ["event: audit", "event: status", "event: end"]


async def test_whoever_watches_hears_at_once(fleet: Fleet, url: str) -> None:
    await fleet.service.start()
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{url}/rollouts/r1/events") as response,
    ):
        while not (await response.content.readline()).startswith(b"event: status"):
            pass
        await fleet.service.ask("pause")
        lines: list[bytes] = []
        while b"event: status" not in b"".join(lines):
            lines.append(await response.content.readline())

    assert b'"now":"paused"' in b"".join(lines)


async def test_watchers_are_few(fleet: Fleet, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_api, "MAX_WATCHERS", 1)
    await fleet.service.start()
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{url}/rollouts/r1/events") as first:
            await first.content.readline()
            async with session.get(f"{url}/rollouts/r1/events") as second:
                assert second.status == 503
                assert "watch already" in (await second.json())["error"]["message"]
        await fleet.service.ask("abort")

        async def third() -> int:
            async with session.get(f"{url}/rollouts/r1/events") as response:
                return response.status

        assert await until(third, lambda status: status == 200)


@pytest.mark.parametrize(
    ("body", "kind", "status", "text"),
    [
        (b"{}", "text/plain", 400, "send application/json"),
        (b"{", "application/json", 400, "not understood"),
        (b"\xff", "application/json", 400, "not understood"),
        (b"[" * 5000, "application/json", 400, "not understood"),
        (b'{"model": "m", "version": 2, "by": "a", "why": "b", "x": 1}', "application/json", 400,
         "unknown field `x`"),
        (b" " * (MAX_BODY_BYTES + 1), "application/json", 400, "at most"),
    ],
)  # fmt: skip
async def test_bodies_are_checked(url: str, body: bytes, kind: str, status: int, text: str) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/rollouts", data=body, headers={"Content-Type": kind}) as response,
    ):
        said = await response.json()

    assert response.status == status
    assert text in said["error"]["message"]


async def test_numbers_in_queries_are_checked_and_devices_listed(fleet: Fleet, url: str) -> None:
    await fleet.service.start()
    async with aiohttp.ClientSession() as session:
        for query in ("after=x", "after=-1", "limit=1e3", f"after={'9' * 20}"):
            async with session.get(f"{url}/rollouts/r1/history?{query}") as response:
                assert response.status == 400
        async with session.get(f"{url}/rollout-devices") as response:
            devices = (await response.json())["devices"]

    assert len(devices) == 30
    assert {one["serving"] for one in devices} == {digest(1)}


async def test_whoever_may_not_is_refused_before_anything_is_read(fleet: Fleet) -> None:
    def refuse(_: web.Request) -> None:
        raise StoppedError("show who you are")

    app = web.Application()
    RolloutApi(fleet.service.controller, fleet.service.desk, refuse).add_routes(app)
    async with (
        serving(app, "127.0.0.1", 0) as base,
        aiohttp.ClientSession() as session,
        session.get(f"{base}/rollouts") as response,
    ):
        assert (await response.json())["error"]["message"] == "show who you are"


async def test_a_terminal_is_written_over(
    fleet: Fleet, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shell.start()
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    watching = asyncio.create_task(shell.run("watch", "r1", code=1))
    await fleet.pass_time()
    await fleet.service.ask("abort")

    shown = await asyncio.wait_for(watching, 10)

    assert "r1: m/2 is aborted" in shown
    assert "aborting -> aborted, by operator:anna" in shown.splitlines()[-1]


def test_a_screen_writes_over_its_own_lines_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("LINES", "4")
    screen = rollout_watch._Screen()
    screen.add("something has happened")

    screen.show(["one", "a line that is longer than it is wide"])
    screen.show(["two", "b", "c", "d", "e"])
    screen.show(["three"])

    first, second, third = capsys.readouterr().out.split("\x1b[3F\x1b[J")
    assert first == "one\na line that is long\nsomething has happe\n"
    assert second == "two\nb\nc\n"
    assert third == "three\nsomething has happe\n"
