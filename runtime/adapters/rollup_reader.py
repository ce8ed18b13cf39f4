"""Counts what a decision log holds beyond a place in it.

The log is what is counted, not what went by: so nothing is counted twice or forgotten when the
process is killed, and what the outbox cannot take yet waits in the log.

Rows are numbered without gaps; the oldest are deleted when the log is over its quota, which shows.
Only what the disk has for certain is counted, because a power cut may take the end of the log, and
the numbers of what it takes are given anew.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote

from runtime.core.rollup import Audited, Decided, roll_up, roll_up_audits
from runtime.core.sampling_decisions import COLUMNS, chosen, sample_of
from runtime.decision_sample import Sample
from runtime.errors import StorageError
from runtime.messages import Residency
from runtime.telemetry import Rollup, Source

# Rows that are counted at a time: a moment's work.
MAX_READ = 10_000


@dataclass(frozen=True, slots=True)
class Place:
    """Whose decisions are counted."""

    region: str
    site: str
    tier: str


@dataclass(frozen=True, slots=True)
class Cursor:
    """Up to which rows a log has been counted; ``log`` is empty before the first."""

    log: str = ""
    decisions: int = 0
    audits: int = 0


@dataclass(frozen=True, slots=True)
class Counted:
    """A rollup of what came after a cursor, where that leads, and whether there is more."""

    rollup: Rollup
    cursor: Cursor
    has_more: bool


@dataclass(frozen=True, slots=True)
class _Row:
    """What a decision is chosen by to be told whole."""

    number: int
    request_id: str
    action: str
    outcome: str
    hop: int


_PLACE = {field.name for field in fields(Place)}
_DECIDED = tuple(field.name for field in fields(Decided))
_AUDITED = tuple(field.name for field in fields(Audited))
_READ = {"decisions": _DECIDED, "audits": tuple(n for n in _AUDITED if n != "region")}


def count_on(
    path: Path, cursor: Cursor, place: Place, now_s: float, *, max_samples: int = 0
) -> Counted | None:
    """What the log holds after the cursor; None where that is nothing, or not yet certain.

    At most ``max_samples`` of the decisions are told whole.

    Raises:
        StorageError: the file cannot be read.
    """
    try:
        # Not read-only: only who may write can have the disk take what is there.
        uri = f"file:{quote(str(path.resolve()))}?mode=rw"
        with closing(sqlite3.connect(uri, uri=True, timeout=5.0)) as connection:
            return _counted(connection, cursor, place, now_s, max_samples)
    except sqlite3.Error as error:
        raise StorageError(f"cannot count the decisions of {path}: {error}") from error


def _counted(
    connection: sqlite3.Connection, cursor: Cursor, place: Place, now_s: float, max_samples: int
) -> Counted | None:
    totals = dict(connection.execute("SELECT name, value FROM totals").fetchall())
    log = f"{int(totals.get('log', 0)):x}"
    if log != cursor.log:
        cursor = Cursor(log)
    last, audits_last = _last(connection, "decisions"), _last(connection, "audits")
    is_new = last > cursor.decisions or audits_last > cursor.audits
    if not is_new or not _is_on_disk(connection):
        return None
    decided = [
        (rowid, Decided(**{**row, **_place(place)}))
        for rowid, row in _rows(connection, "decisions", cursor.decisions, last)
    ]
    audited = [
        (rowid, Audited(**{**row, "agrees": _yes(row["agrees"]), **_place(place, "tier")}))
        for rowid, row in _rows(connection, "audits", cursor.audits, audits_last)
    ]
    rows, taken = roll_up([one for _, one in decided], now_s)
    audits, audits_taken = roll_up_audits([one for _, one in audited], now_s)
    until = decided[taken - 1][0] if taken else cursor.decisions
    audits_until = audited[audits_taken - 1][0] if audits_taken else cursor.audits
    told = _chosen(connection, cursor.decisions, until, max_samples)
    samples = tuple(filter(None, (_sample(connection, one, place, now_s) for one in told)))
    source = Source(
        place.region,
        place.site,
        place.tier,
        log,
        cursor.decisions + 1,
        until,
        unread=until - cursor.decisions - taken,
        dropped=int(totals.get("dropped", 0)),
        audits_first=cursor.audits + 1,
        audits_last=audits_until,
    )
    return Counted(
        Rollup((source,), rows, audits, samples=samples),
        Cursor(log, until, audits_until),
        has_more=until < last or audits_until < audits_last,
    )


def _chosen(connection: sqlite3.Connection, after: int, until: int, most: int) -> list[_Row]:
    """Which of the decisions are told whole."""
    if not most:
        return []
    found = connection.execute(
        "SELECT rowid, request_id, action, outcome, hop FROM decisions "
        "WHERE rowid > ? AND rowid <= ? AND residency = ? ORDER BY rowid LIMIT ?",
        (after, until, Residency.CLOUD.value, MAX_READ),
    )
    # Of several about a request (retries) the last one counts.
    return chosen({(row[1],): _Row(*row) for row in found}, most)


def _sample(connection: sqlite3.Connection, one: _Row, place: Place, now_s: float) -> Sample | None:
    query = f"SELECT {', '.join(COLUMNS)} FROM decisions WHERE rowid = ?"  # noqa: S608 our own names
    values = connection.execute(query, (one.number,)).fetchone()
    row = dict(zip(COLUMNS, values, strict=True))
    return sample_of(row, region=place.region, site=place.site, tier=place.tier, now_s=now_s)


def _last(connection: sqlite3.Connection, table: str) -> int:
    (last,) = connection.execute(f"SELECT max(rowid) FROM {table}").fetchone()  # noqa: S608 ours
    return int(last or 0)


def _rows(
    connection: sqlite3.Connection, table: str, after: int, until: int
) -> list[tuple[int, dict[str, Any]]]:
    names = _READ[table]
    query = (
        f"SELECT rowid, {', '.join(names)} FROM {table} "  # noqa: S608 our own names
        "WHERE rowid > ? AND rowid <= ? ORDER BY rowid LIMIT ?"
    )
    return [
        (rowid, dict(zip(names, values, strict=True)))
        for rowid, *values in connection.execute(query, (after, until, MAX_READ))
    ]


def _is_on_disk(connection: sqlite3.Connection) -> bool:
    """Whether a power cut could not take what has been written so far (sqlite.org/wal)."""
    is_busy, frames, moved = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return not is_busy and frames == moved


def _place(place: Place, *without: str) -> dict[str, str]:
    """A log may hold what was decided under another name."""
    return {name: getattr(place, name) for name in _PLACE if name not in without}


def _yes(value: object) -> bool | None:
    return None if value is None else bool(value)
