"""How fast telemetry is taken, added up and asked about.

    python benchmarks/telemetry_store.py [--rows 10000000] [--url URL | --keep FILE] [--json]

Fills a database (a new SQLite file, unless ``--url`` names an empty one) with so many rows of
minutes: 200 sites with 35 series each, minute after minute; adds all of them up to hours and days
as the cloud tier does, takes rollups of 200 rows, and asks questions that read hours. ``--keep``
fills a file that is not there yet, and only asks if it is.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from cloud_tier.telemetry import tables
from cloud_tier.telemetry.asking import question
from cloud_tier.telemetry.database import put, writing
from cloud_tier.telemetry.downsampling import count_rows
from cloud_tier.telemetry.intake import DAY_S, HOUR_S, MINUTE_S
from cloud_tier.telemetry.limits import Retention
from cloud_tier.telemetry.reading import answer
from cloud_tier.telemetry.series import Series, digest_of
from cloud_tier.telemetry.short_ids import ShortIds
from cloud_tier.telemetry.shortening import add_short
from cloud_tier.telemetry.sketches import pack
from cloud_tier.telemetry.store import TelemetryStore
from runtime.core.sketch import bucket_of
from runtime.messages import ItemKind
from runtime.ports import OutboxItem
from runtime.telemetry import Rollup, RollupRow, Source, encode_rollup

SITES, SERIES_PER_SITE, REGIONS = 200, 35, 8
# At noon: a day back from here is no whole day, so that hours have to be read.
NOW_S = 1_790_000_000 // DAY_S * DAY_S + DAY_S // 2 - 1
CHUNK, STEP_ROWS, ROLLUPS, ROLLUP_ROWS, REPEATS = 20_000, 20_000, 200, 200, 5
QUESTIONS: tuple[tuple[str, dict[str, str]], ...] = (
    ("escalations", {"by": "tier"}),
    ("escalations", {"by": "region,reason"}),
    ("escalations", {"by": "region,hour"}),
    ("latency", {"by": "tier"}),
    ("latency", {"by": "site", "limit": "1000"}),
    ("latency", {"by": "hour", "where": "region=r1"}),
    ("cost", {"by": "site"}),
    ("rollouts", {}),
    ("fleet", {}),
    ("latency", {"by": "region", "since": "7d"}),
)
# What no short row has: a dimension of detail, or one of a site's.
DETAILED: tuple[tuple[str, dict[str, str]], ...] = (
    ("latency", {"by": "label"}),
    ("latency", {"by": "label", "where": "site=site-1"}),
    ("latency", {"by": "site,label", "limit": "10000"}),
)


def series_of(site: int, number: int) -> Series:
    """One of a site's series; every seventh climbs."""
    climbs = number % 7 == 0
    return Series(
        f"r{site % REGIONS}", f"site-{site}", "edge", "fashion", str(1 + site % 3), "policy",
        f"gear-{number}", "", "escalate" if climbs else "answer",
        "unsure" if climbs else "confident",
        "answered", "confident", "cloud" if climbs else "edge", "certified", str(number % 10), True,
    )  # fmt: skip


def sketches(seed: random.Random) -> list[dict[int, int]]:
    """Latencies of a minute, of requests of which most take milliseconds."""
    found = []
    for _ in range(64):
        sketch: dict[int, int] = {}
        for _ in range(30):
            bucket = bucket_of(seed.lognormvariate(1.0, 0.5))
            sketch[bucket] = sketch.get(bucket, 0) + 1
        found.append(sketch)
    return found


