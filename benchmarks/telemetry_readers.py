"""How fast many readers are answered over HTTP while much telemetry arrives.

    python benchmarks/telemetry_readers.py [--rows 2000000] [--keep FILE | --url URL] [--json]

Runs what the cloud tier runs of it in this process: the store with its chores, and the operators'
port with its door. Gateways' rollups of 200 rows come at ``--rate`` rows a second, each when it is
due. Readers are in another process. They ask the questions of ``telemetry_store.py`` in turn, first
without a pause (a closed loop), then each reader one question a second, timed from when it was due;
then both again with questions that no other reader asks, so that nobody shares an answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import telemetry_store as kept

from cloud_tier.operators.listener import operators_listening
from cloud_tier.settings import CloudSettings, TelemetrySettings
from cloud_tier.telemetry.service import Telemetry, keeping_telemetry
from cloud_tier.telemetry.store import TelemetryStore
from runtime.adapters.clock import SystemClock
from runtime.common_settings import StateSettings
from runtime.errors import StorageError
from runtime.messages import ItemKind
from runtime.ports import OutboxItem
from runtime.telemetry import Rollup, RollupRow, Source, encode_rollup

# Ten minutes into an hour: what came before it waits to be added up meanwhile.
BEGIN_S = kept.NOW_S + 600.0
WARM_UP_S = 5.0
# Rollups on their way at once; gateways wait for word of each.
MAX_UNDERWAY = 64
# Too many questions wait, and a question took too long; any other status ends the benchmark.
REFUSALS = (503, 504)
LOADS = ("closed loop", "1/s each", "closed loop, each its own", "1/s each, each its own")


@dataclass
class Arrivals:
    """What has come of the rollups."""

    rows: int = 0
    refused: int = 0
    lags_s: list[float] = field(default_factory=list)


def gateway_rollups(num: int, some: list[dict[int, int]], seed: str) -> list[OutboxItem]:
    """Rollups of 200 rows as a region's gateway merges them: 25 sites with 8 series each."""
    sites_of_region = kept.SITES // kept.REGIONS
    rows_of_site = kept.ROLLUP_ROWS // sites_of_region
    items = []
    for number in range(num):
        region, turn = number % kept.REGIONS, number // kept.REGIONS
        rows, sources = [], []
        for site in range(region, kept.SITES, kept.REGIONS):
            for at in range(rows_of_site):
                series = kept.series_of(site, (turn * rows_of_site + at) % kept.SERIES_PER_SITE)
                rows.append(
                    RollupRow(
                        minutes_ago=1, **series._asdict(), count=30, late=0, sent_bytes=10,
                        service_us=900, latency_ms_sum=90.0, cost_sum=1.0, confident=30,
                        confidence_sum=28.0, confidences={18: 30},
                        latency=some[(number + at) % len(some)],
                    )
                )  # fmt: skip
            count = 30 * rows_of_site
            place = f"r{region}", f"site-{site}"
            sources.append(Source(*place, "edge", seed, turn * count + 1, (turn + 1) * count))
        body = encode_rollup(Rollup(tuple(sources), tuple(rows)))
        origin = f"cloud/gw-{region}"
        items.append(OutboxItem(f"{seed}-{number}", ItemKind.METRICS, BEGIN_S, body, origin=origin))
    return items


async def arrive(
    telemetry: Telemetry, items: Sequence[OutboxItem], rate: float, found: Arrivals
) -> None:
    """Has each rollup taken when it is due, until cancelled or none is left."""
    underway = asyncio.Semaphore(MAX_UNDERWAY)

    async def take(item: OutboxItem, due_s: float) -> None:
        try:
            await telemetry.apply(item)
        except StorageError:
            # It may be sent again; whatever else goes wrong ends the benchmark.
            found.refused += 1
        else:
            found.rows += kept.ROLLUP_ROWS
            found.lags_s.append(time.perf_counter() - due_s)
        finally:
            underway.release()

    began_s = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for number, item in enumerate(items):
            due_s = began_s + number * kept.ROLLUP_ROWS / rate
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            await underway.acquire()
            tasks.create_task(take(item, due_s))


@asynccontextmanager
async def cloud(url: str, folder: Path) -> AsyncIterator[tuple[Telemetry, str, str]]:
    """The store and the operators' port; gives the URL and the token of this one, too."""
    settings = CloudSettings(
        cloud="cloud-1",
        state=StateSettings(folder=str(folder)),
        telemetry=TelemetrySettings(url=url, max_rows=100_000_000),
    )
    began_s = time.monotonic()
    wall = lambda: BEGIN_S + time.monotonic() - began_s  # noqa: E731
    async with keeping_telemetry(settings, wall) as telemetry:
        if telemetry is None:
            raise SystemExit("pip install 'tierwise[cloud]'")
        adders = [telemetry.add_routes]
        async with operators_listening(folder, 0, SystemClock(), adders) as base:
            said = json.loads((folder / "operator.json").read_text())
            yield telemetry, base, said["token"]


