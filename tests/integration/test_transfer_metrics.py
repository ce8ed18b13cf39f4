"""Model files on their way are counted: requests, bytes, failures, and what the mirror fetches."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from aiohttp import web

from fakes.blobs import noise, publish, source
from fakes.mirrors import GONE, OPTIONS, get
from fakes.waiting import eventually
from regional_gateway.mirror import Mirror
from regional_gateway.mirror_store import MirrorStore
from runtime.adapters.blob_server import BlobServer, ServerLimits
from runtime.adapters.blob_transfer import client_session
from runtime.adapters.clock import SystemClock
from runtime.adapters.http_server import serving
from runtime.adapters.metrics import TierMetrics

CONTENTS = noise(300_000)


@dataclass
class Watched:
    url: str
    metrics: TierMetrics

    def counted(self, series: str) -> float:
        """The value of a series after ``tierwise_regional_``; 0 where there is none."""
        lines = self.metrics.render()[0].decode().splitlines()
        start = f"tierwise_regional_{series} "
        return sum(float(line.removeprefix(start)) for line in lines if line.startswith(start))


@asynccontextmanager
async def watched(
    folder: Path, above: str, limits: ServerLimits | None = None
) -> AsyncIterator[Watched]:
    metrics = TierMetrics("regional")
    store = MirrorStore.at(folder, max_bytes=10_000_000)
    async with client_session() as session:
        mirror = Mirror(store, session, above, SystemClock(), OPTIONS, metrics=metrics.transfers)
        app = web.Application()
        server = BlobServer(mirror, SystemClock(), limits, metrics=metrics.transfers)
        server.add_routes(app)
        async with serving(app, "127.0.0.1", 0) as url:
            yield Watched(url, metrics)
        await mirror.close()
    store.close()


async def test_a_file_is_counted_where_it_is_fetched_and_where_it_is_sent(tmp_path: Path) -> None:
    (file,) = publish(tmp_path / "cloud", CONTENTS)
    async with source(tmp_path / "cloud") as above, watched(tmp_path / "mirror", above.url) as one:
        for _ in range(2):
            await get(f"{one.url}/updates/blobs/{file.sha256}")
        await get(f"{one.url}/updates/blobs/{'0' * 64}")

        assert one.counted('transfer_requests_total{file="blob",status="200"}') == 2
        assert one.counted('transfer_requests_total{file="blob",status="404"}') == 1
        assert one.counted('transfer_sent_bytes_total{file="blob"}') == 2 * len(CONTENTS)
        assert one.counted('mirror_pulls_total{result="complete"}') == 1
        assert one.counted('mirror_pulls_total{result="unknown"}') == 1
        assert one.counted("mirror_pulled_bytes_total") >= len(CONTENTS)


async def test_what_is_not_to_be_had_is_a_failure(tmp_path: Path) -> None:
    async with watched(tmp_path / "mirror", GONE) as one:
        assert (await get(f"{one.url}/updates/blobs/{'0' * 64}"))[0] == 502

        assert one.counted('transfer_failures_total{file="blob",reason="unavailable"}') == 1
        assert one.counted('mirror_pulls_total{result="failed"}') == 1


async def test_who_leaves_and_who_finds_no_room_is_a_failure(tmp_path: Path) -> None:
    (file,) = publish(tmp_path / "cloud", CONTENTS)
    # Slow enough that the first transfer is under way until it is left.
    slow = ServerLimits(max_bytes_per_s=50_000, max_transfers=1)
    async with (
        source(tmp_path / "cloud") as above,
        watched(tmp_path / "mirror", above.url, slow) as one,
        aiohttp.ClientSession() as session,
    ):
        url = f"{one.url}/updates/blobs/{file.sha256}"
        first = await session.get(url)
        await first.content.readexactly(1)
        assert (await get(url))[0] == 503
        first.close()

        await eventually(
            lambda: one.counted('transfer_failures_total{file="blob",reason="left"}') == 1
        )
        assert one.counted('transfer_failures_total{file="blob",reason="busy"}') == 1
        assert one.counted('transfer_sent_bytes_total{file="blob"}') < len(CONTENTS)
