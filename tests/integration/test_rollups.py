"""Decisions are counted from the log, and the counts arrive above exactly once."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np
import pytest
from structlog.testing import capture_logs

from edge_agent.agent import Agent
from edge_agent.settings import EdgeSettings
from fakes.decisions import audit, decision, escalated
from fakes.rollups import row
from fakes.storing import StoringTier, storing_cloud, storing_edge, storing_gateway
from fakes.waiting import eventually, eventually_sync, until
from runtime.adapters.clock import SystemClock
from runtime.adapters.decision_log import SqliteDecisionLog
from runtime.adapters.memory_bus import MemoryBroker, MemoryBus
from runtime.adapters.metrics import TierMetrics
from runtime.adapters.outbox_reader import find_item, items_in
from runtime.adapters.rollup_reader import Counted, Cursor, Place, count_on
from runtime.common_settings import StateSettings
from runtime.core.merging import merged
from runtime.errors import MalformedBodyError, StorageError
from runtime.exchange import reporting
from runtime.exchange.forwarding import Storage, open_storage
from runtime.exchange.items import new_id
from runtime.exchange.reporting import Rollups, keep_here, rolling_up
from runtime.messages import ItemKind, Tensors, Tier
from runtime.ports import OutboxItem
from runtime.telemetry import Rollup, Source, decode_rollup, encode_rollup

EDGE_1 = Place("r", "edge-1", "edge")


def write(folder: Path, number: int, *, start: int = 0) -> Path:
    with SqliteDecisionLog(folder, gather_s=0) as log:
        for one in range(start, start + number):
            log.append(decision(f"r{one}"))
    return log.path


def rollups_in(folder: Path) -> list[Rollup]:
    path = folder / "outbox.sqlite"
    found = [find_item(path, item.id) for item in items_in(path) if item.kind == "metrics"]
    return [decode_rollup(item.body) for item in found if item]


def covered(rollups: list[Rollup]) -> list[tuple[int, int]]:
    return sorted((source.first, source.last) for one in rollups for source in one.sources)


def counted(rollups: list[Rollup]) -> int:
    return sum(row.count for one in rollups for row in one.rows)


class Device:
    """A state folder with a log, an outbox and who counts."""

    def __init__(self, folder: Path, **limits: int) -> None:
        self.folder, self._exits = folder, AsyncExitStack()
        self._limits = StateSettings(folder=str(folder), **limits)
        self.storage: Storage
        self.rollups: Rollups

    async def __aenter__(self) -> Self:
        clock = SystemClock()
        self.storage = self._exits.enter_context(
            open_storage(self.folder, self._limits, clock, TierMetrics(Tier.EDGE))
        )
        path = self.folder / "decisions.sqlite"
        self.rollups = Rollups(path, self.storage.outbox, EDGE_1, clock, max_samples=4)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exits.aclose()

    async def sends_all(self) -> None:
        found = items_in(self.folder / "outbox.sqlite")
        await self.storage.outbox.applied([one.id for one in found])


async def test_what_is_in_the_log_is_counted_once_whoever_counts_when(tmp_path: Path) -> None:
    write(tmp_path, 5)
    async with Device(tmp_path) as device:
        await asyncio.gather(*(device.rollups.count() for _ in range(5)))
    write(tmp_path, 3, start=5)
    async with Device(tmp_path) as device:
        await device.rollups.count()
        await device.rollups.count()

    assert covered(rollups_in(tmp_path)) == [(1, 5), (6, 8)]
    assert counted(rollups_in(tmp_path)) == 8
    (row,) = rollups_in(tmp_path)[0].rows
    assert (row.region, row.site, row.tier, row.is_entry) == ("r", "edge-1", "edge", True)


async def test_a_few_decisions_are_told_whole_and_none_that_may_not_leave(tmp_path: Path) -> None:
    with SqliteDecisionLog(tmp_path, gather_s=0) as log:
        for number in range(20):
            log.append(decision(f"a{number}", residency="cloud"))
            log.append(decision(f"b{number}", residency="region"))
        log.append(escalated("climbs", residency="cloud", label=1))
        log.append(escalated("climbs", residency="cloud", label=2))
        log.append(escalated("stays", residency="device"))
        log.append(decision("x" * 200, residency="cloud", outcome="failed"))
    async with Device(tmp_path) as device:
        await device.rollups.count()

    (found,) = rollups_in(tmp_path)
    told = {one.request_id: one for one in found.samples}
    assert counted([found]) == 44
    assert len(told) == 3
    assert (told["climbs"].action, told["climbs"].label) == ("escalate", 2)
    assert (told["climbs"].region, told["climbs"].site) == ("r", "edge-1")
    assert {one[0] for one in told} == {"a", "c"}
    without = count_on(log.path, Cursor(), EDGE_1, 1.0)
    assert without is not None
    assert without.rollup.samples == ()


async def test_who_has_nothing_to_count_says_now_and_then_that_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 3)
    async with Device(tmp_path) as device:
        await device.rollups.count()
        await device.rollups.count()
        monkeypatch.setattr(reporting, "LIFE_S", 0.0)
        # While a rollup waits to be sent, another one would tell nothing more.
        await device.rollups.count()
        assert covered(rollups_in(tmp_path)) == [(1, 3)]
        await device.sends_all()
        await device.rollups.count()

    assert covered(rollups_in(tmp_path)) == [(4, 3)]
    assert merged([(0.0, told("edge-1", 1, 3)), (0.0, rollups_in(tmp_path)[0])])


async def test_nobody_says_that_nothing_is_new_while_another_one_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 3)
    async with Device(tmp_path) as device:
        await device.rollups.count()
        await device.sends_all()

        def slow(*words: Any, **options: Any) -> Counted | None:
            found = count_on(*words, **options)
            monkeypatch.setattr(reporting, "count_on", count_on)
            write(tmp_path, 2, start=3)
            device.rollups._count_some()
            return found

        monkeypatch.setattr(reporting, "LIFE_S", 0.0)
        monkeypatch.setattr(reporting, "count_on", slow)
        await device.rollups.count()

    assert covered(rollups_in(tmp_path)) == [(4, 5)]


async def test_a_count_that_is_cancelled_has_ended_when_that_is_told(tmp_path: Path) -> None:
    is_busy, may_go_on = threading.Event(), threading.Event()
    write(tmp_path, 3)
    async with Device(tmp_path) as device:
        file = device.storage.outbox.file

        def busy(_: sqlite3.Connection) -> None:
            is_busy.set()
            may_go_on.wait(30)

        file.submit(busy)
        # Else it would be done in one batch with what comes next.
        await eventually(is_busy.is_set)
        counting = asyncio.create_task(device.rollups.count())
        await eventually(lambda: len(file._jobs) == 1)
        counting.cancel()
        ended, _ = await asyncio.wait([counting], timeout=0.01)
        may_go_on.set()
        await asyncio.wait([counting])

        assert (ended, counting.cancelled()) == (set(), True)
        assert covered(rollups_in(tmp_path)) == [(1, 3)]


async def test_audits_are_counted_beside_their_decisions(tmp_path: Path) -> None:
    with SqliteDecisionLog(tmp_path, gather_s=0) as log:
        log.append(decision("r1"))
    with SqliteDecisionLog(tmp_path, gather_s=0) as log:
        async with Device(tmp_path) as device:
            await device.rollups.count()
            log.append(audit(decision("r1", audit_chance=0.01)))
            assert log.flush(5)
            await device.rollups.count()

    first, second = rollups_in(tmp_path)
    assert (len(first.audits), covered([first])) == (0, [(1, 1)])
    assert ([one.agreed for one in second.audits], covered([second])) == ([1], [(2, 1)])
    assert second.audits[0].weighted == pytest.approx(100)
    assert (first.sources[0].audits_first, first.sources[0].audits_last) == (1, 0)
    assert (second.sources[0].audits_first, second.sources[0].audits_last) == (1, 1)


async def test_what_the_quota_deleted_unread_is_told(tmp_path: Path) -> None:
    with SqliteDecisionLog(tmp_path, max_bytes=60_000, gather_s=0) as log:
        for number in range(2000):
            log.append(decision(f"r{number}"))
            if number % 100 == 0:
                log.flush(5)
    async with Device(tmp_path) as device:
        await device.rollups.count()

    (source,) = (source for one in rollups_in(tmp_path) for source in one.sources)
    with closing(sqlite3.connect(log.path)) as connection:
        (left,) = connection.execute("SELECT count(*) FROM decisions").fetchone()
        (gone,) = connection.execute("SELECT value FROM totals WHERE name = 'deleted'").fetchone()
    assert 0 < gone == source.unread
    assert (source.first, source.last) == (1, 2000)
    assert counted(rollups_in(tmp_path)) == left


async def test_another_file_is_counted_from_its_first_decision(tmp_path: Path) -> None:
    path = write(tmp_path, 4)
    async with Device(tmp_path) as device:
        await device.rollups.count()
        path.unlink()
        write(tmp_path, 2)
        await device.rollups.count()

    first, second = (one.sources[0] for one in rollups_in(tmp_path))
    assert first.log != second.log
    assert (second.first, second.last) == (1, 2)


async def test_while_nothing_is_sent_the_log_holds_what_is_to_be_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "MAX_WAITING", 2)
    async with Device(tmp_path) as device:
        for start in range(5):
            write(tmp_path, 1, start=start)
            await device.rollups.count()
        assert covered(rollups_in(tmp_path)) == [(1, 1), (2, 2)]
        await device.sends_all()
        await device.rollups.count()

    assert covered(rollups_in(tmp_path)) == [(3, 5)]


async def test_a_full_outbox_loses_no_count(tmp_path: Path) -> None:
    write(tmp_path, 3)
    async with Device(tmp_path, outbox_max_items=1) as device:
        outbox = device.storage.outbox
        await outbox.put(OutboxItem("precious", ItemKind.FEEDBACK, 1.8e9, b"{}"))
        await device.rollups.count()
        assert rollups_in(tmp_path) == []
        await outbox.applied(["precious"])
        await device.rollups.count()

    assert covered(rollups_in(tmp_path)) == [(1, 3)]


async def test_a_log_that_is_none_is_told_and_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "decisions.sqlite"
    with pytest.raises(StorageError, match="cannot count"):
        count_on(path, Cursor(), EDGE_1, 1.0)
    path.write_bytes(b"no database" * 1000)
    async with Device(tmp_path) as device:
        with capture_logs() as lines:
            await device.rollups.count()
    assert [line["event"] for line in lines] == ["rollup.put_off"]


def test_killed_again_and_again_it_has_counted_what_the_log_holds(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    for run_s in (0.05, 0.21, 0.13, 0.34):
        with subprocess.Popen(
            [sys.executable, "-m", "fakes.killed_counting", str(tmp_path)],
            stdout=subprocess.PIPE,
            env=environment,
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            eventually_sync(lambda: rollups_in(tmp_path))
            # Wherever it is by then.
            time.sleep(run_s)
            process.kill()

    async def count_the_rest() -> None:
        async with Device(tmp_path) as device:
            await device.rollups.count()

    asyncio.run(count_the_rest())
    with closing(sqlite3.connect(tmp_path / "decisions.sqlite")) as connection:
        (held,) = connection.execute("SELECT count(*) FROM decisions").fetchone()
    ranges = covered(rollups_in(tmp_path))
    assert counted(rollups_in(tmp_path)) == held > 0
    assert [first for first, _ in ranges[1:]] == [last + 1 for _, last in ranges[:-1]]


async def test_an_agent_counts_now_and_then_and_at_its_end(edge_settings: EdgeSettings) -> None:
    state = msgspec.structs.replace(edge_settings.state, rollup_interval_s=0.05)
    settings = msgspec.structs.replace(edge_settings, state=state)
    grey: Tensors = {"image": np.zeros((1, 28, 28), np.float32)}
    folder = Path(state.folder)
    async with Agent(settings, bus=MemoryBus(MemoryBroker(), client_id="a")) as agent:
        await agent.infer(grey)
        await eventually(lambda: covered(rollups_in(folder)) == [(1, 1)])
        await agent.infer(grey)
        await agent.infer(grey)

    assert counted(rollups_in(folder)) == 3


def told(site: str, first: int, last: int, *, region: str = "r") -> Rollup:
    """A rollup of a device."""
    rows = (row(region=region, site=site, count=last - first + 1),) if last >= first else ()
    return Rollup((Source(region, site, "edge", "a", first, last),), rows)


async def put(tier: StoringTier, rollup: Rollup, age_s: float = 0.0) -> str:
    item = OutboxItem(
        new_id(), ItemKind.METRICS, tier.clock.wall_s() - age_s, encode_rollup(rollup)
    )
    await tier.storage.outbox.put(item)
    return item.id


async def test_a_gateway_sends_those_of_its_devices_on_together(tmp_path: Path) -> None:
    broker, kept = MemoryBroker(), list[OutboxItem]()

    async def keep(item: OutboxItem) -> None:
        kept.append(item)

    async with (
        storing_edge(broker, tmp_path) as edge,
        storing_gateway(broker, tmp_path) as gateway,
        storing_cloud(broker, tmp_path) as cloud,
    ):
        assert cloud.receiver is not None
        assert gateway.receiver is not None
        cloud.receiver.appliers = {ItemKind.METRICS: keep}
        for number in range(3):
            await put(edge, told("edge-1", number + 1, number + 1), age_s=600)
        await eventually_empty(edge)
        assert kept == []
        await gateway.receiver._received.rollups.send_on()
        await eventually(lambda: kept)
        await eventually_empty(gateway)

    (whole,) = (decode_rollup(item.body) for item in kept)
    assert covered([whole]) == [(1, 3)]
    assert Counter(row.minutes_ago for row in whole.rows) == {10: 1}
    assert counted([whole]) == 3


async def eventually_empty(tier: StoringTier) -> None:
    await until(tier.waiting, lambda items: not items)


async def test_whoever_tells_of_others_is_refused(tmp_path: Path) -> None:
    broker = MemoryBroker()
    async with storing_edge(broker, tmp_path) as edge, storing_gateway(broker, tmp_path):
        for rollup in (told("edge-2", 1, 2), told("edge-1", 1, 2, region="elsewhere")):
            item_id = await put(edge, rollup)

            async def parked(item_id: str = item_id) -> list[str]:
                return [one.parked for one in await edge.waiting() if one.id == item_id]

            assert await until(parked, lambda said: said != [""]) == ["malformed_body"]


async def test_a_top_tier_keeps_its_own(tmp_path: Path) -> None:
    kept, tries = list[str](), list[str]()

    async def keep(item: OutboxItem) -> None:
        tries.append(item.id)
        if len(tries) == 1:
            raise StorageError("the database is away")
        if counted([decode_rollup(item.body)]) == 2:
            raise MalformedBodyError("not this one")
        kept.append(item.id)

    async with Device(tmp_path) as device:
        keeping = asyncio.create_task(keep_here(device.storage.outbox, keep, 0.01))
        async with rolling_up(device.rollups, 60):
            write(tmp_path, 3)
            await device.rollups.count()
            await eventually(lambda: len(kept) == 1)
            write(tmp_path, 2, start=3)
        await eventually(lambda: len(tries) == 3)
        await eventually(
            lambda: (
                [one.parked for one in items_in(tmp_path / "outbox.sqlite")] == ["malformed_body"]
            )
        )
        keeping.cancel()
