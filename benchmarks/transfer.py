"""What a model download costs the inferences beside it, with and without pacing.

A host in a process of its own answers inferences over HTTP with the bundled edge model, and is a
mirror: one event loop for both, which is the worst case. A source and a device are processes, too.
In a transfer the mirror, which is empty, pulls a file from the source, and the device downloads it
from there; pictures are asked all the while, one after another with a pause between.

The conditions (no transfer, a paced one, one without pacing) take turns, because the machine is
shared. Printed are percentiles over all rounds, and the median over rounds of the ratio to the
quiet condition of the same round.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp
import numpy as np
import structlog
from aiohttp import web

from edge_agent.agent import Agent
from edge_agent.http_api import InferenceApi
from edge_agent.settings import EdgeSettings
from hardware_profiles.detect import detect
from regional_gateway.mirror import Mirror, MirrorOptions
from regional_gateway.mirror_store import MirrorStore
from runtime.adapters.artifacts import sha256_of
from runtime.adapters.blob_client import BlobClient, Wanted
from runtime.adapters.blob_server import BlobServer, ServerLimits
from runtime.adapters.blob_source import FolderRepository
from runtime.adapters.blob_transfer import Transfer, TransferLimits, client_session
from runtime.adapters.clock import SystemClock
from runtime.adapters.filesystem import LocalFiles
from runtime.adapters.http_server import serving
from runtime.adapters.memory_bus import MemoryBroker, MemoryBus
from runtime.adapters.model_store import ModelStore
from runtime.common_settings import EscalationSettings, StateSettings
from runtime.manifest import ModelFile

PICTURE = {
    "inputs": [{"name": "image", "shape": [1, 28, 28], "datatype": "FP32", "data": [0.5] * 784}]
}
PAUSE_S = 0.01
NONE, PACED, UNPACED = "no transfer", "paced", "not paced"
START_S = 30.0


@dataclass
class Seen:
    """Times of one condition."""

    times_ms: list[float] = field(default_factory=list)
    p50s_ms: list[float] = field(default_factory=list)
    p95s_ms: list[float] = field(default_factory=list)
    transfers_s: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Published:
    """A file, and who has it."""

    folder: str
    file: ModelFile
    url: str


def _quiet() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))


def source(folder: str, pipe: Connection) -> None:
    """A process that serves a folder, as fast as it can, until it is ended."""
    _quiet()

    async def run() -> None:
        app = web.Application()
        BlobServer(FolderRepository(Path(folder)), SystemClock()).add_routes(app)
        async with serving(app, "127.0.0.1", 0) as url:
            pipe.send(url)
            await asyncio.Event().wait()

    asyncio.run(run())


def host(folder: str, above: str, bytes_per_s: int | None, pipe: Connection) -> None:
    """A process that answers inferences and is a mirror, until it is ended."""
    _quiet()

    async def run() -> None:
        settings = EdgeSettings(
            agent="host",
            region="r",
            state=StateSettings(folder=f"{folder}/state"),
            escalation=EscalationSettings(enabled=False),
        )
        options = MirrorOptions(wait_s=1.0, transfer=TransferLimits(max_bytes_per_s=bytes_per_s))
        store = MirrorStore.at(Path(folder) / "mirror", max_bytes=1 << 30)
        async with (
            Agent(settings, bus=MemoryBus(MemoryBroker(), client_id="host")) as agent,
            client_session() as session,
        ):
            app = InferenceApi(agent).app()
            mirror = Mirror(store, session, above, SystemClock(), options)
            BlobServer(mirror, SystemClock(), ServerLimits(bytes_per_s)).add_routes(app)
            async with serving(app, "127.0.0.1", 0) as url:
                pipe.send(url)
                await asyncio.Event().wait()

    asyncio.run(run())


def device(folder: str, mirror: str, file: ModelFile, pipe: Connection) -> None:
    """A process that downloads one file and says how long that took."""
    _quiet()

    async def run() -> None:
        began_s = time.perf_counter()
        async with client_session() as session:
            with ModelStore(LocalFiles(Path(folder)), reserve_bytes=0) as store:
                client = BlobClient(
                    Transfer(session, SystemClock()),
                    store.blobs,
                    [mirror],
                    check_room=store.check_bytes,
                )
                (await client.fetch([Wanted(file)])).raise_for_failure()
        pipe.send(time.perf_counter() - began_s)

    asyncio.run(run())


@contextlib.asynccontextmanager
async def started(target: Callable[..., None], *args: object) -> AsyncIterator[Connection]:
    """A process, ended in the end."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=target, args=(*args, theirs), daemon=True
    )
    process.start()
    try:
        yield ours
    finally:
        process.kill()
        process.join()