def rows_of_minutes(
    num: int, ids: list[int], packed: list[bytes]
) -> Iterator[list[dict[str, Any]]]:
    """Rows of minute after minute, the latest last, in pieces."""
    minutes = -(-num // len(ids))
    first_s = NOW_S // HOUR_S * HOUR_S - minutes * MINUTE_S
    chunk: list[dict[str, Any]] = []
    confidences = pack({18: 30})
    for at in range(num):
        minute, place = divmod(at, len(ids))
        chunk.append(
            {
                "bucket_s": (first_s + minute * MINUTE_S) // MINUTE_S * MINUTE_S,
                "series_id": ids[place], "added": 0, "count": 30, "late": 1, "sent_bytes": 2000.0,
                "service_us": 9000.0, "latency_ms_sum": 92.0, "cost_sum": 3.5, "confident": 30,
                "confidence_sum": 27.5, "confidences": confidences,
                "latency": packed[(minute * 31 + place) % len(packed)],
            }
        )  # fmt: skip
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def fill(store: TelemetryStore, num: int, packed: list[bytes]) -> float:
    """Rows that were inserted in a second."""
    all_series = [series_of(site, one) for site in range(SITES) for one in range(SERIES_PER_SITE)]
    with writing(store.engine) as connection:
        put(
            connection,
            tables.series,
            [
                {"id": at + 1, "digest": digest_of(*one), **one._asdict()}
                for at, one in enumerate(all_series)
            ],
            replacing=("digest",),
        )
    ids = list(range(1, len(all_series) + 1))
    began_s = time.perf_counter()
    short = ShortIds()
    for chunk in rows_of_minutes(num, ids, packed):
        with writing(store.engine) as connection:
            connection.execute(insert(tables.minute), chunk)
            add_short(connection, chunk, short.resolve(connection, ids))
        short.confirm()
    return num / (time.perf_counter() - began_s)


async def add_up(store: TelemetryStore, num: int) -> float:
    """Rows of minutes that were added to hours and days in a second."""
    began_s = time.perf_counter()
    for step in (store.fold, store.add_up):
        while await step(STEP_ROWS):
            pass
    return num / (time.perf_counter() - began_s)


def rollup(number: int, some: list[dict[int, int]]) -> OutboxItem:
    """A rollup as a device with many labels sends it."""
    rows = []
    for at in range(ROLLUP_ROWS):
        one = series_of(number % SITES, at % SERIES_PER_SITE)._asdict()
        sketch = some[(number + at) % len(some)]
        rows.append(
            RollupRow(
                minutes_ago=at // SERIES_PER_SITE, **one, count=30, late=0, sent_bytes=10,
                service_us=900, latency_ms_sum=90.0, cost_sum=1.0, confident=30,
                confidence_sum=28.0, confidences={18: 30}, latency=sketch,
            )
        )  # fmt: skip
    total = 30 * ROLLUP_ROWS
    place = rows[0].region, rows[0].site
    first = number // SITES * total + 1
    source = Source(*place, "edge", "ab", first, first + total - 1)
    body = encode_rollup(Rollup((source,), tuple(rows)))
    return OutboxItem(f"i{number}", ItemKind.METRICS, NOW_S, body, origin="/".join(place))


async def ingest(store: TelemetryStore, some: list[dict[int, int]]) -> float:
    """Rows of rollups that were taken in a second, of 32 senders that wait for word."""
    items = [rollup(number, some) for number in range(ROLLUPS)]
    began_s = time.perf_counter()
    for at in range(0, len(items), 32):
        await asyncio.gather(*(store.apply(one) for one in items[at : at + 32]))
    return ROLLUPS * ROLLUP_ROWS / (time.perf_counter() - began_s)


def text_of(metric: str, words: dict[str, str]) -> str:
    """A question as it is told."""
    return " ".join([metric, *(f"{name}={value}" for name, value in words.items())])


def asked(store: TelemetryStore, minutes: int) -> list[dict[str, Any]]:
    """How long each question takes, in s: the median of a few times, and the longest."""
    found = []
    since = {"since": str(NOW_S - max(DAY_S, minutes * MINUTE_S + HOUR_S))}
    for metric, words in (*QUESTIONS, *DETAILED):
        wanted = question(metric, {**since, **words}, now_s=NOW_S, retention=Retention())
        times_s, rows = [], 0
        for _ in range(REPEATS):
            began_s = time.perf_counter()
            rows = len(answer(store.engine, wanted, now_s=NOW_S).rows)
            times_s.append(time.perf_counter() - began_s)
        found.append(
            {"question": text_of(metric, words), "rows": rows, "grain_s": wanted.grain_s,
             "median_s": round(statistics.median(times_s), 3), "max_s": round(max(times_s), 3)}
        )  # fmt: skip
    return found


async def measure(url: str, num: int, *, is_filled: bool) -> dict[str, Any]:
    """All figures."""
    some = sketches(random.Random(7))  # noqa: S311 - no secret
    rates: dict[str, Any] = {}
    with TelemetryStore(url, wall_s=lambda: float(NOW_S)) as store:
        if not is_filled:
            fill_rate = await asyncio.to_thread(fill, store, num, [pack(one) for one in some])
            rates = {
                "filled_rows_per_s": round(fill_rate),
                "added_up_rows_per_s": round(await add_up(store, num)),
                "taken_rows_per_s": round(await ingest(store, some)),
            }
        with store.engine.connect() as connection:
            counted = count_rows(connection)
        questions = await asyncio.to_thread(asked, store, -(-num // (SITES * SERIES_PER_SITE)))
    return {"rows": counted, **rates, "questions": questions}


def main() -> None:
    """Prints a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--url", default="", help="an empty database")
    parser.add_argument("--keep", type=Path, help="SQLite's file, filled if it is not there")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path: Path = arguments.keep or Path(folder) / "telemetry.sqlite"
        url = arguments.url or f"sqlite:///{path.absolute()}"
        figures = asyncio.run(measure(url, arguments.rows, is_filled=path.exists()))
        if path.exists():
            figures["file_bytes"] = path.stat().st_size
    if arguments.json:
        print(json.dumps(figures, indent=2))
        return
    for name, value in figures.items():
        if name != "questions":
            print(f"{name:>20}  {value}")
    print(f"\n{'median s':>9} {'max s':>7} {'rows':>6}  question")
    for one in figures["questions"]:
        print(f"{one['median_s']:9.3f} {one['max_s']:7.3f} {one['rows']:6}  {one['question']}")


if __name__ == "__main__":
    main()
