"""Reads decisions out of decision logs for the operators' pages; changes nothing.

Rules of this file:
  * one question reads a bounded number of rows of each log, the newest first;
  * a log that is not there, or cannot be read, is named and left out: the others still answer.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.adapters.decision_log import FILE_NAME
from runtime.adapters.log_file import columns_of, reading
from runtime.errors import StartError

# Of so many of the newest decisions of a log something is told.
MAX_ROWS = 100_000
MAX_LOGS = 64
COLUMNS = (
    "wall_s", "request_id", "tier", "site", "region", "hop", "model", "model_version", "action",
    "decided_because", "outcome", "reason", "answered_by", "label", "confidence", "latency_ms",
    "score", "route", "guarantee", "rule",
)  # fmt: skip
# What requests may be asked by, and the column that has it.
FILTERS = {
    "reason": "decided_because",
    "end_reason": "reason",
    "label": "label",
    "region": "region",
    "site": "site",
    "tier": "tier",
    "model": "model",
    "version": "model_version",
    "outcome": "outcome",
    "answered_by": "answered_by",
    "action": "action",
}
# By what the explorer counts.
FACETS = ("reason", "label", "model", "region", "tier", "outcome", "answered_by")


@dataclass(frozen=True, slots=True)
class Found:
    """Rows as columns by name, and what could not be read."""

    rows: list[dict[str, Any]]
    problems: list[str]


def logs_of(folders: Iterable[Path]) -> list[Path]:
    """The logs that are in these folders now, directly or in a folder of each site."""
    found: dict[Path, None] = {}
    for folder in folders:
        for path in (folder / FILE_NAME, *sorted(folder.glob(f"*/{FILE_NAME}"))[:MAX_LOGS]):
            if path.is_file():
                found[path.resolve()] = None
    return list(found)[:MAX_LOGS]


def newest(
    paths: Sequence[Path],
    wanted: Mapping[str, str],
    after: tuple[float, str] | None,
    most: int,
) -> Found:
    """At most so many of the newest decisions of each log, after a place (instant and id)."""
    conditions, values = _where(wanted)
    if after is not None:
        conditions.append("(wall_s, request_id) < (?, ?)")
        values.extend(after)
    where = " AND ".join(conditions) or "1"
    order = f"WHERE {where} ORDER BY wall_s DESC, request_id DESC LIMIT ?"
    return _each(paths, order, (*values, most))


def first_hops(paths: Sequence[Path], ids: Sequence[str]) -> dict[str, int]:
    """The hop of the lowest tier that has logged a request."""
    found: dict[str, int] = {}
    names = list(dict.fromkeys(ids))
    marks = ", ".join("?" * len(names))
    for path in paths:
        try:
            with reading(path, "decisions") as log:
                if log is None:
                    continue
                query = (
                    "SELECT request_id, min(hop) FROM (SELECT request_id, hop FROM decisions "  # noqa: S608 - marks
                    f"ORDER BY rowid DESC LIMIT {MAX_ROWS}) "
                    f"WHERE request_id IN ({marks}) GROUP BY request_id"
                )
                for name, hop in log.execute(query, names):
                    found[name] = min(hop, found.get(name, hop))
        except StartError:
            # The page has named it.
            continue
    return found


def facets(paths: Sequence[Path], wanted: Mapping[str, str], since_s: float) -> dict[str, Any]:
    """How many decisions are as wanted, by each of ``FACETS``, and how many of them climbed."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in FACETS}
    total = Counter[str]()
    problems = []
    for path in paths:
        try:
            with reading(path, "decisions") as log:
                if log is not None:
                    _count(log, wanted, since_s, counts, total)
        except StartError as error:
            problems.append(str(error))
    return {
        "since_s": since_s,
        "decisions": total["decisions"],
        "escalated": total["escalated"],
        "facets": {
            name: [{"value": value, "count": count} for value, count in found.most_common(30)]
            for name, found in counts.items()
        },
        "problems": problems,
    }


