"""The operators' port opens to the token alone, and to no page of another site."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from cloud_tier.operators import access
from cloud_tier.operators.absent import refusals
from cloud_tier.operators.access import (
    COOKIE,
    FILE_NAME,
    SESSION_S,
    Door,
    OperatorFile,
    read_operator_file,
)
from cloud_tier.operators.listener import operators_listening
from cloud_tier.rollouts.http_parts import json_response, told
from fakes.clock import FakeClock
from runtime.errors import StartError
from tierwise.cli import main


def add_routes(app: web.Application, door: Door) -> None:
    async def handler(_: web.Request) -> web.Response:
        return json_response({"done": True})

    app.router.add_get("/thing", told(door.check, handler))
    app.router.add_post("/thing", told(door.check, handler))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def here(tmp_path: Path, clock: FakeClock) -> AsyncIterator[OperatorFile]:
    async with operators_listening(tmp_path, 0, clock, [add_routes]) as url:
        found = read_operator_file(tmp_path / FILE_NAME)
        assert found is not None
        assert found.url == url
        yield found


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar) as session:
        yield session


async def status(
    session: aiohttp.ClientSession, method: str, url: str, **headers: str
) -> tuple[int, str]:
    async with session.request(method, url, headers=headers) as response:
        if not response.content_length:
            return response.status, ""
        said = await response.json()
    return response.status, said["error"]["message"] if "error" in said else ""


async def test_a_program_shows_the_token(
    here: OperatorFile, session: aiohttp.ClientSession
) -> None:
    url = f"{here.url}/thing"
    for said, wanted in (
        (f"Bearer {here.token}", 200),
        (f"bearer {here.token}", 200),
        (f"Bearer {here.token[:-1]}", 401),
        (f"Basic {here.token}", 401),
        ("Bearer é", 401),
        ("", 401),
    ):
        assert (await status(session, "GET", url, Authorization=said))[0] == wanted
    assert (await status(session, "POST", url, Authorization=f"Bearer {here.token}"))[0] == 200


async def test_a_browser_gets_a_cookie_that_ends(
    here: OperatorFile, session: aiohttp.ClientSession, clock: FakeClock
) -> None:
    async with session.post(f"{here.url}/api/v1/session", json={"token": "x"}) as response:
        assert response.status == 401
    async with session.post(f"{here.url}/api/v1/session", json={"token": here.token}) as response:
        assert response.status == 204
        cookie = response.headers["Set-Cookie"]
    assert all(part in cookie for part in ("HttpOnly", "SameSite=Strict", "Path=/"))
    url = f"{here.url}/thing"

    assert (await status(session, "GET", url))[0] == 200
    assert (await status(session, "POST", url, Origin=here.url))[0] == 200
    code, text = await status(session, "POST", url)
    assert (code, "Origin" in text) == (403, True)
    clock.advance(SESSION_S + 1)
    assert (await status(session, "GET", url))[0] == 401


async def test_who_has_logged_out_is_out(
    here: OperatorFile, session: aiohttp.ClientSession
) -> None:
    url = f"{here.url}/api/v1/session"
    async with session.post(url, json={"token": here.token}) as response:
        cookie = response.cookies[COOKIE].value
    assert (await status(session, "DELETE", url, Origin=here.url))[0] == 204

    # Also for whoever has kept the cookie.
    kept = {"Cookie": f"{COOKIE}={cookie}"}
    assert (await status(session, "GET", f"{here.url}/thing", **kept))[0] == 401


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Host", "evil.example"),
        ("Host", "127.0.0.1.evil.example:80"),
        ("Host", "[::1"),
        ("Host", ""),
        ("Origin", "https://evil.example"),
        ("Origin", "http://127.0.0.1:1"),
        ("Origin", "null"),
    ],
)
async def test_other_names_and_pages_are_turned_away_with_the_token_too(
    here: OperatorFile, session: aiohttp.ClientSession, name: str, value: str
) -> None:
    token = {"Authorization": f"Bearer {here.token}"}
    for path in ("/thing", "/api/v1/session"):
        method = "GET" if path == "/thing" else "POST"
        code, _ = await status(session, method, f"{here.url}{path}", **token, **{name: value})
        assert code == 403


async def test_sessions_are_few(
    here: OperatorFile, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "MAX_SESSIONS", 2)
    cookies = []
    for _ in range(3):
        async with session.post(
            f"{here.url}/api/v1/session", json={"token": here.token}
        ) as response:
            cookies.append(response.cookies[COOKIE].value)
    session.cookie_jar.clear()

    codes = [
        (await status(session, "GET", f"{here.url}/thing", Cookie=f"{COOKIE}={one}"))[0]
        for one in cookies
    ]
    assert codes == [401, 200, 200]


async def test_the_token_stays_and_is_for_its_owner_alone(
    here: OperatorFile, tmp_path: Path, clock: FakeClock
) -> None:
    path = tmp_path / FILE_NAME
    assert path.stat().st_mode & 0o777 == 0o600
    async with operators_listening(tmp_path, 0, clock, []) as url:
        assert read_operator_file(path) == OperatorFile(url, here.token)


@pytest.mark.parametrize(
    "contents", [b"", b"{", b'{"url": "x"}', b'{"url": "x", "token": "short"}', b"\xff" * 5000]
)
async def test_a_file_that_is_none_stops_the_start(
    tmp_path: Path, clock: FakeClock, contents: bytes
) -> None:
    (tmp_path / FILE_NAME).write_bytes(contents)
    with pytest.raises(StartError, match=r"operator\.json"):
        async with operators_listening(tmp_path, 0, clock, []):
            pass


async def test_pages_load_nothing_from_elsewhere(
    here: OperatorFile, session: aiohttp.ClientSession
) -> None:
    async with session.get(f"{here.url}/thing") as response:
        policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


async def test_a_port_in_use_is_named_by_its_setting(
    here: OperatorFile, tmp_path: Path, clock: FakeClock
) -> None:
    port = int(here.url.rpartition(":")[2])
    with pytest.raises(StartError, match=r"operators\.port"):
        async with operators_listening(tmp_path, port, clock, []):
            pass


async def test_the_page_is_there_without_a_token_and_nothing_outside_its_folder(
    here: OperatorFile, session: aiohttp.ClientSession
) -> None:
    async with session.get(f"{here.url}/") as response:
        assert (response.status, response.content_type) == (200, "text/html")
    async with session.get(f"{here.url}/static/app.mjs") as response:
        assert (response.status, response.content_type) == (200, "text/javascript")
        assert response.headers["X-Content-Type-Options"] == "nosniff"
    for path in (
        "static/nothing.js",
        "static/..%2faccess.py",
        "static/%2e%2e/access.py",
        "static/",
    ):
        async with session.get(URL(f"{here.url}/{path}", encoded=True)) as response:
            assert response.status == 404
    async with session.get(f"{here.url}/api/v1/session") as response:
        assert response.status == 401


@pytest.mark.parametrize(
    ("ask", "wanted"),
    [
        (("rollout", "list"), "set updates.repository and rollouts.key_file"),
        (("experiment", "status", "E1"), "set updates.repository and rollouts.key_file"),
        (("metrics", "cost"), "the cloud tier keeps no telemetry"),
        (("review", "list"), "pip install 'tierwise[cloud]' where it runs"),
    ],
)
async def test_what_is_off_says_how_it_is_switched_on(
    tmp_path: Path,
    clock: FakeClock,
    capsys: pytest.CaptureFixture[str],
    ask: tuple[str, ...],
    wanted: str,
) -> None:
    off = refusals(has_rollouts=False, has_telemetry=False)
    file = str(tmp_path / FILE_NAME)

    async with operators_listening(tmp_path, 0, clock, off):
        code = await asyncio.to_thread(main, [*ask, "--operator", file])

    assert code == 1
    assert wanted in capsys.readouterr().err


async def test_what_is_off_is_told_to_those_alone_who_have_the_token(
    tmp_path: Path, clock: FakeClock, session: aiohttp.ClientSession
) -> None:
    off = refusals(has_rollouts=False, has_telemetry=True)

    async with operators_listening(tmp_path, 0, clock, off) as url:
        stranger = await status(session, "GET", f"{url}/rollouts")

    assert stranger[0] == 401


async def test_the_file_of_another_cloud_tier_is_told_from_none(
    tmp_path: Path,
    clock: FakeClock,
    session: aiohttp.ClientSession,
    capsys: pytest.CaptureFixture[str],
) -> None:
    off = refusals(has_rollouts=True, has_telemetry=False)
    stale = tmp_path / "stale.json"

    async with operators_listening(tmp_path, 0, clock, off) as url:
        stale.write_text(f'{{"url": "{url}", "token": "{"t" * 43}"}}')
        stale.chmod(0o600)
        words = ["metrics", "cost", "--operator", str(stale)]
        code = await asyncio.to_thread(main, words)
        async with session.get(f"{url}/api/v1/metrics/cost") as response:
            without = (await response.json())["error"]["message"]

    assert code == 1
    assert "this token is of another cloud tier: show that of" in capsys.readouterr().err
    assert without.startswith("show that of the operator.json in the state folder")


def test_what_is_on_refuses_nothing() -> None:
    assert refusals(has_rollouts=True, has_telemetry=True) == []
