"""A region's mirror behind real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fakes.blobs import HASTY, QUICK, served
from regional_gateway.mirror import Mirror, MirrorOptions
from regional_gateway.mirror_store import MirrorStore
from runtime.adapters.blob_server import ServerLimits
from runtime.adapters.blob_transfer import client_session
from runtime.adapters.clock import SystemClock
from runtime.ports_files import FileSystem

OPTIONS = MirrorOptions(wait_s=5.0, download=HASTY, transfer=QUICK)
# Where nobody listens.
GONE = "http://127.0.0.1:9"


@dataclass
class Region:
    mirror: Mirror
    store: MirrorStore
    url: str


@asynccontextmanager
async def region(
    files: Path | FileSystem,
    above: str,
    *,
    max_bytes: int = 10_000_000,
    options: MirrorOptions = OPTIONS,
    limits: ServerLimits | None = None,
) -> AsyncIterator[Region]:
    if isinstance(files, Path):
        store = MirrorStore.at(files, max_bytes=max_bytes)
    else:
        store = MirrorStore(files, max_bytes=max_bytes)
    try:
        async with client_session() as session:
            mirror = Mirror(store, session, above, SystemClock(), options)
            async with served(mirror, limits=limits) as counted:
                yield Region(mirror, store, counted.url)
            await mirror.close()
    finally:
        store.close()


async def get(url: str) -> tuple[int, bytes]:
    async with client_session() as session, session.get(url) as response:
        return response.status, await response.read()