async def ask_for(base: str, token: str, load: str, num: int, seconds: float) -> dict[str, Any]:
    """What readers of this process see: ms of each answer by question, and refusals."""
    times_ms: dict[str, list[float]] = {}
    refused: Counter[str] = Counter()
    own, pause_s = load.endswith("own"), 1.0 if load.startswith("1/s") else 0.0
    headers = {"Authorization": f"Bearer {token}"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
        began_s = time.perf_counter()

        async def reads(reader: int) -> None:
            due_s = began_s + pause_s * reader / num
            at = reader
            while due_s < began_s + seconds:
                await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
                metric, words = kept.QUESTIONS[at % len(kept.QUESTIONS)]
                asked = {"since": "24h", **words}
                if own:
                    asked["limit"] = str(1000 + reader)
                from_s = due_s if pause_s else time.perf_counter()
                async with session.get(f"{base}/api/v1/metrics/{metric}", params=asked) as response:
                    await response.read()
                    took_ms = (time.perf_counter() - from_s) * 1000
                    if response.status in REFUSALS:
                        refused[str(response.status)] += 1
                    else:
                        response.raise_for_status()
                        times_ms.setdefault(kept.text_of(metric, words), []).append(took_ms)
                at += 1
                due_s = due_s + pause_s if pause_s else time.perf_counter()

        await asyncio.gather(*(reads(reader) for reader in range(num)))
    return {"times_ms": times_ms, "refused": dict(refused)}


def told(said: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Percentiles of what readers saw."""
    times: dict[str, list[float]] = said["times_ms"]
    everything = [one for some in times.values() for one in some]
    return {
        "answers_per_s": round(len(everything) / seconds, 1),
        "refused": said["refused"],
        "all": percentiles(everything),
        "questions": {name: percentiles(some) for name, some in times.items()},
    }


def percentiles(times_ms: list[float]) -> dict[str, float]:
    """The 50th, 95th and 99th, and the longest, in ms."""
    cuts = statistics.quantiles(times_ms, n=100, method="inclusive")
    return {
        "p50_ms": round(cuts[49], 1),
        "p95_ms": round(cuts[94], 1),
        "p99_ms": round(cuts[98], 1),
        "max_ms": round(max(times_ms), 1),
    }


async def measured(url: str, folder: Path, load: str, options: argparse.Namespace) -> Any:  # noqa: ANN401 - JSON
    """One load, while rollups arrive."""
    some = kept.sketches(random.Random(11))  # noqa: S311 - no secret
    num = int((options.seconds + 2 * WARM_UP_S) * options.rate / kept.ROLLUP_ROWS)
    items = gateway_rollups(num, some, f"{random.SystemRandom().getrandbits(32):x}")
    async with cloud(url, folder) as (telemetry, base, token):
        found = Arrivals()
        arriving = asyncio.create_task(arrive(telemetry, items, options.rate, found))
        await asyncio.sleep(WARM_UP_S)
        began_s, rows, cpu_s = time.perf_counter(), found.rows, _cpu_s()
        found.lags_s.clear()
        process = await asyncio.create_subprocess_exec(
            sys.executable, __file__, "--ask", base, "--token", token, "--load", load,
            "--readers", str(options.readers), "--seconds", str(options.seconds),
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        output, _ = await process.communicate()
        took_s = time.perf_counter() - began_s
        if process.returncode:
            raise SystemExit("the readers failed")
        arrived = {
            "rows_per_s": round((found.rows - rows) / took_s),
            "refused_rollups": found.refused,
            "lag_p50_ms": round(statistics.median(found.lags_s) * 1000),
            "lag_max_ms": round(max(found.lags_s) * 1000),
            "cpu_share_of_a_core": round((_cpu_s() - cpu_s) / took_s, 2),
        }
        arriving.cancel()
        await asyncio.gather(arriving, return_exceptions=True)
    return {"load": load, "arrived": arrived, **told(json.loads(output), options.seconds)}


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def measure(url: str, path: Path, options: argparse.Namespace) -> list[Any]:
    """All loads, one after the other, on a store that is filled first."""
    if options.url or not await asyncio.to_thread(path.exists):
        some = kept.sketches(random.Random(7))  # noqa: S311 - no secret
        with TelemetryStore(url, wall_s=lambda: float(kept.NOW_S)) as store:
            packed = [kept.pack(one) for one in some]
            await asyncio.to_thread(kept.fill, store, options.rows, packed)
            await kept.add_up(store, options.rows)
            await kept.ingest(store, some)
    figures = []
    for load in options.loads:
        with tempfile.TemporaryDirectory() as folder:
            figures.append(await measured(url, Path(folder), load, options))
    return figures


def main() -> None:
    """Prints a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--url", default="", help="an empty database")
    parser.add_argument("--keep", type=Path, help="SQLite's file, filled if it is not there")
    parser.add_argument("--rate", type=float, default=5000.0)
    parser.add_argument("--readers", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--loads", nargs="+", choices=LOADS, default=list(LOADS))
    parser.add_argument("--json", action="store_true")
    for name in ("--ask", "--token", "--load"):
        parser.add_argument(name, default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ask:
        asking = ask_for(
            options.ask, options.token, options.load, options.readers, options.seconds
        )  # fmt: skip
        print(json.dumps(asyncio.run(asking)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path: Path = options.keep or Path(folder) / "telemetry.sqlite"
        url = options.url or f"sqlite:///{path.absolute()}"
        figures = asyncio.run(measure(url, path, options))
    if options.json:
        print(json.dumps(figures, indent=2))
        return
    for one in figures:
        print(f"\n{one['load']}: {one['answers_per_s']} answers/s, refused {one['refused']}")
        print("  " + ", ".join(f"{name} {value}" for name, value in one["arrived"].items()))
        print(f"{'p50 ms':>9} {'p95':>7} {'p99':>7} {'max':>7}  question")
        for name, times in {"(all)": one["all"], **one["questions"]}.items():
            print(
                f"{times['p50_ms']:9.1f} {times['p95_ms']:7.1f} {times['p99_ms']:7.1f} "
                f"{times['max_ms']:7.1f}  {name}"
            )


if __name__ == "__main__":
    main()
