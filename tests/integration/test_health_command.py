from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from runtime.adapters.http_server import serving


@asynccontextmanager
async def answering(status: int, body: str = "") -> AsyncIterator[str]:
    """A process that says this when it is asked whether it is ready."""

    async def ready(_: web.Request) -> web.Response:
        return web.Response(status=status, text=body)

    app = web.Application()
    app.router.add_get("/v2/health/ready", ready)
    async with serving(app, "127.0.0.1", 0) as base:
        yield base


async def health(*words: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tierwise", "health", *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complained = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode(), complained.decode()


async def test_a_process_that_is_ready() -> None:
    async with answering(200) as url:
        assert await health("--url", url) == (0, "ready\n", "")


async def test_one_that_an_operator_has_stopped_is_ready_and_says_so() -> None:
    async with answering(200, '{"mode": "abstain"}') as url:
        code, said, _ = await health("--url", f"{url}/", "--json")

    assert code == 0
    assert json.loads(said)["stopped"] == "abstain"


@pytest.mark.parametrize("body", ['{"mode": "abs', "{}", "{" * 9000])
async def test_what_it_says_beside_that_is_no_matter_of_health(body: str) -> None:
    async with answering(200, body) as url:
        assert await health("--url", url) == (0, "ready\n", "")


async def test_no_proxy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    async with answering(200) as url:
        assert await health("--url", url) == (0, "ready\n", "")


async def test_one_that_is_not_ready() -> None:
    async with answering(503) as url:
        code, _, complained = await health("--url", url)

    assert code == 1
    assert "HTTP status 503" in complained


async def test_nobody_there() -> None:
    code, said, _ = await health("--url", "http://127.0.0.1:1", "--json")

    assert code == 1
    assert json.loads(said)["ready"] is False


@pytest.mark.parametrize("words", [(), ("--url", "127.0.0.1:80"), ("--url", "ftp://x")])
async def test_a_url_is_needed(words: tuple[str, ...]) -> None:
    code, _, complained = await health(*words)

    assert code == 2
    assert "--url" in complained
