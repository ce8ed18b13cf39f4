"""Model files on the way: a published folder, a device, and a gateway that cannot be trusted."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from aiohttp import web

from runtime.adapters.blob_client import BlobClient, DownloadOptions
from runtime.adapters.blob_server import BlobServer, ServerLimits
from runtime.adapters.blob_source import FolderRepository
from runtime.adapters.blob_transfer import Transfer, TransferLimits, client_session
from runtime.adapters.clock import SystemClock
from runtime.adapters.delta_maker import DeltaMaker
from runtime.adapters.filesystem import LocalFiles
from runtime.adapters.http_server import serving
from runtime.adapters.model_blobs import BLOBS, PARTIAL, Blobs
from runtime.core.mirrors import Patience
from runtime.manifest import ModelFile
from runtime.ports_files import FileSystem
from runtime.ports_updates import Repository

# Everything that takes seconds takes moments here.
HASTY = DownloadOptions(
    Patience(tries=2, rounds=1, busy_waits=200, progress_bytes=1 << 20),
    min_wait_s=0.005,
    max_wait_s=0.02,
)
QUICK = TransferLimits(patience_s=2.0, min_bytes_per_s=100_000)


def file_of(contents: bytes) -> ModelFile:
    return ModelFile(hashlib.sha256(contents).hexdigest(), len(contents))


def noise(size: int, seed: int = 1) -> bytes:
    """What no delta and no compression makes smaller."""
    return random.Random(seed).randbytes(size)


def publish(folder: Path, *contents: bytes, **documents: bytes) -> list[ModelFile]:
    """Puts files into a repository's folder."""
    (folder / "blobs").mkdir(parents=True, exist_ok=True)
    for one in contents:
        (folder / "blobs" / file_of(one).sha256).write_bytes(one)
    for path, text in documents.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text)
    return [file_of(one) for one in contents]


@dataclass
class Counted:
    """A server and what it was asked."""

    url: str
    requests: list[str] = field(default_factory=list)
    server: BlobServer | None = None