async def said(pipe: Connection, timeout_s: float = START_S) -> object:
    """What a process says first."""
    if not await asyncio.to_thread(pipe.poll, timeout_s):
        raise SystemExit("a process of the benchmark has said nothing")
    return pipe.recv()


async def ask(session: aiohttp.ClientSession, url: str, seen: list[float]) -> None:
    """One picture."""
    began_s = time.perf_counter()
    async with session.post(f"{url}/v2/models/fashion/infer", json=PICTURE) as response:
        if response.status != 200:  # noqa: PLR2004
            raise SystemExit(await response.text())
        await response.read()
    seen.append((time.perf_counter() - began_s) * 1000)
    await asyncio.sleep(PAUSE_S)


async def condition(
    name: str, published: Published, options: argparse.Namespace, seen: Seen
) -> None:
    """One round of one condition."""
    rate = options.bytes_per_s if name == PACED else None
    file = published.file
    with tempfile.TemporaryDirectory(dir=published.folder) as folder:
        async with (
            started(host, folder, published.url, rate) as pipe,
            aiohttp.ClientSession() as session,
        ):
            url = str(await said(pipe))
            warm: list[float] = []
            for _ in range(50):
                await ask(session, url, warm)
            times_ms: list[float] = []
            if name == NONE:
                for _ in range(options.requests):
                    await ask(session, url, times_ms)
            else:
                async with started(device, f"{folder}/device", url, file) as told:
                    took = asyncio.ensure_future(said(told, 300.0))
                    # Its imports are not what is measured.
                    partial = Path(folder) / "mirror" / "partial" / file.sha256
                    while not partial.exists():  # noqa: ASYNC110 another process makes it
                        await asyncio.sleep(PAUSE_S)
                    while not took.done():
                        await ask(session, url, times_ms)
                    seen.transfers_s.append(float(str(await took)))
    seen.times_ms += times_ms
    seen.p50s_ms.append(float(np.quantile(times_ms, 0.5)))
    seen.p95s_ms.append(float(np.quantile(times_ms, 0.95)))


async def measure(options: argparse.Namespace) -> list[dict[str, object]]:
    """All conditions in turn, so many rounds."""
    seen: dict[str, Seen] = defaultdict(Seen)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        contents = random.Random(1).randbytes(options.mb * 1_000_000)  # noqa: S311
        file = ModelFile(sha256_of(contents), len(contents))
        (work / "published" / "blobs").mkdir(parents=True)
        (work / "published" / "blobs" / file.sha256).write_bytes(contents)
        async with started(source, str(work / "published")) as pipe:
            published = Published(folder, file, str(await said(pipe)))
            for _ in range(options.rounds):
                for name in (NONE, PACED, UNPACED):
                    await condition(name, published, options, seen[name])
    quiet = seen[NONE]
    return [
        {
            "condition": name,
            "requests": len(one.times_ms),
            "p50_ms": round(float(np.quantile(one.times_ms, 0.5)), 2),
            "p95_ms": round(float(np.quantile(one.times_ms, 0.95)), 2),
            "p50_ratio": round(float(np.median(np.divide(one.p50s_ms, quiet.p50s_ms))), 2),
            "p95_ratio": round(float(np.median(np.divide(one.p95s_ms, quiet.p95s_ms))), 2),
            "transfer_s": round(float(np.median(one.transfers_s)), 1) if one.transfers_s else None,
        }
        for name, one in seen.items()
    ]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mb", type=int, default=50, help="size of the file")
    parser.add_argument("--bytes-per-s", type=int, default=8_000_000, help="pace, each way")
    parser.add_argument("--requests", type=int, default=500, help="a round without a transfer")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    _quiet()
    rows = asyncio.run(measure(options))
    if options.json:
        print(json.dumps({"machine": str(detect()), "rows": rows}))
        return
    print("  ".join(f"{name:>11}" for name in rows[0]))
    for row in rows:
        print("  ".join(f"{value!s:>11}" for value in row.values()))


if __name__ == "__main__":
    main()
