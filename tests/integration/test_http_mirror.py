"""A repository behind HTTP, read by a thread that blocks; and servers that lie."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from fakes.blobs import (
    Deed,
    Hostile,
    drips,
    encodes,
    fails,
    forbids,
    hangs,
    never_ends,
    publish,
    redirects,
    says_a_wrong_range,
    shows_a_page,
    source,
    truncates,
    withholds,
)
from fakes.catalogue import Cloud, Device
from fakes.mirrors import GONE, region
from runtime.adapters.clock import SystemClock
from runtime.adapters.http_get import GetError, GetLimits, HttpServer
from runtime.adapters.http_mirror import MAX_WAIT_S, HttpMirror
from runtime.adapters.http_server import serving
from runtime.adapters.off_loop import in_thread
from runtime.core.mirrors import Trouble
from runtime.errors import FetchError, MissingFileError, SecurityError, StartError

PATH = "metadata/timestamp.json"
CONTENTS = b"what was published " * 9_000
HASTY = GetLimits(
    connect_s=2.0, patience_s=0.3, min_bytes_per_s=100_000, total_s=5.0, max_bytes=1_000_000
)


def mirror_of(
    *urls: str, limits: GetLimits = HASTY, waits: list[float] | None = None, **more: Any
) -> HttpMirror:
    """One that waits for nothing, and notes how long it would have."""
    return HttpMirror(urls, limits=limits, wait=(waits if waits is not None else []).append, **more)


async def read(mirror: HttpMirror, path: str = PATH) -> bytes:
    return b"".join(await in_thread(lambda: list(mirror.read(path))))


async def why_not(mirror: HttpMirror, path: str = PATH) -> FetchError:
    with pytest.raises(FetchError) as caught:
        await read(mirror, path)
    return caught.value


@asynccontextmanager
async def hostile(deed: Deed, contents: bytes = CONTENTS) -> AsyncIterator[tuple[str, Hostile]]:
    one = Hostile(contents, deed)

    async def document(request: web.Request) -> web.StreamResponse:
        one.num_requests += 1
        return await deed(one, request, contents)

    app = web.Application()
    app.router.add_get("/updates/{path:.+}", document)
    async with serving(app, "127.0.0.1", 0) as url:
        yield url, one


@asynccontextmanager
async def raw(
    answer: Callable[[asyncio.StreamWriter], Awaitable[None]], *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """A server that says whatever it likes."""
    answering: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        answering.add(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            await answer(writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield f"http{'s' if tls else ''}://127.0.0.1:{port}"
        await asyncio.gather(*answering)


def certificate(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What a server shows, and what a client has to know for it."""
    key, shown = folder / "key.pem", folder / "certificate.pem"
    subject = ["-subj", "/CN=mirror", "-addext", "subjectAltName=IP:127.0.0.1"]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run(
        ["openssl", "req", "-x509", *kind, "-keyout", key, "-out", shown, *subject],
        check=True,
        capture_output=True,
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(shown, key)
    return server, ssl.create_default_context(cafile=str(shown))


def saying(text: bytes) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(text)
        await writer.drain()

    return answer


async def honest(_: Hostile, __: web.Request, contents: bytes) -> web.StreamResponse:
    return web.Response(body=contents)


async def says_too_much(_: Hostile, __: web.Request, ___: bytes) -> web.StreamResponse:
    return web.Response(body=bytes(HASTY.max_bytes + 1))


class TestOneMirror:
    @pytest.mark.parametrize("size", [1, 65_536, 65_537, 700_000])
    async def test_a_file_comes_as_it_is_published(self, tmp_path: Path, size: int) -> None:
        publish(tmp_path, **{PATH: bytes(size), "targets/a/b/1.c.json": b"{}"})
        async with source(tmp_path) as counted:
            mirror = mirror_of(counted.url + "/")

            assert await read(mirror) == bytes(size)
            assert await read(mirror, "targets/a/b/1.c.json") == b"{}"

        assert counted.requests == [f"GET /updates/{PATH}", "GET /updates/targets/a/b/1.c.json"]

    async def test_a_body_in_chunks_is_read_to_its_end(self) -> None:
        async def in_chunks(one: Hostile, request: web.Request, body: bytes) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            for at in range(0, len(body), 50_000):
                await one.write(response, body[at : at + 50_000])
            return response

        async with hostile(in_chunks) as (url, _):
            assert await read(mirror_of(url)) == CONTENTS

    async def test_an_address_with_a_path_is_what_is_in_front(self) -> None:
        async with hostile(honest) as (url, _):
            error = await why_not(mirror_of(f"{url}/below"))

        assert isinstance(error, MissingFileError)

    @pytest.mark.parametrize("path", ["", "blobs/a", "metadata/../x.json", "metadata/a b.json"])
    async def test_what_no_document_is_called_is_not_asked_for(self, path: str) -> None:
        async with hostile(honest) as (url, one):
            assert isinstance(await why_not(mirror_of(url), path), MissingFileError)

        assert one.num_requests == 0

    @pytest.mark.parametrize(
        ("deed", "text", "num_requests"),
        [
            (drips, "too few bytes", 2),
            (hangs, "too few bytes", 2),
            (truncates, "missing at the end", 2),
            (fails, "status 500", 2),
            (redirects, "status 302", 1),
            (forbids, "status 403", 1),
            (shows_a_page, "portal", 1),
            (encodes, "encoded", 1),
            (says_a_wrong_range, "a part", 1),
            (never_ends, "more than 1000000 bytes", 1),
            (says_too_much, "1000001 bytes", 1),
        ],
    )
    async def test_what_is_wrong_is_named_and_its_end_is_near(
        self, deed: Deed, text: str, num_requests: int
    ) -> None:
        async with hostile(deed) as (url, one):
            error = await why_not(mirror_of(url))

        assert not isinstance(error, MissingFileError)
        assert text in str(error)
        assert one.num_requests == num_requests

    async def test_a_file_that_is_not_there_is_missing(self) -> None:
        async with hostile(withholds) as (url, _):
            assert isinstance(await why_not(mirror_of(url)), MissingFileError)

    @pytest.mark.parametrize(
        ("reply", "text"),
        [
            (b"", "without a reply"),
            (b"SSH-2.0-OpenSSH\r\n\r\n", "no HTTP reply"),
            (b"HTTP/1.1 200 OK\r\n\r\n{}", "how long"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{}", "how long"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "7 bytes are missing"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}", "ends early"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nmoon\r\n{}", "ends early"),
            (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000, "no HTTP reply"),
            (b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 200, "no HTTP reply"),
        ],
    )
    async def test_a_reply_that_is_none_is_named(self, reply: bytes, text: str) -> None:
        async with raw(saying(reply)) as url:
            assert text in str(await why_not(mirror_of(url)))

    async def test_a_head_that_drips_for_ever_is_given_up(self) -> None:
        async def drip(writer: asyncio.StreamWriter) -> None:
            while True:
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n"[:1])
                await writer.drain()
                await asyncio.sleep(0.01)

        async with raw(drip) as url:
            assert "too few bytes" in str(await why_not(mirror_of(url)))

    async def test_what_is_quick_enough_but_does_not_end_is_given_up(self) -> None:
        async def go_on(writer: asyncio.StreamWriter) -> None:
            while True:
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)
                await writer.drain()

        limits = GetLimits(total_s=0.2, min_bytes_per_s=1.0)
        async with raw(go_on) as url:
            assert "too few bytes" in str(await why_not(mirror_of(url, limits=limits)))

    async def test_nobody_there_is_named(self) -> None:
        error = await why_not(mirror_of(GONE))

        assert GONE in str(error)
        assert "no connection" in str(error)

    async def test_a_busy_mirror_is_asked_again_when_it_says(self) -> None:
        waits: list[float] = []

        async def busy_twice(one: Hostile, _: web.Request, contents: bytes) -> web.StreamResponse:
            if one.num_requests > 2:
                return web.Response(body=contents)
            asked = {1: "4", 2: "3000"}[one.num_requests]
            raise web.HTTPServiceUnavailable(headers={"Retry-After": asked})

        async with hostile(busy_twice) as (url, _):
            assert await read(mirror_of(url, waits=waits)) == CONTENTS

        assert waits == [4.0, MAX_WAIT_S]

    async def test_one_that_is_always_busy_is_given_up(self) -> None:
        async def busy(*_: object) -> web.StreamResponse:
            raise web.HTTPServiceUnavailable(headers={"Retry-After": "1"})

        async with hostile(busy) as (url, one):
            assert "status 503" in str(await why_not(mirror_of(url)))

        assert one.num_requests == 4

    async def test_busy_without_a_time_is_a_failure(self) -> None:
        async def busy(*_: object) -> web.StreamResponse:
            raise web.HTTPServiceUnavailable

        async with hostile(busy) as (url, _):
            with pytest.raises(GetError) as caught:
                await in_thread(HttpServer(url, SystemClock()).get, f"/updates/{PATH}")

        assert caught.value.trouble is Trouble.SERVER_FAILED

    async def test_https_is_spoken_with_whose_certificate_is_known(self, tmp_path: Path) -> None:
        server, client = certificate(tmp_path)
        reply = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
        async with raw(saying(reply), tls=server) as url:
            assert await read(mirror_of(url, tls=client)) == b"{}"
            error = await why_not(mirror_of(url))

        assert "certificate" in str(error)

    async def test_a_plain_server_is_no_https_server(self) -> None:
        async with hostile(honest) as (url, one):
            error = await why_not(mirror_of(url.replace("http:", "https:")))

        assert "no connection" in str(error)
        assert one.num_requests == 0

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "gateway:8471",
            "ftp://gateway",
            "http://",
            "http://gateway?x",
            "http://user:word@gateway",
            "http://gate way",
            "http://gateway:port",
            f"http://{'a' * 70}",
            "http://gateway\n",
        ],
    )
    def test_what_is_no_address_is_refused_at_once(self, url: str) -> None:
        with pytest.raises(StartError, match="no address of a mirror"):
            mirror_of(url)

    def test_no_address_is_refused(self) -> None:
        with pytest.raises(StartError, match="no mirror is named"):
            HttpMirror([])


