"""Rows of minutes become short rows, and those are added up.

Rules of this file:
  * short rows are inserted in the transaction of the minutes that they are made of, and only
    inserted, so that two processes do not wait for one another;
  * ``fold`` adds them to their minute, hour and day in the transaction that deletes them: with what
    is not folded yet, each resolution has every decision once, at any time;
  * a question reads what is not folded, too. A row that comes late is folded like any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Table, delete, select

from cloud_tier.telemetry import tables
from cloud_tier.telemetry.cuts import CUTS
from cloud_tier.telemetry.database import chunks, insert_all, is_alone, put
from cloud_tier.telemetry.intake import DAY_S, HOUR_S, MINUTE_S
from cloud_tier.telemetry.sketches import compact

FOLD_ROWS = 5000
_NUM_SUMS = len(tables.SUMS)
_VALUES = ("cut", "bucket_s", "series_id", *tables.SUMS, "latency")
_FINEST_S = {cut.number: cut.finest_s for cut in CUTS}
# Cut, begin of the time, short series.
_Key = tuple[int, int, int]
# The sums, and the sketches that are to be joined.
_Kept = tuple[list[Any], list[bytes]]
_sums_of = itemgetter(*tables.SUMS)


def add_short(
    connection: Connection, minutes: Iterable[Mapping[str, Any]], ids: Mapping[int, Sequence[int]]
) -> None:
    """Inserts the short rows of rows of ``tables.minute``, added up as far as these go."""
    sums: dict[_Key, _Kept] = {}
    for row in minutes:
        short, at_s = ids[row["series_id"]], row["bucket_s"]
        values, sketch = _sums_of(row), row["latency"]
        for place, cut in enumerate(CUTS):
            key = (cut.number, at_s // cut.finest_s * cut.finest_s, short[place])
            _gather(sums, key, values, (sketch,))
    insert_all(connection, tables.short_new, _rows(sums))


def fold(connection: Connection, max_rows: int = FOLD_ROWS) -> int:
    """Adds short rows to minutes, hours and days; returns how many, 0: there are none left."""
    if not is_alone(connection):
        return 0
    table = tables.short_new
    query = select(table.c.id, *(table.c[name] for name in _VALUES)).order_by(table.c.id)
    rows = connection.execute(query.limit(max_rows)).all()
    for coarse, width_s in (
        (tables.short_minute, MINUTE_S),
        (tables.short_hour, HOUR_S),
        (tables.short_day, DAY_S),
    ):
        sums: dict[_Key, _Kept] = {}
        for _, cut, at_s, series_id, *values, sketch in rows:
            if width_s < _FINEST_S[cut]:
                continue
            key = (cut, at_s // width_s * width_s, series_id)
            _gather(sums, key, values, (bytes(sketch),))
        for cut, at_s, series_id, *values, sketch in _kept(connection, coarse, sums):
            _gather(sums, (cut, at_s, series_id), values, (bytes(sketch),))
        put(connection, coarse, _rows(sums), replacing=(*tables.SUMS, "latency"))
    for some in chunks([row[0] for row in rows]):
        connection.execute(delete(table).where(table.c.id.in_(some)))
    return len(rows)


def _gather(
    sums: dict[_Key, _Kept], key: _Key, values: Sequence[Any], sketches: Sequence[bytes]
) -> None:
    kept = sums.get(key)
    if kept is None:
        sums[key] = (list(values), list(sketches))
        return
    total = kept[0]
    for at in range(_NUM_SUMS):
        total[at] += values[at]
    kept[1].extend(sketches)


def _rows(sums: Mapping[_Key, _Kept]) -> list[dict[str, Any]]:
    """Rows of the database in ascending order, the order in which locks are taken."""
    return [
        dict(
            zip(
                _VALUES,
                (*key, *values, sketches[0] if len(sketches) == 1 else compact(sketches)),
                strict=True,
            )
        )
        for key, (values, sketches) in sorted(sums.items(), key=lambda one: one[0])
    ]


def _kept(connection: Connection, table: Table, keys: Iterable[_Key]) -> Iterable[Any]:
    by_time: dict[tuple[int, int], list[int]] = {}
    for cut, at_s, series_id in keys:
        by_time.setdefault((at_s, cut), []).append(series_id)
    for (at_s, cut), ids in sorted(by_time.items()):
        for some in chunks(sorted(ids)):
            yield from connection.execute(
                select(*(table.c[name] for name in _VALUES)).where(
                    table.c.bucket_s == at_s, table.c.cut == cut, table.c.series_id.in_(some)
                )
            )