def _count(
    log: sqlite3.Connection,
    wanted: Mapping[str, str],
    since_s: float,
    counts: Mapping[str, Counter[str]],
    total: Counter[str],
) -> None:
    conditions, values = _where(wanted)
    where = " AND ".join((*conditions, "wall_s >= ?"))
    columns = ", ".join(FILTERS[name] for name in FACETS)
    newest = f"(SELECT * FROM decisions ORDER BY rowid DESC LIMIT {MAX_ROWS})"  # noqa: S608 - a number
    query = (
        f"SELECT count(*), sum(action = 'escalate'), {columns} FROM {newest} "  # noqa: S608 - own names
        f"WHERE {where} GROUP BY {columns} LIMIT {MAX_ROWS}"
    )
    for count, climbed, *group in log.execute(query, (*values, since_s)):
        total["decisions"] += count
        total["escalated"] += climbed
        for name, value in zip(FACETS, group, strict=True):
            counts[name]["" if value is None else str(value)] += count


def _where(wanted: Mapping[str, str]) -> tuple[list[str], list[Any]]:
    conditions, values = [], []
    for name, value in wanted.items():
        column = FILTERS[name]
        # Labels are numbers; what is none is equal to none of them.
        conditions.append(f"CAST({column} AS TEXT) = ?" if name == "label" else f"{column} = ?")
        values.append(value)
    return conditions, values


def _each(paths: Sequence[Path], rest: str, values: Sequence[Any]) -> Found:
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    for path in paths:
        try:
            with reading(path, "decisions") as log:
                if log is None:
                    continue
                there = columns_of(log, "decisions")
                names = [name if name in there else f"NULL AS {name}" for name in COLUMNS]
                query = f"SELECT {', '.join(names)} FROM decisions {rest}"  # noqa: S608 - own names
                rows.extend(
                    dict(zip(COLUMNS, row, strict=True)) for row in log.execute(query, values)
                )
        except StartError as error:
            problems.append(str(error))
    return Found(rows, problems)


class Tail:
    """What was added to logs since the last look; a bounded number of rows of each a time."""

    def __init__(self, max_rows: int = 5000, first_rows: int = 500) -> None:
        self._max_rows, self._first_rows = max_rows, first_rows
        self._at: dict[Path, int] = {}
        # Rows that were passed over, because more were written than are read at once.
        self.num_skipped = 0

    def read(self, paths: Sequence[Path]) -> Found:
        """New rows of all logs, by the clocks of those who wrote them."""
        rows: list[dict[str, Any]] = []
        problems: list[str] = []
        for path in paths:
            try:
                with reading(path, "decisions") as log:
                    if log is not None:
                        rows.extend(self._of(path, log))
            except StartError as error:
                problems.append(str(error))
        rows.sort(key=lambda row: float(row["wall_s"]))
        return Found(rows, problems)

    def _of(self, path: Path, log: sqlite3.Connection) -> list[dict[str, Any]]:
        (last,) = log.execute("SELECT coalesce(max(rowid), 0) FROM decisions").fetchone()
        at = self._at.get(path, max(0, last - self._first_rows))
        if last < at:
            # Another file: the old one was lost, or deleted.
            at = 0
        if last - at > self._max_rows:
            self.num_skipped += last - at - self._max_rows
            at = last - self._max_rows
        self._at[path] = last
        if last == at:
            return []
        there = columns_of(log, "decisions")
        names = [name if name in there else f"NULL AS {name}" for name in COLUMNS]
        query = (
            f"SELECT {', '.join(names)} FROM decisions "  # noqa: S608 - own names
            "WHERE rowid > ? AND rowid <= ? ORDER BY rowid"
        )
        return [_named(row) for row in log.execute(query, (at, last))]


def _named(row: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(COLUMNS, row, strict=True))
