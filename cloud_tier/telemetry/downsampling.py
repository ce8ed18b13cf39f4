"""Minutes become hours and days, and what is old goes.

Rules of this file:
  * a minute's row is added to its hour and its day in the transaction that marks it ``added``; so
    every total is the same at every resolution, whatever crashes, and a row that comes late is one
    more row that is not yet added;
  * an hour is added up when it is over, so that its rows are written about once; until then a
    question about hours reads the minutes that are left;
  * a step does a bounded amount of work, in one process at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Table, delete, func, select, update

from cloud_tier.telemetry import tables
from cloud_tier.telemetry.database import chunks, is_alone, put
from cloud_tier.telemetry.intake import DAY_S, HOUR_S
from cloud_tier.telemetry.limits import Retention
from cloud_tier.telemetry.row_bound import RowBound
from cloud_tier.telemetry.sketches import compact

STEP_ROWS = 5000
# Rows of an hour that is over still come in for a while.
GRACE_S = 300
MAX_FEEDBACK = 1_000_000
_Key = tuple[int, int]


def add_up(connection: Connection, now_s: float, max_rows: int = STEP_ROWS) -> int:
    """Adds minutes of hours that are over to hours and days; returns how many rows, 0: no more."""
    if not is_alone(connection):
        return 0
    table = tables.minute
    until_s = int((now_s - GRACE_S) // HOUR_S) * HOUR_S
    rows = connection.execute(
        select(table)
            .where(tables.NOT_ADDED, until_s > tables.TIME_OF_NOT_ADDED)
        .order_by(table.c.series_id, table.c.bucket_s)
        .limit(max_rows)
    ).mappings().all()  # fmt: skip
    for coarse, bucket_s in ((tables.hour, HOUR_S), (tables.day, DAY_S)):
        sums: dict[_Key, dict[str, Any]] = {}
        for row in rows:
            _gather(sums, (row["bucket_s"] // bucket_s * bucket_s, row["series_id"]), row)
        for kept in _kept(connection, coarse, list(sums)):
            _gather(sums, (kept["bucket_s"], kept["series_id"]), kept)
        put(
            connection,
            coarse,
            [
                {"bucket_s": at_s, "series_id": series_id, **_finished(values)}
                for (at_s, series_id), values in sorted(sums.items())
            ],
            replacing=(*tables.SUMS, *tables.SKETCHES),
        )
    for ids in chunks([row["id"] for row in rows]):
        connection.execute(update(table).where(table.c.id.in_(ids)).values(added=1))
    return len(rows)


def prune(
    connection: Connection,
    now_s: float,
    retention: Retention,
    max_rows: int = STEP_ROWS,
    bound: RowBound | None = None,
) -> int:
    """Deletes what is too old or too much; returns how many rows, 0: no more.

    ``bound`` is what this process knows of how many there are; without it they are counted.
    """
    if not is_alone(connection):
        return 0
    minute, num = tables.minute, 0
    old = select(minute.c.id).where(
        minute.c.added == 1, minute.c.bucket_s < int(now_s - retention.minute_s)
    )
    num += _delete(connection, minute, minute.c.id, old.limit(max_rows))
    feedback = tables.feedback
    old = select(feedback.c.id).where(feedback.c.bucket_s < int(now_s - retention.day_s))
    num += _delete(connection, feedback, feedback.c.id, old.limit(max_rows))
    applied = tables.applied
    items = select(applied.c.item).where(applied.c.at_s < now_s - retention.applied_s)
    num += _delete(connection, applied, applied.c.item, items.limit(max_rows))
    for table, age_s in (
        (tables.hour, retention.hour_s),
        (tables.day, retention.day_s),
        (tables.audits, retention.day_s),
        (tables.short_minute, retention.minute_s),
        (tables.short_hour, retention.hour_s),
        (tables.short_day, retention.day_s),
    ):
        num += _delete_oldest(connection, table, max_rows, before_s=int(now_s - age_s))
    bound = bound or RowBound()
    if bound.is_kept(connection, max_rows=retention.max_rows, max_feedback=MAX_FEEDBACK) or num:
        return num
    if done := _too_much(connection, retention, max_rows, bound):
        bound.forget()
    return done


_COUNTED = (tables.minute, tables.hour, tables.day, tables.audits, tables.feedback)
_SHORT = (tables.short_minute, tables.short_hour, tables.short_day)


def count_rows(connection: Connection, counted: Sequence[Table] = _COUNTED) -> dict[str, int]:
    """How many rows there are of minutes, hours, days, audits and feedback, or of other tables."""
    return {
        table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
        for table in counted
    }


def _too_many_short(
    connection: Connection, num: Mapping[str, int], retention: Retention, max_rows: int
) -> int:
    """The same bound for short rows, of which there are fewer as a rule."""
    excess = sum(num.values()) - retention.max_rows
    done = 0
    if excess > 0:
        for table in _SHORT:
            done = done or _delete_oldest(connection, table, min(excess, max_rows))
    return done


def _too_much(connection: Connection, retention: Retention, max_rows: int, bound: RowBound) -> int:
    """Drops the oldest of the finest rows that can go, where there are too many."""
    short = count_rows(connection, _SHORT)
    done = _too_many_short(connection, short, retention, max_rows)
    if done:
        return done
    num = count_rows(connection)
    excess = sum(num.values()) - retention.max_rows
    if num["feedback"] > MAX_FEEDBACK:
        excess = max(excess, 1)
    if excess <= 0:
        bound.count(connection, num, short)
        return 0
    most = min(excess, max_rows)
    minute, feedback = tables.minute, tables.feedback
    added = select(minute.c.id).where(minute.c.added == 1).order_by(minute.c.bucket_s)
    done = _delete(connection, minute, minute.c.id, added.limit(most))
    for table in (tables.hour, tables.audits):
        done = done or _delete_oldest(connection, table, most)
    if not done:
        oldest = select(feedback.c.id).order_by(feedback.c.bucket_s).limit(most)
        done = _delete(connection, feedback, feedback.c.id, oldest)
    return done or _delete_oldest(connection, tables.day, most)


def _delete(connection: Connection, table: Table, key: Any, chosen: Any) -> int:  # noqa: ANN401 - of any type
    keys = connection.execute(chosen).scalars().all()
    for some in chunks(keys):
        connection.execute(delete(table).where(key.in_(some)))
    return len(keys)


def _delete_oldest(
    connection: Connection, table: Table, max_rows: int, *, before_s: int | None = None
) -> int:
    """Deletes the oldest bucket's rows, at most so many."""
    oldest = connection.execute(select(func.min(table.c.bucket_s))).scalar_one()
    if oldest is None or (before_s is not None and oldest >= before_s):
        return 0
    keys = [column for column in table.primary_key if column.name != "bucket_s"]
    rows = connection.execute(
        select(*keys).where(table.c.bucket_s == oldest).limit(max_rows)
    ).all()  # fmt: skip
    if len(rows) < max_rows:
        connection.execute(delete(table).where(table.c.bucket_s == oldest))
        return len(rows)
    for row in rows:
        same = [key == value for key, value in zip(keys, row, strict=True)]
        connection.execute(delete(table).where(table.c.bucket_s == oldest, *same))
    return len(rows)


def _kept(connection: Connection, table: Table, keys: Sequence[_Key]) -> list[Any]:
    found: list[Any] = []
    by_time: dict[int, list[int]] = {}
    for bucket_s, series_id in keys:
        by_time.setdefault(bucket_s, []).append(series_id)
    for bucket_s, ids in sorted(by_time.items()):
        for some in chunks(ids):
            query = select(table).where(table.c.bucket_s == bucket_s, table.c.series_id.in_(some))
            found += connection.execute(query).mappings().all()
    return found


def _gather(sums: dict[_Key, dict[str, Any]], key: _Key, row: Any) -> None:  # noqa: ANN401 - a row
    values = sums.get(key)
    if values is None:
        sums[key] = {
            **{name: row[name] for name in tables.SUMS},
            **{name: [bytes(row[name])] for name in tables.SKETCHES},
        }
        return
    for name in tables.SUMS:
        values[name] += row[name]
    for name in tables.SKETCHES:
        values[name].append(bytes(row[name]))


def _finished(values: dict[str, Any]) -> dict[str, Any]:
    return {**values, **{name: compact(values[name]) for name in tables.SKETCHES}}
