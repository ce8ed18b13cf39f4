"""What the store of telemetry promises, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import ColumnElement, Table, func, literal, select

from cloud_tier.telemetry import tables
from cloud_tier.telemetry.asking import question
from cloud_tier.telemetry.bounded import Bounds, limited
from cloud_tier.telemetry.database import open_engine, reading
from cloud_tier.telemetry.fetching import Fetcher
from cloud_tier.telemetry.limits import Limits, Retention
from cloud_tier.telemetry.migrating import migrate, schema_state
from cloud_tier.telemetry.reading import answer
from cloud_tier.telemetry.rows import Report, Row
from cloud_tier.telemetry.store import TelemetryStore
from fakes.telemetry import NOW_S, audit, escalated, feedback, item, rollup, row, source
from runtime.errors import (
    MalformedBodyError,
    RequestError,
    StartError,
    StorageError,
    TooLateError,
)
from runtime.messages import ItemKind
from runtime.ports import OutboxItem
from runtime.telemetry import OTHER, Rollup

pytestmark = pytest.mark.timeout(90)
Opener = Callable[..., TelemetryStore]


def ask(
    store: TelemetryStore, metric: str, *, bounds: Bounds | None = None, **words: str
) -> Report[Row]:
    asked = question(metric, words, now_s=NOW_S, retention=Retention())
    return answer(store.engine, asked, now_s=NOW_S, bounds=bounds)


def rows_of(report: Report[Row]) -> list[dict[str, Any]]:
    plain = [msgspec.structs.asdict(one) for one in report.rows]
    return [{**one.pop("group"), **one} for one in plain]


def count(store: TelemetryStore, name: str) -> int:
    with store.engine.connect() as connection:
        query = select(func.count()).select_from(tables.metadata.tables[name])
        return int(connection.execute(query).scalar_one())


def totals(store: TelemetryStore) -> dict[str, tuple[int, float]]:
    """Decisions and ms at each resolution, as a question at that resolution reads them."""

    def total(table: Table, *where: ColumnElement[bool]) -> tuple[int, float]:
        query = select(func.sum(table.c.count), func.sum(table.c.latency_ms_sum)).where(*where)
        with store.engine.connect() as connection:
            num, latency_ms = connection.execute(query).one()
        return int(num or 0), float(latency_ms or 0)

    left = total(tables.minute, tables.minute.c.added == 0)
    hours, days = total(tables.hour), total(tables.day)
    return {
        "minute": total(tables.minute),
        "hour": (hours[0] + left[0], hours[1] + left[1]),
        "day": (days[0] + left[0], days[1] + left[1]),
    }


async def test_a_rollup_counts_once_however_often_it_comes(store: TelemetryStore) -> None:
    sent = item(rollup(row(5)))

    outcomes = await asyncio.gather(store.apply(sent), store.apply(sent))
    again = await store.apply(sent)

    assert sorted([*outcomes, again]) == ["known", "known", "stored"]
    assert rows_of(ask(store, "cost"))[0]["requests"] == 5


async def test_two_processes_on_one_database_count_once(open_store: Opener) -> None:
    stores = [open_store(), open_store()]
    sent = [item(rollup(row(1), first=at)) for at in range(1, 61)]

    outcomes = await asyncio.gather(*(one.apply(what) for what in sent for one in stores))

    assert sorted(outcomes) == ["known"] * 60 + ["stored"] * 60
    assert rows_of(ask(stores[0], "cost"))[0]["requests"] == 60
    assert rows_of(ask(stores[1], "fleet"))[0]["missing"] == 0


async def test_what_comes_by_two_gateways_counts_once(store: TelemetryStore) -> None:
    said = rollup(row(5), audits=(audit(),))

    await store.apply(item(said, origin="cloud/gw-1"))
    await store.apply(item(said, origin="cloud/gw-2"))

    assert rows_of(ask(store, "cost"))[0]["requests"] == 5
    assert rows_of(ask(store, "agreement"))[0]["audited"] == 10
    report = ask(store, "fleet")
    assert rows_of(report)[0]["repeated"] == 0
    assert report.notes == ["audits that were known: 1", "rows that were known: 1"]


async def test_what_is_missing_is_known_to_the_last_decision(store: TelemetryStore) -> None:
    await store.apply(item(rollup(row(10))))
    await store.apply(item(rollup(row(10), first=31)))
    lost = rows_of(ask(store, "fleet"))[0]
    await store.apply(item(Rollup((source(20, 11, unread=4, dropped=7),), (row(6),))))
    found = rows_of(ask(store, "fleet"))[0]

    assert (lost["missing"], lost["counted"]) == (20, 20)
    assert (found["missing"], found["counted"], found["unread"]) == (10, 26, 4)
    assert found["dropped"] == 7


async def test_a_bad_item_costs_no_other(store: TelemetryStore) -> None:
    bad = OutboxItem("x", ItemKind.METRICS, NOW_S, b'{"sources": 3}', origin="eu/cam-1")
    alien = item(rollup(row(2)), origin="us/cam-9")

    outcomes = await asyncio.gather(
        *(store.apply(one) for one in (bad, alien, item(rollup(row(5))))), return_exceptions=True
    )

    assert [type(one) for one in outcomes] == [MalformedBodyError, MalformedBodyError, str]
    assert count(store, "applied") == 1


async def test_reports_of_an_earlier_version_are_taken_and_noted(store: TelemetryStore) -> None:
    body = (
        b'{"epoch": 1, "number": 2, "over_s": 60.0, "latency_ms_sum": 5.0, '
        b'"decision_log_dropped": 0, "answers": []}'
    )

    outcome = await store.apply(OutboxItem("x", ItemKind.METRICS, NOW_S, body, origin="eu/cam-1"))

    assert outcome == "stored"
    assert ask(store, "fleet").notes == ["reports of an earlier version: 1"]


async def test_audit_items_are_for_somebody_else(store: TelemetryStore) -> None:
    with pytest.raises(ValueError, match="takes no audit"):
        await store.apply(OutboxItem("x", ItemKind.AUDIT, NOW_S, b"{}", origin="eu/cam-1"))


async def test_times_that_cannot_be_are_moved_and_noted(store: TelemetryStore) -> None:
    await store.apply(item(rollup(row(1, minutes_ago=1 << 24)), at_s=NOW_S))
    await store.apply(item(rollup(row(1), first=2), at_s=NOW_S + 1e9))

    report = ask(store, "cost", since="40d", by="day")
    assert sum(one["requests"] for one in rows_of(report)) == 2
    assert ask(store, "fleet").notes == ["rows of impossible times: 2"]


async def test_series_have_a_bound_and_rows_are_never_lost(open_store: Opener) -> None:
    store = open_store(limits=Limits(series_per_site=5, series=12))
    rows = [row(1, label=str(label)) for label in range(20)]
    rows += [escalated(1, gear=str(gear)) for gear in range(20)]
    elsewhere = [row(1, site=f"cam-{at}", label="x") for at in range(2, 30)]
    places = tuple(source(1, site=f"cam-{at}") for at in range(2, 30))

    await store.apply(item(rollup(*rows)))
    await store.apply(item(Rollup(places, tuple(elsewhere)), origin="cloud/gw-1"))

    found = rows_of(ask(store, "escalations", by="tier"))[0]
    assert (found["requests"], found["escalated"], found["failed_escalations"]) == (68, 20, 0)
    sites = {one["site"]: one["requests"] for one in rows_of(ask(store, "cost", by="site"))}
    assert sites["cam-1"] == 40
    assert sites[OTHER] > 0
    assert count(store, "series") <= 12 + 2 + 2
    assert any(note.startswith("rows in (other): ") for note in ask(store, "fleet").notes)


async def test_sources_have_a_bound_and_their_decisions_count(open_store: Opener) -> None:
    store = open_store(limits=Limits(sources_per_site=2))
    for number in range(5):
        await store.apply(item(Rollup((source(3, log=f"{number:x}"),), (row(3),))))

    report = ask(store, "fleet")
    assert rows_of(report)[0]["counted"] == 6
    assert rows_of(ask(store, "cost"))[0]["requests"] == 15
    assert report.notes == ["sources over the bound: 3"]


async def test_a_late_audit_that_comes_by_two_gateways_counts_once(store: TelemetryStore) -> None:
    def late(first: int, last: int, *, decisions: int = 0) -> OutboxItem:
        """Audits with these numbers; their decisions were counted before."""
        said = source(5 + decisions, 6, audits_first=first, audits_last=last)
        num = last - first + 1
        counted = (row(decisions),) if decisions else ()
        return item(Rollup((said,), counted, (audit(num, 0),) if num else ()))

    await store.apply(item(rollup(row(5))))
    for one in (late(1, 2), late(1, 2), late(3, 2), late(3, 3, decisions=1), late(1, 2)):
        await store.apply(one)

    (found,) = rows_of(ask(store, "agreement"))
    assert found["audited"] == 3
    assert ask(store, "fleet").notes == ["audits that were known: 2"]


async def test_audits_without_numbers_count_as_they_come(store: TelemetryStore) -> None:
    for _ in range(2):
        await store.apply(item(Rollup((source(0),), (), (audit(2, 0),))))

    (found,) = rows_of(ask(store, "agreement"))
    assert found["audited"] == 4


async def test_kinds_of_audits_have_a_bound(open_store: Opener) -> None:
    store = open_store(limits=Limits(audit_kinds_per_site=3))
    for number in range(6):
        said = rollup(row(1), first=number + 1, audits=(audit(policy=f"p{number}"),))
        await store.apply(item(said))

    found = {one["policy"]: one["audited"] for one in rows_of(ask(store, "agreement"))}
    assert found == {"p0": 10, "p1": 10, "p2": 10, OTHER: 30}


async def test_totals_are_the_same_at_every_resolution(
    store: TelemetryStore, clock: list[float]
) -> None:
    for number in range(30):
        ago = number * 7
        at = number + 1
        await store.apply(item(rollup(row(1, minutes_ago=ago, latency_ms=at), first=at)))
    clock[0] += 7200
    steps = 0
    while num := await store.add_up(max_rows=4):
        assert num <= 4
        steps += 1
        assert len(set(totals(store).values())) == 1

    assert steps == 8
    assert count(store, "hour") > count(store, "day") >= 1
    # One that is late, of an hour that has been added up.
    await store.apply(item(rollup(row(5, minutes_ago=100), first=31)))
    late = totals(store)
    assert await store.add_up() == 1
    assert set(late.values()) == set(totals(store).values()) == {(35, 465.0 + 50.0)}
    by_hour = rows_of(ask(store, "cost", since="12h", by="hour"))
    assert sum(one["requests"] for one in by_hour) == 35
    latency = rows_of(ask(store, "latency", since="12h"))[0]
    assert latency["p50_ms"] == pytest.approx(13, rel=0.01)


async def test_old_rows_go_the_finest_first(open_store: Opener, clock: list[float]) -> None:
    store = open_store(retention=Retention(minute_s=3600, hour_s=86_400, day_s=10 * 86_400))
    await store.apply(item(rollup(row(3))))
    await store.apply(feedback(is_correct=True))
    await store.fold()
    short = ("short_minute", "short_hour", "short_day")
    assert [count(store, name) for name in short] == [2, 3, 3]
    clock[0] += 600
    before = await store.prune()
    clock[0] += 2 * 3600 - 600
    await store.add_up()

    assert before == 0
    assert await store.prune() == 1 + 2
    assert [count(store, name) for name in ("minute", "hour", "day")] == [0, 1, 1]
    assert [count(store, name) for name in short] == [0, 3, 3]
    clock[0] += 2 * 86_400
    while await store.prune():
        pass
    assert [count(store, name) for name in ("hour", "day", "feedback")] == [0, 1, 1]
    assert [count(store, name) for name in short] == [0, 0, 3]
    clock[0] += 200 * 86_400
    while await store.prune():
        pass
    assert [count(store, name) for name in ("day", "feedback", "applied")] == [0, 0, 0]
    assert [count(store, name) for name in short] == [0, 0, 0]


async def test_over_the_bound_of_rows_the_finest_go(open_store: Opener, clock: list[float]) -> None:
    store = open_store(retention=Retention(max_rows=4))
    for number in range(6):
        await store.apply(item(rollup(row(1, minutes_ago=number), first=number + 1)))
    assert await store.prune() == 0
    clock[0] += 7200
    await store.add_up()

    while await store.prune(max_rows=2):
        pass

    assert [count(store, name) for name in ("minute", "hour", "day")] == [2, 1, 1]


async def test_short_rows_have_the_same_bound(open_store: Opener) -> None:
    store = open_store(retention=Retention(max_rows=10))
    for number in range(4):
        await store.apply(item(rollup(row(1, minutes_ago=number), first=number + 1)))
    await store.fold()
    short = ("short_minute", "short_hour", "short_day")
    assert [count(store, name) for name in short] == [8, 3, 3]

    while await store.prune(max_rows=3):
        pass

    assert [count(store, name) for name in (*short, "minute")] == [4, 3, 3, 4]


async def test_a_database_that_was_made_later_is_refused(open_store: Opener, url: str) -> None:
    store = open_store()
    with store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")

    with pytest.raises(StartError, match="later version"):
        TelemetryStore(url)


async def test_migrations_are_run_once_and_match_the_tables(store: TelemetryStore) -> None:
    from alembic.autogenerate import compare_metadata  # noqa: PLC0415
    from alembic.migration import MigrationContext  # noqa: PLC0415

    assert migrate(store.engine).is_current
    assert schema_state(store.engine).is_current
    with store.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []


async def test_migrations_of_two_processes_at_once_leave_one_schema(url: str) -> None:
    stores = await asyncio.gather(*(asyncio.to_thread(TelemetryStore, url) for _ in range(3)))

    outcomes = [await store.apply(item(rollup(row(1)), item_id="one")) for store in stores]
    for store in stores:
        await asyncio.to_thread(store.close)
    assert outcomes == ["stored", "known", "known"]


async def test_escalations_are_as_the_decision_logs_have_them(store: TelemetryStore) -> None:
    rows = (
        row(60, label="1"),
        escalated(30, reason="confident", label="2"),
        escalated(5, answered_by="edge", reason="upstream_timeout", outcome="degraded"),
        escalated(3, answered_by="edge", reason="lower_stands"),
        escalated(2, answered_by="", reason="stopped", outcome="failed"),
        row(33, tier="regional", site="cam-1", is_entry=False, answered_by="regional"),
    )
    places = (source(100), source(33, tier="regional", log="cd"))
    await store.apply(item(Rollup(places, rows), origin="cloud/gw"))

    by_tier = rows_of(ask(store, "escalations"))
    in_all = rows_of(ask(store, "escalations", by="region"))

    edge = {name: by_tier[0][name] for name in by_tier[0] if not name.endswith("ms")}
    assert edge == {
        "tier": "edge", "requests": 100, "answered_here": 68, "escalated": 40,
        "escalation_rate": 0.4, "failed_escalations": 7, "degraded": 5, "abstained": 0,
        "failed": 2, "mean_confidence": 0.75,
    }  # fmt: skip
    assert [one["tier"] for one in by_tier] == ["edge", "regional"]
    assert [one["requests"] for one in in_all] == [100]
    assert (
        rows_of(ask(store, "escalations", by="region", where="tier=regional"))[0]["requests"] == 33
    )
    chosen = rows_of(ask(store, "escalations", by="label", where="label=1|2,label!=2"))
    assert [(one["label"], one["requests"]) for one in chosen] == [("1", 60)]
    none = rows_of(ask(store, "cost", by="answered_by", where="answered_by=none"))
    assert [(one["answered_by"], one["requests"]) for one in none] == [("none", 2)]


async def test_accuracy_says_what_it_is_from(store: TelemetryStore) -> None:
    await store.apply(item(rollup(row(1), audits=(audit(90, 10),))))
    for given in (
        feedback(label=3), feedback(label=4), feedback(is_correct=True),
        feedback(label=3, answered=None), feedback(label=9, is_correct=True),
    ):  # fmt: skip
        await store.apply(given)

    by_model = ask(store, "accuracy")
    by_policy = rows_of(ask(store, "accuracy", by="policy"))

    assert rows_of(by_model)[0]["judged"] == 4
    assert rows_of(by_model)[0]["correct"] == 3
    assert "from feedback alone" in by_model.notes[0]
    from_audits, from_feedback = by_policy
    assert (from_audits["source"], from_feedback["source"]) == ("audits", "feedback")
    assert from_audits["accuracy"] == pytest.approx(0.9)
    assert 0.8 < from_audits["low"] < 0.9 < from_audits["high"] < 1
    assert from_feedback["low"] < 0.75 < from_feedback["high"]


async def test_agreement_weighs_each_audit(store: TelemetryStore) -> None:
    await store.apply(
        item(rollup(row(1), audits=(audit(10, 0, 0.5), audit(0, 10, 0.1, minutes_ago=1))))
    )

    (found,) = rows_of(ask(store, "agreement"))

    assert found["audited"] == 20
    assert found["agreement"] == pytest.approx(20 / 120)


async def test_pages_follow_one_another(store: TelemetryStore) -> None:
    rows = [row(at, label=str(at)) for at in range(1, 26)]
    await store.apply(item(rollup(*rows)))
    found, cursor, pages = [], "", 0

    while cursor or not pages:
        report = ask(store, "latency", by="label", limit="10", cursor=cursor)
        found += [one["requests"] for one in rows_of(report)]
        cursor, pages = report.next, pages + 1

    assert found == list(range(25, 0, -1))
    assert pages == 3
    first = ask(store, "latency", by="label", limit="10")
    with pytest.raises(RequestError, match="another question"):
        ask(store, "latency", by="gear", limit="10", cursor=first.next)
    with pytest.raises(RequestError, match="cannot order by 'wrong'"):
        ask(store, "latency", order="wrong")


async def test_a_question_has_bounds(store: TelemetryStore) -> None:
    await store.apply(item(rollup(*(row(1, label=str(at)) for at in range(50)))))

    with pytest.raises(RequestError, match="more than 10 rows would have to be read"):
        ask(store, "latency", by="label", bounds=Bounds(max_rows=10))
    with pytest.raises(RequestError, match="more than 10 rows: ask by fewer"):
        ask(store, "cost", by="label", bounds=Bounds(max_groups=10))
    with pytest.raises(TooLateError, match="ask about a shorter time"):
        ask(store, "cost", bounds=Bounds(timeout_s=0.0))


def test_a_time_that_ends_while_rows_are_fetched_is_an_error_of_the_store(tmp_path: Path) -> None:
    first = select(literal(1).label("number")).cte(recursive=True)
    numbers = first.union_all(select(first.c.number + 1).where(first.c.number < 100_000))
    engine, over = open_engine(f"sqlite:///{tmp_path / 'any.sqlite'}"), threading.Event()

    with (
        pytest.raises(StorageError, match="interrupted"),
        reading(engine) as connection,
        limited(connection, Bounds(timeout_s=0.0), over),
    ):
        # The first rows are there at once; it is the fetching of more that is broken off.
        list(Fetcher(connection, Bounds(), math.inf).rows(select(numbers.c.number)))

    engine.dispose()
    assert over.is_set()


async def test_a_fleet_is_told_site_by_site(store: TelemetryStore) -> None:
    await store.apply(item(rollup(row(3), row(2, version="2")), at_s=NOW_S - 600))
    other = Rollup((source(4, site="cam-2", log="cd"),), (row(4, site="cam-2"),))
    await store.apply(item(other, origin="eu/cam-2", at_s=NOW_S - 30))

    first, second = rows_of(ask(store, "fleet"))

    assert (first["site"], first["versions"], first["decisions"]) == ("cam-1", ["1", "2"], 5)
    assert (first["silent_s"], second["silent_s"]) == (600, 30)
    assert rows_of(ask(store, "fleet", where="site=cam-2")) == [second]


async def test_a_rollout_is_seen_over_time(store: TelemetryStore) -> None:
    await store.apply(
        item(
            rollup(row(5, minutes_ago=90), row(3, version="2"), row(1, minutes_ago=90, version="2"))
        )
    )

    found = rows_of(ask(store, "rollouts"))

    assert [(one["version"], one["requests"]) for one in found] == [("1", 5), ("2", 1), ("2", 3)]
    assert found[1]["hour"] < found[2]["hour"]


async def test_a_store_that_is_closed_takes_nothing(store: TelemetryStore) -> None:
    store.close()

    with pytest.raises(StorageError, match="too much"):
        await store.apply(item(rollup(row(1))))
