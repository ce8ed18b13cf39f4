"""Adds up rows of counts by what is asked.

Rules of this file:
  * series are chosen and judged first, then added up: what a decision means is in ``answers``;
  * rows of fewer dimensions are read where they have all that is asked (``cuts``);
  * a question also reads the rows that are not yet added to those that it is about.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, FromClause, Select, Table, func, select

from cloud_tier.telemetry import tables
from cloud_tier.telemetry.answers import SHARES, Group, Sums, facts_of
from cloud_tier.telemetry.asking import NO_VALUE, TIMES_S, Question
from cloud_tier.telemetry.cuts import Cut
from cloud_tier.telemetry.fetching import Fetcher
from cloud_tier.telemetry.grouping import conditions_of, time_of, timed, words_of
from cloud_tier.telemetry.intake import DAY_S, MINUTE_S
from cloud_tier.telemetry.sketches import Tally
from runtime.errors import RequestError

_FACTS = ("tier", "action", "outcome", "answered_by", "reason")
_FIRST_FACT = 1 + len(tables.SUMS)
_FIRST_WORD = _FIRST_FACT + len(_FACTS)


class _Piece(NamedTuple):
    """A part of the time asked about, and the table that it is read from."""

    table: Table
    since_s: int
    until_s: int


class _Star(NamedTuple):
    """Tables of the same counts: of rows that are not yet added up, and of each width."""

    series: Table
    new: Table
    minute: Table
    hour: Table
    day: Table


_WHOLE = _Star(tables.series, tables.minute, tables.minute, tables.hour, tables.day)
_SHORT = _Star(
    tables.short_series,
    tables.short_new,
    tables.short_minute,
    tables.short_hour,
    tables.short_day,
)


class Summing:
    """The sums of a question's groups.

    Args:
        fetcher: runs its queries.
        asked: the question.
        by: by what they are grouped.
        cut: the rows to read; None: those of all dimensions.
    """

    def __init__(
        self, fetcher: Fetcher, asked: Question, by: Sequence[str], cut: Cut | None
    ) -> None:
        self._fetcher, self._asked, self._by, self._cut = fetcher, asked, by, cut
        self._star = _SHORT if cut else _WHOLE
        self._groups: dict[Group, Sums] = {}
        self._numbers: dict[Group, int] = {}
        self._tally = Tally()

    def groups(self) -> dict[Group, Sums]:
        """What there is of each group that has requests.

        Raises:
            RequestError: too much would have to be read, or there are too many groups.
            TooLateError: it takes too long.
        """
        shares = SHARES.get(self._asked.metric, ())
        places = self._places() if shares else {}
        for piece in self._pieces():
            self._add_up(piece)
            if shares:
                self._gather(piece, places)
        if shares:
            found = self._tally.quantiles(len(self._groups), shares)
            for sums, values in zip(self._groups.values(), found, strict=True):
                sums.quantiles_ms = dict(zip(shares, values, strict=True))
        return {group: sums for group, sums in self._groups.items() if sums.requests}

    def _add_up(self, piece: _Piece) -> None:
        source, by, series = piece.table, self._by, self._star.series
        told = [*(series.c[name] for name in _FACTS), *words_of(series, by)]
        at = time_of(source, by)
        counted: FromClause = source
        if not TIMES_S.keys() & set(by):
            # By number first, of which there are few: sorting words is what takes long.
            added: list[Any] = [func.sum(source.c[name]).label(name) for name in tables.SUMS]
            one_each = self._chosen(piece, select(source.c.series_id, *added))
            counted = one_each.group_by(source.c.series_id).subquery()
        sums: list[Any] = [func.sum(counted.c[name]) for name in tables.SUMS]
        joined = counted.join(series, counted.c.series_id == series.c.id)
        query = select(at, *sums, *told).select_from(joined)
        if counted is source:
            query = self._chosen(piece, query)
        query = query.where(*conditions_of(self._asked, series)).group_by(at, *told)
        bound = self._fetcher.bounds.max_groups
        for row in self._fetcher.rows(query):
            facts, names = row[_FIRST_FACT:_FIRST_WORD], row[_FIRST_WORD:]
            key = timed(tuple(value or NO_VALUE for value in names), by, int(row[0]))
            if key not in self._groups:
                if len(self._groups) >= bound:
                    raise RequestError(
                        f"more than {bound} rows: ask by fewer dimensions, or narrow it with where"
                    )
                self._numbers[key] = len(self._groups)
                self._groups[key] = Sums()
            self._groups[key].add(facts_of(*facts), row[1:_FIRST_FACT])

    def _gather(self, piece: _Piece, places: dict[int, Group]) -> None:
        """Adds the sketches of rows to the groups that they are of."""
        source = piece.table
        query = select(source.c.series_id, time_of(source, self._by), source.c.latency)
        query = self._chosen(piece, query)
        if self._asked.where:
            series = self._star.series
            ids = select(series.c.id).where(*conditions_of(self._asked, series))
            query = query.where(source.c.series_id.in_(ids))
        spots: dict[tuple[int, int], int] = {}
        for rows in self._fetcher.pieces(query):
            numbers: list[int] = []
            sketches: list[bytes] = []
            for series_id, at, sketch in rows:
                spot = (series_id, at)
                number = spots.get(spot)
                if number is None:
                    group = places.get(series_id)
                    if group is None:
                        continue
                    number = spots[spot] = self._numbers[timed(group, self._by, int(at))]
                numbers.append(number)
                sketches.append(sketch)
            self._tally.add(numbers, sketches)

    def _places(self) -> dict[int, Group]:
        """The group, but for its times, of each series that is asked about."""
        table = self._star.series
        query = select(table.c.id, *words_of(table, self._by))
        query = query.where(*conditions_of(self._asked, table))
        if self._cut:
            query = query.where(table.c.cut == self._cut.number)
        groups: dict[Group, Group] = {}
        found: dict[int, Group] = {}
        for row in self._fetcher.rows(query):
            group = tuple(value or NO_VALUE for value in row[1:])
            found[row[0]] = groups.setdefault(group, group)
        return found

    def _pieces(self) -> list[_Piece]:
        """Whole days are read as such where nobody asks for finer times: a day is its hours."""
        since_s, until_s, grain_s = self._asked.since_s, self._asked.until_s, self._asked.grain_s
        star, new = self._star, _Piece(self._star.new, since_s, until_s)
        if grain_s == MINUTE_S:
            minutes = _Piece(star.minute, since_s, until_s)
            return [minutes] if star.new is star.minute else [minutes, new]
        if grain_s == DAY_S:
            return [_Piece(star.day, since_s, until_s), new]
        first_s, last_s = -(-since_s // DAY_S) * DAY_S, until_s // DAY_S * DAY_S
        if first_s >= last_s or {"hour", "minute"} & set(self._by):
            return [_Piece(star.hour, since_s, until_s), new]
        edges = [_Piece(star.hour, since_s, first_s), _Piece(star.hour, last_s, until_s)]
        whole = _Piece(star.day, first_s, last_s)
        return [whole, *(one for one in edges if one.since_s < one.until_s), new]

    def _chosen(self, piece: _Piece, query: Select[Any]) -> Select[Any]:
        at_s: ColumnElement[int] = piece.table.c.bucket_s
        if self._cut:
            query = query.where(piece.table.c.cut == self._cut.number)
        elif piece.table is tables.minute and self._asked.grain_s != MINUTE_S:
            query, at_s = query.where(tables.NOT_ADDED), tables.TIME_OF_NOT_ADDED
        return query.where(at_s >= piece.since_s, at_s < piece.until_s)
