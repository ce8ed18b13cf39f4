"""Answers questions from the tables, in one transaction that sees one state.

Rules of this file:
  * series are chosen and judged first, then added up: what a decision means is in ``answers``;
  * a question about hours or days also reads the minutes that are not yet added to them;
  * a question has a time and a number of rows; over them it is refused, with what to ask instead.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    FromClause,
    Select,
    Table,
    func,
    literal,
    literal_column,
    select,
)

from cloud_tier.telemetry import tables
from cloud_tier.telemetry.answers import (
    WITH_SKETCH,
    Group,
    Sums,
    as_accuracy,
    audited_row,
    facts_of,
    judged_row,
    page,
    row_of,
)
from cloud_tier.telemetry.asking import COLUMNS, NO_VALUE, TIMES_S, Question
from cloud_tier.telemetry.bounded import Bounds, limited, too_late
from cloud_tier.telemetry.database import is_postgres, reading
from cloud_tier.telemetry.intake import DAY_S, HOUR_S, MINUTE_S
from cloud_tier.telemetry.rows import FleetRow, Report, Row
from cloud_tier.telemetry.sketches import compact
from runtime.errors import RequestError, StorageError

_FETCH = 20_000
_COMPACT_BYTES = 64 << 20


def answer(
    engine: Engine, asked: Question, *, now_s: float, bounds: Bounds | None = None
) -> Report[Row]:
    """The page of an answer.

    Raises:
        RequestError: too much would have to be read, or the order is unknown.
        TooLateError: it took longer than a question may.
        StorageError: the database does not answer.
    """
    bounds = bounds or Bounds()
    deadline_s = time.monotonic() + bounds.timeout_s
    is_over = threading.Event()
    try:
        with reading(engine) as connection, limited(connection, bounds, is_over):
            reader = _Reader(connection, asked, now_s, bounds, deadline_s)
            return page(asked, reader.rows(), reader.notes)
    except StorageError:
        if is_over.is_set() or time.monotonic() >= deadline_s:
            raise too_late(bounds) from None
        raise


class _Piece(NamedTuple):
    """A part of the time asked about, and the table that it is read from."""

    table: Table
    since_s: int
    until_s: int


_FACTS = ("tier", "action", "outcome", "answered_by", "reason")
_FIRST_FACT = 1 + len(tables.SUMS)
_FIRST_WORD = _FIRST_FACT + len(_FACTS)


class _Reader:
    def __init__(
        self,
        connection: Connection,
        asked: Question,
        now_s: float,
        bounds: Bounds,
        deadline_s: float,
    ) -> None:
        self._connection, self._asked, self._now_s = connection, asked, now_s
        self._bounds, self._deadline_s = bounds, deadline_s
        self.notes: list[str] = []

    def rows(self) -> list[Row]:
        metric = self._asked.metric
        if metric == "fleet":
            return self._fleet()
        if metric == "agreement":
            return self._agreement()
        if metric == "accuracy":
            return self._accuracy()
        groups = self._groups(self._asked.by, with_sketch=metric in WITH_SKETCH)
        return [row_of(metric, self._named(group), sums) for group, sums in groups.items()]

    def _groups(self, by: Sequence[str], *, with_sketch: bool) -> dict[Group, Sums]:
        """What there is of each group that has requests."""
        groups: dict[Group, Sums] = {}
        places = self._places(by) if with_sketch else {}
        words = [tables.series.c[COLUMNS[name]] for name in by if name not in TIMES_S]
        told = [*(tables.series.c[name] for name in _FACTS), *words]
        for piece in self._pieces(by):
            source = piece.table
            at = _time_of(source, by)
            counted: FromClause = source
            if not TIMES_S.keys() & set(by):
                # By number first, of which there are few: sorting words is what takes long.
                added: list[Any] = [func.sum(source.c[name]).label(name) for name in tables.SUMS]
                one_each = self._chosen(piece, select(source.c.series_id, *added))
                counted = one_each.group_by(source.c.series_id).subquery()
            sums: list[Any] = [func.sum(counted.c[name]) for name in tables.SUMS]
            joined = counted.join(tables.series, counted.c.series_id == tables.series.c.id)
            query = select(at, *sums, *told).select_from(joined)
            if counted is source:
                query = self._chosen(piece, query)
            query = query.where(*self._conditions(tables.series)).group_by(at, *told)
            for row in self._fetched(query):
                facts, names = row[_FIRST_FACT:_FIRST_WORD], row[_FIRST_WORD:]
                key = _timed(tuple(value or NO_VALUE for value in names), by, int(row[0]))
                if key not in groups and len(groups) >= self._bounds.max_groups:
                    raise RequestError(
                        f"more than {self._bounds.max_groups} rows: ask by fewer dimensions, or "
                        "narrow it with where"
                    )
                groups.setdefault(key, Sums()).add(facts_of(*facts), row[1:_FIRST_FACT])
            if with_sketch:
                query = self._chosen(piece, select(source.c.series_id, at, source.c.latency))
                self._gather(query, places, by, groups)
        return {group: sums for group, sums in groups.items() if sums.requests}

    def _gather(
        self,
        query: Select[Any],
        places: dict[int, Group],
        by: Sequence[str],
        groups: dict[Group, Sums],
    ) -> None:
        """Puts the sketches of rows to the groups that they are of."""
        conditions = self._conditions(tables.series) if self._asked.where else []
        if conditions:
            ids = select(tables.series.c.id).where(*conditions)
            query = query.where(query.selected_columns[0].in_(ids))
        size, spots = 0, dict[tuple[Group, int], list[bytes]]()
        for series_id, at, sketch in self._fetched(query):
            group = places.get(series_id)
            if group is None:
                continue
            parts = spots.get((group, at))
            if parts is None:
                parts = spots[group, at] = groups[_timed(group, by, int(at))].sketch
            parts.append(sketch)
            size += len(sketch)
            if size > _COMPACT_BYTES:
                for sums in groups.values():
                    sums.sketch[:] = [compact(sums.sketch)]
                size = 0

    def _places(self, by: Sequence[str]) -> dict[int, Group]:
        """The group, but for its times, of each series that is asked about."""
        table = tables.series
        words = [table.c[COLUMNS[name]] for name in by if name not in TIMES_S]
        groups: dict[Group, Group] = {}
        found: dict[int, Group] = {}
        for row in self._fetched(select(table.c.id, *words).where(*self._conditions(table))):
            group = tuple(value or NO_VALUE for value in row[1:])
            found[row[0]] = groups.setdefault(group, group)
        return found

    def _conditions(self, table: Table) -> list[Any]:
        conditions: list[Any] = []
        for name, values, is_not in self._asked.where:
            column = table.c[COLUMNS[name]]
            conditions.append(column.not_in(values) if is_not else column.in_(values))
        if table is tables.series and self._asked.metric != "fleet" and self._asked.counts_entries:
            conditions.append(table.c.is_entry)
        return conditions

    def _pieces(self, by: Sequence[str]) -> list[_Piece]:
        """Whole days are read as such where nobody asks for finer times: a day is its hours."""
        since_s, until_s, grain_s = self._asked.since_s, self._asked.until_s, self._asked.grain_s
        if grain_s == MINUTE_S:
            return [_Piece(tables.minute, since_s, until_s)]
        not_added = _Piece(tables.minute, since_s, until_s)
        if grain_s == DAY_S:
            return [_Piece(tables.day, since_s, until_s), not_added]
        first_s, last_s = -(-since_s // DAY_S) * DAY_S, until_s // DAY_S * DAY_S
        if first_s >= last_s or {"hour", "minute"} & set(by):
            return [_Piece(tables.hour, since_s, until_s), not_added]
        edges = [_Piece(tables.hour, since_s, first_s), _Piece(tables.hour, last_s, until_s)]
        whole = _Piece(tables.day, first_s, last_s)
        return [whole, *(one for one in edges if one.since_s < one.until_s), not_added]

    def _chosen(self, piece: _Piece, query: Select[Any]) -> Select[Any]:
        at_s: ColumnElement[int] = piece.table.c.bucket_s
        if piece.table is tables.minute and self._asked.grain_s != MINUTE_S:
            query, at_s = query.where(tables.NOT_ADDED), tables.TIME_OF_NOT_ADDED
        return query.where(at_s >= piece.since_s, at_s < piece.until_s)

    def _fetched(self, query: Select[Any]) -> Iterator[tuple[Any, ...]]:
        """The rows of a query, as long as there is time and not too many."""
        query, num = query.limit(self._bounds.max_rows + 1), 0
        connection = self._connection
        if is_postgres(connection):
            # Else its driver would hold all rows at once.
            connection = connection.execution_options(stream_results=True)
        with connection.execute(query) as result:
            # SQLite's driver has no more than a row at hand; without an object around each of them
            # a question takes half the time.
            is_bare = result.cursor is not None and not is_postgres(connection)
            fetch = result.cursor.fetchmany if is_bare else result.fetchmany
            while some := fetch(_FETCH):
                num += len(some)
                if num > self._bounds.max_rows:
                    raise RequestError(
                        f"more than {self._bounds.max_rows} rows would have to be read: ask about "
                        "a shorter time, or narrow it with where"
                    )
                if time.monotonic() >= self._deadline_s:
                    raise too_late(self._bounds)
                yield from some

    def _accuracy(self) -> list[Row]:
        table, by = tables.feedback, self._asked.by
        at = _time_of(table, by)
        columns = [table.c[COLUMNS[name]] for name in by if name not in TIMES_S]
        num_correct = func.count().filter(table.c.is_correct)
        query = (
            select(at, func.count(), num_correct, *columns)
            .where(
                table.c.bucket_s >= self._asked.since_s,
                table.c.bucket_s < self._asked.until_s,
                table.c.is_correct.is_not(None),
                *self._conditions(table),
            )
            .group_by(at, *columns)
        )
        rows: list[Row] = []
        for row in self._fetched(query):
            group = tuple(value or NO_VALUE for value in row[3:])
            judged = judged_row(self._named(_timed(group, by, int(row[0]))), row[2], row[1])
            if judged is not None:
                rows.append(judged)
        names = (*by, *(one.name for one in self._asked.where))
        if set(names) <= {"region", "site", "policy", "gear", "hour", "day"}:
            told = (as_accuracy(row) for row in self._audited())
            rows += [row for row in told if row is not None]
        else:
            self.notes.append(
                "from feedback alone: audits know region, site, policy, gear, hour and day"
            )
        return rows

    def _agreement(self) -> list[Row]:
        return list(self._audited())

    def _audited(self) -> list[Any]:
        table, by = tables.audits, self._asked.by
        at = _time_of(table, by)
        columns = [table.c[COLUMNS[name]] for name in by if name not in TIMES_S]
        sums: list[Any] = [func.sum(table.c[name]) for name in tables.AUDIT_SUMS]
        since_s = self._asked.since_s // HOUR_S * HOUR_S
        query = (
            select(at, *sums, *columns)
            .where(
                table.c.bucket_s >= since_s,
                table.c.bucket_s < self._asked.until_s,
                *self._conditions(table),
            )
            .group_by(at, *columns)
        )
        num = len(sums) + 1
        rows = []
        for row in self._fetched(query):
            group = tuple(value or NO_VALUE for value in row[num:])
            named = self._named(_timed(group, by, int(row[0])))
            rows.append(audited_row(named, [float(value) for value in row[1:num]]))
        return rows

    def _fleet(self) -> list[Row]:
        by = ("region", "site", "version")
        versions: dict[Group, dict[str, int]] = {}
        for (region, site, version), sums in self._groups(by, with_sketch=False).items():
            versions.setdefault((region, site), {})[version] = sums.requests
        table = tables.sources
        names = list(table.columns.keys())
        query = select(table).where(*self._conditions(table)).order_by(table.c.digest)
        sites: dict[Group, list[dict[str, Any]]] = {}
        for values in self._fetched(query):
            row = dict(zip(names, values, strict=True))
            sites.setdefault((row["region"], row["site"]), []).append(row)
        for name, count in self._fetched(select(tables.notes).order_by(tables.notes.c.name)):
            self.notes.append(f"{name}: {count}")
        if len(sites) > self._bounds.max_groups:
            raise RequestError(f"more than {self._bounds.max_groups} sites: narrow it with where")
        return [self._site(place, kept, versions.get(place, {})) for place, kept in sites.items()]

    def _site(
        self, place: Group, kept: Sequence[dict[str, Any]], versions: dict[str, int]
    ) -> FleetRow:
        heard_s = max(row["heard_s"] for row in kept)

        def total(name: str) -> int:
            return sum(row[name] for row in kept)

        return FleetRow(
            group=dict(zip(("region", "site"), place, strict=True)),
            last_heard_s=round(heard_s, 3),
            silent_s=round(max(0.0, self._now_s - heard_s), 3),
            tiers=sorted({row["tier"] for row in kept}),
            versions=sorted(versions),
            decisions=sum(versions.values()),
            counted=total("counted"),
            missing=total("last") - total("counted") - total("unread") + total("repeated"),
            unread=total("unread"),
            dropped=total("dropped"),
            repeated=total("repeated"),
        )

    def _named(self, group: Group) -> dict[str, str]:
        return dict(zip(self._asked.by, group, strict=True))


def _time_of(table: Table, by: Sequence[str]) -> ColumnElement[int]:
    """The beginning of the finest time that is asked by; 0: none is."""
    width_s = min((TIMES_S[name] for name in by if name in TIMES_S), default=0)
    if not width_s:
        return literal(0)
    at: ColumnElement[int] = table.c.bucket_s - table.c.bucket_s % literal_column(str(width_s))
    return at


def _timed(group: Group, by: Sequence[str], at_s: int) -> Group:
    """A group with its times, in the order in which they were asked for."""
    values = iter(group)
    return tuple(_instant(at_s, TIMES_S[name]) if name in TIMES_S else next(values) for name in by)


@lru_cache(maxsize=4096)
def _instant(at_s: int, width_s: int) -> str:
    at = datetime.fromtimestamp(at_s // width_s * width_s, UTC)
    return at.strftime("%Y-%m-%d" if width_s == DAY_S else "%Y-%m-%dT%H:%MZ")
