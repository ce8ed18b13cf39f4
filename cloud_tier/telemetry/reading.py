"""Answers questions from the tables, in one transaction that sees one state.

A question has a time and a number of rows; over them it is refused, with what to ask instead.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Engine, func, select

from cloud_tier.telemetry import tables
from cloud_tier.telemetry.answers import (
    Group,
    Sums,
    as_accuracy,
    audited_row,
    judged_row,
    page,
    row_of,
)
from cloud_tier.telemetry.asking import NO_VALUE, Question
from cloud_tier.telemetry.bounded import Bounds, limited, too_late
from cloud_tier.telemetry.cuts import cut_of
from cloud_tier.telemetry.database import reading
from cloud_tier.telemetry.fetching import Fetcher
from cloud_tier.telemetry.grouping import conditions_of, time_of, timed, words_of
from cloud_tier.telemetry.intake import HOUR_S
from cloud_tier.telemetry.retired import speaks
from cloud_tier.telemetry.rows import FleetRow, Report, Row
from cloud_tier.telemetry.summing import Summing
from runtime.errors import RequestError, StorageError


def answer(
    engine: Engine,
    asked: Question,
    *,
    now_s: float,
    bounds: Bounds | None = None,
    is_whole: bool = False,
) -> Report[Row]:
    """The page of an answer.

    Args:
        engine: of the database.
        asked: the question.
        now_s: now, in s since 1970.
        bounds: what it may take.
        is_whole: rows of all dimensions are read also where shorter ones would do; the answer is
            the same.

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
            fetcher = Fetcher(connection, bounds, deadline_s)
            reader = _Reader(fetcher, asked, now_s, is_whole=is_whole)
            return page(asked, reader.rows(), reader.notes)
    except StorageError:
        if is_over.is_set() or time.monotonic() >= deadline_s:
            raise too_late(bounds) from None
        raise


_RETIRED = select(tables.retired.c.region, tables.retired.c.site, tables.retired.c.at_s)


class _Reader:
    def __init__(self, fetcher: Fetcher, asked: Question, now_s: float, *, is_whole: bool) -> None:
        self._fetcher, self._asked, self._now_s = fetcher, asked, now_s
        self._is_whole = is_whole
        self.notes: list[str] = []

    def rows(self) -> list[Row]:
        metric = self._asked.metric
        if metric == "fleet":
            return self._fleet()
        if metric == "agreement":
            return self._agreement()
        if metric == "accuracy":
            return self._accuracy()
        groups = self._groups(self._asked.by)
        return [row_of(metric, self._named(group), sums) for group, sums in groups.items()]

    def _groups(self, by: Sequence[str]) -> dict[Group, Sums]:
        cut = None if self._is_whole else cut_of(self._asked, by)
        return Summing(self._fetcher, self._asked, by, cut).groups()

    def _accuracy(self) -> list[Row]:
        table, by = tables.feedback, self._asked.by
        at = time_of(table, by)
        columns = words_of(table, by)
        num_correct = func.count().filter(table.c.is_correct)
        query = (
            select(at, func.count(), num_correct, *columns)
            .where(
                table.c.bucket_s >= self._asked.since_s,
                table.c.bucket_s < self._asked.until_s,
                table.c.is_correct.is_not(None),
                *conditions_of(self._asked, table),
            )
            .group_by(at, *columns)
        )
        rows: list[Row] = []
        for row in self._fetcher.rows(query):
            group = tuple(value or NO_VALUE for value in row[3:])
            judged = judged_row(self._named(timed(group, by, int(row[0]))), row[2], row[1])
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
        at = time_of(table, by)
        columns = words_of(table, by)
        sums: list[Any] = [func.sum(table.c[name]) for name in tables.AUDIT_SUMS]
        since_s = self._asked.since_s // HOUR_S * HOUR_S
        query = (
            select(at, *sums, *columns)
            .where(
                table.c.bucket_s >= since_s,
                table.c.bucket_s < self._asked.until_s,
                *conditions_of(self._asked, table),
            )
            .group_by(at, *columns)
        )
        num = len(sums) + 1
        rows = []
        for row in self._fetcher.rows(query):
            group = tuple(value or NO_VALUE for value in row[num:])
            named = self._named(timed(group, by, int(row[0])))
            rows.append(audited_row(named, [float(value) for value in row[1:num]]))
        return rows

    def _fleet(self) -> list[Row]:
        by = ("region", "site", "version")
        versions: dict[Group, dict[str, int]] = {}
        for (region, site, version), sums in self._groups(by).items():
            versions.setdefault((region, site), {})[version] = sums.requests
        table = tables.sources
        names = list(table.columns.keys())
        query = select(table).where(*conditions_of(self._asked, table)).order_by(table.c.digest)
        sites: dict[Group, list[dict[str, Any]]] = {}
        for values in self._fetcher.rows(query):
            row = dict(zip(names, values, strict=True))
            sites.setdefault((row["region"], row["site"]), []).append(row)
        for name, count in self._fetcher.rows(select(tables.notes).order_by(tables.notes.c.name)):
            self.notes.append(f"{name}: {count}")
        if len(sites) > self._fetcher.bounds.max_groups:
            raise RequestError(
                f"more than {self._fetcher.bounds.max_groups} sites: narrow it with where"
            )
        out = {(row[0], row[1]): float(row[2]) for row in self._fetcher.rows(_RETIRED)}
        rows = [
            self._site(place, kept, versions.get(place, {}), out.get((place[0], place[1])))
            for place, kept in sites.items()
        ]
        return [row for row in rows if self._asked.with_retired or row.retired != "yes"]

    def _site(
        self,
        place: Group,
        kept: Sequence[dict[str, Any]],
        versions: dict[str, int],
        retired_s: float | None,
    ) -> FleetRow:
        heard_s = max(row["heard_s"] for row in kept)
        retired = "no"
        if retired_s is not None:
            retired = "speaks" if speaks(retired_s, heard_s) else "yes"

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
            retired=retired,
        )

    def _named(self, group: Group) -> dict[str, str]:
        return dict(zip(self._asked.by, group, strict=True))
