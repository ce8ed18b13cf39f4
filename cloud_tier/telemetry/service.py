"""The store of telemetry as a part of the cloud tier: settings turned into a service.

Needs the extra ``cloud``; without it the tier runs, and says once what it does not keep.
"""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import structlog
from aiohttp import web

from cloud_tier.operators.access import Door
from cloud_tier.settings import CloudSettings
from runtime.errors import TierwiseError
from runtime.exchange.chores import Chores
from runtime.ports import OutboxItem

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from cloud_tier.telemetry.fleet_reading import FleetReader
    from cloud_tier.telemetry.retired import RetiredDevices
    from cloud_tier.telemetry.sample_reading import SampleReader
    from cloud_tier.telemetry.store import TelemetryStore

FILE_NAME = "telemetry.sqlite"
# How often minutes are added up and old rows deleted, and the pause between two steps of it.
INTERVAL_S, _PAUSE_S = 60.0, 0.05
# How often short rows are added up: a question reads those that are not.
FOLD_INTERVAL_S = 3.0
# How long a thread of Python may keep others from running. SQLite's driver gives way at each row
# that it reads; with Python's own 5 ms a thread that reads waits so long at each of thousands.
_SWITCH_S = 0.0005
_NEEDED = ("sqlalchemy", "alembic")
_log = structlog.get_logger()


# Rows of a metric, as JSON has them, by the words of a question.
Ask = Callable[[str, Mapping[str, str]], Awaitable[dict[str, Any]]]


class Telemetry:
    """What the tier's composition takes: who counts items, routes to ask, and who answers."""

    def __init__(
        self,
        apply: Callable[[OutboxItem], Awaitable[Literal["stored", "known"]]],
        add_routes: Callable[[web.Application, Door], None],
        ask: Ask,
        *,
        engine: Engine,
        samples: SampleReader,
        fleet: FleetReader,
        retired: RetiredDevices,
    ) -> None:
        self.apply, self.add_routes, self.ask = apply, add_routes, ask
        self.engine, self.samples, self.fleet, self.retired = engine, samples, fleet, retired


@asynccontextmanager
async def keeping_telemetry(
    settings: CloudSettings, wall_s: Callable[[], float]
) -> AsyncIterator[Telemetry | None]:
    """Keeps telemetry until left; None where that is off, or its extra is not installed.

    Raises:
        StartError: the database cannot be used.
    """
    own = settings.telemetry
    if not own.enabled:
        yield None
        return
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        _log.warning(
            "telemetry.not_kept",
            missing=missing,
            hint="pip install 'tierwise[cloud]', or set telemetry.enabled = false",
        )
        yield None
        return
    # Here, because they need the extra.
    from cloud_tier.telemetry.asking import question  # noqa: PLC0415
    from cloud_tier.telemetry.fleet_reading import FleetReader  # noqa: PLC0415
    from cloud_tier.telemetry.http_api import MetricsApi, answers_of  # noqa: PLC0415
    from cloud_tier.telemetry.limits import Retention  # noqa: PLC0415
    from cloud_tier.telemetry.retired import RetiredDevices  # noqa: PLC0415
    from cloud_tier.telemetry.sample_reading import SampleReader  # noqa: PLC0415
    from cloud_tier.telemetry.store import TelemetryStore  # noqa: PLC0415

    retention = Retention(
        minute_s=own.minute_retention_s,
        hour_s=own.hour_retention_s,
        day_s=own.day_retention_s,
        max_rows=own.max_rows,
        sample_s=own.sample_retention_s,
        max_samples=own.max_samples,
    )
    made = await asyncio.to_thread(
        TelemetryStore,
        url_of(own.url, Path(settings.state.folder)),
        retention=retention,
        own_region=settings.region,
        speakers=own.speakers,
        wall_s=wall_s,
    )
    with made as store, _giving_way():
        chores = Chores()
        chores.keep_up(_tidy(store.add_up, store.prune), "telemetry")
        chores.keep_up(_fold(store), "telemetry.fold")
        # The dashboard's questions are answered with those of all others.
        answers = answers_of(store.engine)

        def add_routes(app: web.Application, door: Door) -> None:
            api = MetricsApi(
                store.engine, retention, wall_s=wall_s, check=door.check, answers=answers
            )
            api.add_routes(app)

        async def ask(metric: str, words: Mapping[str, str]) -> dict[str, Any]:
            now_s = wall_s()
            asked = question(metric, words, now_s=now_s, retention=retention)
            found: dict[str, Any] = msgspec.json.decode((await answers.answer(asked, now_s)).body)
            return found

        try:
            samples = SampleReader(store.engine, retention, wall_s=wall_s)
            fleet = FleetReader(store.engine)
            yield Telemetry(
                store.apply,
                add_routes,
                ask,
                engine=store.engine,
                samples=samples,
                fleet=fleet,
                retired=RetiredDevices(store.engine, wall_s=wall_s),
            )
        finally:
            await answers.close()
            await chores.close()


def url_of(url: str, folder: Path) -> str:
    """The database's URL; a file in the state folder where none is set."""
    return url or f"sqlite:///{folder / FILE_NAME}"


@contextmanager
def _giving_way() -> Iterator[None]:
    """Has threads of this process take turns often."""
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before_s)


async def _fold(store: TelemetryStore) -> None:
    from cloud_tier.telemetry.shortening import FOLD_ROWS  # noqa: PLC0415 - needs the extra

    while True:
        await asyncio.sleep(FOLD_INTERVAL_S)
        try:
            # Less than a whole step: what is left has come since.
            while await store.fold(FOLD_ROWS) == FOLD_ROWS:  # noqa: ASYNC110 - a pause, as below
                await asyncio.sleep(_PAUSE_S)
        except TierwiseError:
            # The store has said so; the next turn tries again.
            continue


async def _tidy(*steps: Callable[[], Awaitable[int]]) -> None:
    while True:
        await asyncio.sleep(INTERVAL_S)
        for step in steps:
            try:
                # Whoever sends items takes turns with it.
                while await step():  # noqa: ASYNC110 - a pause between steps, no condition
                    await asyncio.sleep(_PAUSE_S)
            except TierwiseError:
                # The store has said so; the next turn tries again.
                continue
