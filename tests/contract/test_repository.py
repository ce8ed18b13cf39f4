"""Every repository behind the same routes: a folder, a file system of fsspec, and a mirror."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import aiohttp
import fsspec
import pytest

from fakes.blobs import file_of, noise, publish, served, source
from regional_gateway.mirror import Mirror
from regional_gateway.mirror_store import MirrorStore
from runtime.adapters.blob_source import FsspecRepository
from runtime.adapters.blob_transfer import client_session
from runtime.adapters.clock import SystemClock

CONTENTS = noise(300_000)
FILE = file_of(CONTENTS)
ROOT, TARGET = b'{"signed": 1}', b"a manifest"
TARGET_PATH = f"targets/fashion/{file_of(TARGET).sha256}.manifest.json"
DOCUMENTS = {"metadata/1.root.json": ROOT, TARGET_PATH: TARGET}


@asynccontextmanager
async def folder(path: Path) -> AsyncIterator[str]:
    publish(path, CONTENTS, **DOCUMENTS)
    async with source(path) as counted:
        yield counted.url


@asynccontextmanager
async def elsewhere(_: Path) -> AsyncIterator[str]:
    files = fsspec.filesystem("memory")
    for name, contents in {f"blobs/{FILE.sha256}": CONTENTS, **DOCUMENTS}.items():
        files.pipe(f"/published/{name}", contents)
    try:
        async with served(FsspecRepository("memory://published")) as counted:
            yield counted.url
    finally:
        files.rm("/published", recursive=True)


@asynccontextmanager
async def mirror(path: Path) -> AsyncIterator[str]:
    store = MirrorStore.at(path / "mirror", max_bytes=10_000_000)
    async with folder(path) as above, client_session() as session:
        one = Mirror(store, session, above, SystemClock())
        async with served(one) as counted:
            yield counted.url
        await one.close()
    store.close()


Kind = Callable[[Path], AbstractAsyncContextManager[str]]


@pytest.fixture(params=[folder, elsewhere, mirror])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    kind: Kind = request.param
    async with kind(tmp_path) as url:
        yield f"{url}/updates"


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with client_session() as session:
        yield session


BLOB = f"/blobs/{FILE.sha256}"


class TestFiles:
    async def test_a_file_comes_as_it_is_named_for_ever_by_its_digest(
        self, url: str, session: aiohttp.ClientSession
    ) -> None:
        async with session.get(url + BLOB) as response:
            assert await response.read() == CONTENTS
            assert response.status == 200
            assert response.headers["ETag"] == f'"{FILE.sha256}"'
            assert response.headers["Accept-Ranges"] == "bytes"
            assert "immutable" in response.headers["Cache-Control"]

    async def test_its_length_can_be_asked_for_alone(
        self, url: str, session: aiohttp.ClientSession
    ) -> None:
        async with session.head(url + BLOB) as response:
            assert response.content_length == FILE.size_bytes
            assert await response.read() == b""

    @pytest.mark.parametrize(
        ("asked", "start", "end"),
        [("100000-", 100_000, 300_000), ("5-9", 5, 10), ("-7", 299_993, 300_000)],
    )
    async def test_a_part_comes_alone(
        self, url: str, session: aiohttp.ClientSession, asked: str, start: int, end: int
    ) -> None:
        headers = {"Range": f"bytes={asked}", "If-Match": f'"{FILE.sha256}"'}
        async with session.get(url + BLOB, headers=headers) as response:
            assert response.status == 206
            assert response.headers["Content-Range"] == f"bytes {start}-{end - 1}/300000"
            assert await response.read() == CONTENTS[start:end]

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"Range": "bytes=300000-"}, 416),
            ({"If-Match": '"other"'}, 412),
            ({"If-None-Match": f'"{FILE.sha256}"'}, 304),
            ({"Range": "bytes=1-2,4-5"}, 200),
        ],
    )
    async def test_conditions_are_kept(
        self, url: str, session: aiohttp.ClientSession, headers: dict[str, str], status: int
    ) -> None:
        async with session.get(url + BLOB, headers=headers) as response:
            assert response.status == status

    @pytest.mark.parametrize(
        "path",
        [
            "/blobs/" + "0" * 64,
            "/blobs/" + FILE.sha256.upper(),
            "/blobs/..%2f..%2fetc%2fpasswd",
            "/blobs/",
            "/metadata/9.root.json",
            "/metadata/..%2fsecret.json",
            "/targets/..%2f..%2fblobs%2f" + FILE.sha256,
            "/targets/fashion",
            "/deltas/" + "0" * 64 + "/" + FILE.sha256,
        ],
    )
    async def test_what_is_not_published_is_not_there(
        self, url: str, session: aiohttp.ClientSession, path: str
    ) -> None:
        async with session.get(url + path) as response:
            assert response.status == 404

    @pytest.mark.parametrize("path", DOCUMENTS)
    async def test_documents_come_byte_for_byte(
        self, url: str, session: aiohttp.ClientSession, path: str
    ) -> None:
        async with session.get(f"{url}/{path}") as response:
            assert await response.read() == DOCUMENTS[path]
