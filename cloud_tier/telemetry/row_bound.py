"""How many rows there are at most, without counting them all each minute.

Rules of this file:
  * rows are counted once; from then on it is known by the numbers of new ones how many there can be
    at most, and they are counted again only where that may be too much;
  * a row of a minute becomes at most one of its hour and one of its day, and for each cut one of
    each width; those that wait to be added up when rows are counted are part of it;
  * numbers are compared with those of the look before the count, because another process may
    commit a lower number later than a higher one;
  * where the highest number has gone back (it was deleted, and SQLite may give it again), nothing
    is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from cloud_tier.telemetry import tables
from cloud_tier.telemetry.cuts import CUTS

# Hours and days; minutes, hours and days of a cut.
_WIDTHS, _WIDTHS_OF_A_CUT = 2, 3


class _Ids(NamedTuple):
    minute: int
    feedback: int


class _Counted(NamedTuple):
    """At most so many rows, when these numbers were the highest."""

    ids: _Ids
    rows_but_audits: int
    feedback: int
    short: int


class RowBound:
    """What one process knows; not for two threads at a time."""

    def __init__(self) -> None:
        self._seen: _Ids | None = None
        self._before: _Ids | None = None
        self._counted: _Counted | None = None

    def is_kept(self, connection: Connection, *, max_rows: int, max_feedback: int) -> bool:
        """Whether there are certainly no more rows than these."""
        ids = _Ids(*(_highest(connection, name) for name in _Ids._fields))
        self._before, self._seen = self._seen, ids
        before = self._before
        if before is None or ids.minute < before.minute or ids.feedback < before.feedback:
            self._before = self._counted = None
        known = self._counted
        if known is None:
            return False
        new, new_feedback = ids.minute - known.ids.minute, ids.feedback - known.ids.feedback
        if known.feedback + new_feedback > max_feedback:
            return False
        if known.short + new * len(CUTS) * _WIDTHS_OF_A_CUT > max_rows:
            return False
        rows = known.rows_but_audits + new * (1 + _WIDTHS) + new_feedback
        # Audits have no numbers, and are few.
        return rows + _count(connection, "audits") <= max_rows

    def forget(self) -> None:
        """Rows that had the highest numbers may have been deleted."""
        self._seen = self._before = self._counted = None

    def count(
        self, connection: Connection, rows: Mapping[str, int], short: Mapping[str, int]
    ) -> None:
        """Takes over what has just been counted, by names of tables, after ``is_kept``."""
        if self._before is None:
            return
        waiting = select(func.count()).select_from(tables.minute).where(tables.NOT_ADDED)
        num = int(connection.execute(waiting).scalar_one())
        self._counted = _Counted(
            self._before,
            sum(rows.values()) - rows["audits"] + num * _WIDTHS,
            rows["feedback"],
            sum(short.values()) + _count(connection, "short_new") * _WIDTHS_OF_A_CUT,
        )


def _highest(connection: Connection, name: str) -> int:
    column = tables.metadata.tables[name].c.id
    return int(connection.execute(select(func.max(column))).scalar_one() or 0)


def _count(connection: Connection, name: str) -> int:
    query = select(func.count()).select_from(tables.metadata.tables[name])
    return int(connection.execute(query).scalar_one())
