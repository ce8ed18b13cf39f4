"""What a question chooses and groups by, as the database has it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Table, literal, literal_column

from cloud_tier.telemetry import tables
from cloud_tier.telemetry.answers import Group
from cloud_tier.telemetry.asking import COLUMNS, TIMES_S, Question
from cloud_tier.telemetry.intake import DAY_S

_OF_SERIES = (tables.series, tables.short_series)


def conditions_of(asked: Question, table: Table) -> list[Any]:
    """What rows of a table have to be, but for their time."""
    conditions: list[Any] = []
    for name, values, is_not in asked.where:
        column = table.c[COLUMNS[name]]
        conditions.append(column.not_in(values) if is_not else column.in_(values))
    if table in _OF_SERIES and asked.metric != "fleet" and asked.counts_entries:
        conditions.append(table.c.is_entry)
    return conditions


def words_of(table: Table, by: Sequence[str]) -> list[Any]:
    """The columns that are grouped by, but for times."""
    return [table.c[COLUMNS[name]] for name in by if name not in TIMES_S]


def time_of(table: Table, by: Sequence[str]) -> ColumnElement[int]:
    """The beginning of the finest time that is asked by; 0: none is."""
    width_s = min((TIMES_S[name] for name in by if name in TIMES_S), default=0)
    if not width_s:
        return literal(0)
    at: ColumnElement[int] = table.c.bucket_s - table.c.bucket_s % literal_column(str(width_s))
    return at


def timed(group: Group, by: Sequence[str], at_s: int) -> Group:
    """A group with its times, in the order in which they were asked for."""
    values = iter(group)
    return tuple(_instant(at_s, TIMES_S[name]) if name in TIMES_S else next(values) for name in by)


@lru_cache(maxsize=4096)
def _instant(at_s: int, width_s: int) -> str:
    at = datetime.fromtimestamp(at_s // width_s * width_s, UTC)
    return at.strftime("%Y-%m-%d" if width_s == DAY_S else "%Y-%m-%dT%H:%MZ")