class TestSeveralMirrors:
    @pytest.mark.parametrize("deed", [truncates, drips, withholds, forbids, never_ends, fails])
    async def test_the_next_one_is_asked_and_stays_the_first(self, deed: Deed) -> None:
        async with hostile(deed) as (bad, one), hostile(honest) as (good, _):
            mirror = mirror_of(bad, good)

            assert await read(mirror) == CONTENTS
            num_requests = one.num_requests
            assert await read(mirror) == CONTENTS

            assert mirror.first == good
            assert one.num_requests == num_requests

    async def test_one_that_is_gone_hides_nothing_that_another_misses(self) -> None:
        async with hostile(withholds) as (url, _):
            assert isinstance(await why_not(mirror_of(GONE, url)), MissingFileError)
            assert isinstance(await why_not(mirror_of(url, GONE)), MissingFileError)

    async def test_one_whose_files_do_not_verify_is_passed_over(self) -> None:
        mirror = mirror_of("http://a", "http://b")

        mirror.pass_over()

        assert mirror.first == "http://b"
        mirror.pass_over()
        assert mirror.first == "http://a"


class TestCatalogue:
    async def test_a_device_refreshes_through_a_gateways_mirror(
        self, cloud: Cloud, tmp_path: Path
    ) -> None:
        cloud.publish(2)
        async with source(cloud.folder) as above, region(tmp_path / "gateway", above.url) as one:
            await one.mirror.refresh()
            device = Device(tmp_path / "device", mirror_of(one.url), cloud.root)
            await in_thread(device.catalogue.refresh)
            entries = await in_thread(device.catalogue.entries)
            cloud.publish(3)
            cloud.rotate("targets")
            await one.mirror.refresh()
            refreshed = await in_thread(device.catalogue.refresh)
            device.store.close()

        assert set(entries) == {"m/1.json", "m/2.json"}
        assert set(device.catalogue.paths()) == {"m/1.json", "m/2.json", "m/3.json"}
        assert refreshed.versions["root"] == 2

    async def test_a_second_gateway_serves_on_when_the_first_is_gone(
        self, cloud: Cloud, tmp_path: Path
    ) -> None:
        async with source(cloud.folder) as above, region(tmp_path / "two", above.url) as two:
            await two.mirror.refresh()
            device = Device(tmp_path / "device", mirror_of(GONE, two.url), cloud.root)
            await in_thread(device.catalogue.refresh)
            device.store.close()

        assert device.catalogue.paths() == ("m/1.json",)

    @pytest.mark.parametrize("deed", [truncates, forbids, shows_a_page, never_ends, redirects])
    async def test_an_outage_is_not_taken_for_an_attack(
        self, cloud: Cloud, tmp_path: Path, deed: Deed
    ) -> None:
        async with hostile(deed) as (url, _):
            device = Device(tmp_path / "device", mirror_of(url), cloud.root)
            with pytest.raises(FetchError):
                await in_thread(device.catalogue.refresh)
            device.store.close()

        assert device.catalogue.versions == {}

    async def test_what_was_changed_on_the_way_is_an_attack(
        self, cloud: Cloud, tmp_path: Path
    ) -> None:
        async def change(_: Hostile, request: web.Request, __: bytes) -> web.StreamResponse:
            path = cloud.folder / request.match_info["path"]
            if not path.exists():
                raise web.HTTPNotFound
            return web.Response(body=path.read_bytes().replace(b"m/1.json", b"m/9.json"))

        async with hostile(change) as (url, _):
            device = Device(tmp_path / "device", mirror_of(url), cloud.root)
            with pytest.raises(SecurityError):
                await in_thread(device.catalogue.refresh)
            device.store.close()