@asynccontextmanager
async def served(
    repository: Repository, *, limits: ServerLimits | None = None, deltas: DeltaMaker | None = None
) -> AsyncIterator[Counted]:
    """A repository behind real HTTP."""
    counted = Counted("")

    @web.middleware
    async def count(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        counted.requests.append(f"{request.method} {request.path}")
        return await handler(request)

    app = web.Application(middlewares=[count])
    counted.server = BlobServer(repository, SystemClock(), limits, deltas)
    counted.server.add_routes(app)
    async with serving(app, "127.0.0.1", 0) as counted.url:
        yield counted


@asynccontextmanager
async def source(folder: Path, **options: Any) -> AsyncIterator[Counted]:
    async with served(FolderRepository(folder), **options) as counted:
        yield counted


class Device:
    """Where files arrive; a context manager."""

    def __init__(
        self,
        files: FileSystem | Path,
        *mirrors: str,
        options: DownloadOptions = HASTY,
        limits: TransferLimits = QUICK,
        check_room: Callable[[int], None] = lambda _num_bytes: None,
    ) -> None:
        self.files = LocalFiles(files) if isinstance(files, Path) else files
        for folder in (BLOBS, PARTIAL):
            self.files.make_folder(folder)
        self.blobs = Blobs(self.files)
        self._mirrors, self._options, self._limits = mirrors, options, limits
        self._check_room = check_room
        self._exits = AsyncExitStack()
        self.transfer: Transfer
        self.client: BlobClient

    async def __aenter__(self) -> Self:
        session = await self._exits.enter_async_context(client_session())
        self.transfer = Transfer(session, SystemClock(), self._limits)
        self.client = BlobClient(
            self.transfer,
            self.blobs,
            self._mirrors,
            check_room=self._check_room,
            options=self._options,
            chance=random.Random(7),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exits.aclose()

    def contents(self, file: ModelFile) -> bytes:
        return self.blobs.read(file, 0, file.size_bytes)


Deed = Callable[["Hostile", web.Request, bytes], Awaitable[web.StreamResponse]]


class Hostile:
    """A gateway in somebody else's hands: ``deed`` answers for each file that is asked for."""

    def __init__(self, contents: bytes, deed: Deed, *, delta: bytes | None = None) -> None:
        self.contents, self.deed, self.delta = contents, deed, delta
        self.num_requests = self.sent_bytes = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_get("/updates/blobs/{sha256}", self._blob)
        app.router.add_get("/updates/deltas/{old}/{new}", self._delta)
        async with serving(app, "127.0.0.1", 0) as url:
            yield url

    async def _blob(self, request: web.Request) -> web.StreamResponse:
        self.num_requests += 1
        return await self.deed(self, request, self.contents)

    async def _delta(self, _: web.Request) -> web.StreamResponse:
        if self.delta is None:
            raise web.HTTPNotFound
        return web.Response(body=self.delta)

    async def write(self, response: web.StreamResponse, chunk: bytes) -> None:
        await response.write(chunk)
        self.sent_bytes += len(chunk)


async def flips_a_bit(_: Hostile, request: web.Request, contents: bytes) -> web.StreamResponse:
    spoilt = bytearray(contents)
    spoilt[len(spoilt) // 2] ^= 1
    return _part(request, bytes(spoilt))


async def truncates(hostile: Hostile, request: web.Request, contents: bytes) -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_length = len(contents)
    await response.prepare(request)
    await hostile.write(response, contents[: len(contents) // 3])
    assert request.transport is not None
    request.transport.close()
    return response


async def ends_early(hostile: Hostile, request: web.Request, contents: bytes) -> web.StreamResponse:
    """Chunked, so that only the length that was promised elsewhere tells."""
    response = web.StreamResponse()
    await response.prepare(request)
    await hostile.write(response, contents[: len(contents) // 3])
    return response


async def withholds(*_: object) -> web.StreamResponse:
    raise web.HTTPNotFound


async def replays_another(_: Hostile, request: web.Request, contents: bytes) -> web.StreamResponse:
    return _part(request, noise(len(contents), seed=99))


async def says_another_tag(_: Hostile, __: web.Request, contents: bytes) -> web.StreamResponse:
    return web.Response(body=contents, headers={"ETag": f'"{"0" * 64}"'})


async def forbids(*_: object) -> web.StreamResponse:
    raise web.HTTPForbidden(text="<html>log in</html>", content_type="text/html")


async def shows_a_page(_: Hostile, __: web.Request, contents: bytes) -> web.StreamResponse:
    return web.Response(body=b"x" * len(contents), content_type="text/html")


async def redirects(*_: object) -> web.StreamResponse:
    raise web.HTTPFound("http://127.0.0.1:9/elsewhere")


async def drips(hostile: Hostile, request: web.Request, contents: bytes) -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_length = len(contents)
    await response.prepare(request)
    for at in range(len(contents)):
        await hostile.write(response, contents[at : at + 1])
        await asyncio.sleep(0.01)
    return response


async def never_ends(hostile: Hostile, request: web.Request, _: bytes) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await hostile.write(response, bytes(65_536))


async def says_a_wrong_length(_: Hostile, __: web.Request, contents: bytes) -> web.StreamResponse:
    return web.Response(body=contents + b"and more")


async def says_a_wrong_range(_: Hostile, __: web.Request, contents: bytes) -> web.StreamResponse:
    headers = {"Content-Range": f"bytes 1-{len(contents)}/{len(contents)}"}
    return web.Response(status=206, body=contents, headers=headers)


async def encodes(_: Hostile, __: web.Request, contents: bytes) -> web.StreamResponse:
    return web.Response(body=contents, headers={"Content-Encoding": "gzip"})


async def fails(*_: object) -> web.StreamResponse:
    raise web.HTTPInternalServerError


async def hangs(*_: object) -> web.StreamResponse:
    await asyncio.sleep(3600)
    raise AssertionError


def _part(request: web.Request, contents: bytes) -> web.StreamResponse:
    start = request.http_range.start or 0
    if not start:
        return web.Response(body=contents)
    size = len(contents)
    headers = {"Content-Range": f"bytes {start}-{size - 1}/{size}"}
    return web.Response(status=206, body=contents[start:], headers=headers)
