"""Rows are bounded without counting them each time, on SQLite and on PostgreSQL."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine, event

from cloud_tier.telemetry import downsampling
from cloud_tier.telemetry.database import reading
from cloud_tier.telemetry.downsampling import count_rows
from cloud_tier.telemetry.limits import Retention
from cloud_tier.telemetry.store import TelemetryStore
from cloud_tier.telemetry.tables import short_day, short_hour, short_minute
from fakes.telemetry import NOW_S, audit, feedback, item, row, source
from runtime.telemetry import Rollup

pytestmark = pytest.mark.timeout(120)
Opener = Callable[..., TelemetryStore]
SHORT = (short_minute, short_hour, short_day)


class Sender:
    """Tells of as many rows as wanted, each once."""

    def __init__(self, store: TelemetryStore) -> None:
        self._store, self._last = store, 0

    async def send(self, num: int, *, minutes_ago: int = 0, audits: int = 0) -> None:
        rows = [
            row(1, label=str(self._last + at), minutes_ago=minutes_ago + at % 3)
            for at in range(num)
        ]
        some = tuple(audit(policy=f"p{at}", minutes_ago=minutes_ago) for at in range(audits))
        said = Rollup((source(self._last + num, self._last + 1),), tuple(rows), some)
        self._last += num
        await self._store.apply(item(said, at_s=NOW_S))


@contextmanager
def counting(engine: Engine) -> Iterator[list[str]]:
    """Which tables are counted as a whole meanwhile."""
    found: list[str] = []

    def note(*said: object) -> None:
        text = str(said[2])
        if "count(*)" in text and "WHERE" not in text:
            found.append(text.rpartition(" ")[2])

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(engine, "before_cursor_execute", note)


async def tidy(store: TelemetryStore) -> None:
    while await store.add_up():
        pass
    while await store.fold():
        pass
    while await store.prune():
        pass


async def test_where_there_is_room_no_large_table_is_counted_again(open_store: Opener) -> None:
    store = open_store(retention=Retention(max_rows=10_000))
    sender = Sender(store)
    await sender.send(20)
    await store.prune()
    await store.prune()

    with counting(store.engine) as counted:
        for _ in range(3):
            await sender.send(5)
            await store.apply(feedback(label=3))
            await store.prune()

    assert "audits" in counted
    assert not set(counted) & {"minute", "hour", "day", "feedback", *(one.name for one in SHORT)}


async def test_no_row_is_over_the_bound_whatever_comes_when(
    open_store: Opener, clock: list[float]
) -> None:
    store = open_store(retention=Retention(max_rows=120))
    sender, draw = Sender(store), random.Random(3)
    for _ in range(12):
        await sender.send(
            draw.randint(0, 9), minutes_ago=draw.randint(0, 90), audits=draw.randint(0, 3)
        )
        clock[0] += draw.choice([0, 60, 4000])
        await tidy(store)

        with reading(store.engine) as connection:
            assert sum(count_rows(connection).values()) <= 120
            assert sum(count_rows(connection, SHORT).values()) <= 120


async def test_feedback_has_its_own_bound(
    open_store: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downsampling, "MAX_FEEDBACK", 3)
    store = open_store(retention=Retention(max_rows=10_000))
    for _ in range(6):
        await store.apply(feedback(label=3))
        await tidy(store)

        with reading(store.engine) as connection:
            assert count_rows(connection)["feedback"] <= 3


async def test_numbers_that_went_back_are_counted_anew(
    open_store: Opener, clock: list[float]
) -> None:
    store = open_store(retention=Retention(max_rows=10_000, minute_s=7200.0))
    sender = Sender(store)
    await sender.send(4)
    for _ in range(3):
        await store.prune()
    clock[0] += 90_000

    with counting(store.engine) as counted:
        await tidy(store)

    assert "hour" in counted
