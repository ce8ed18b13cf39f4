"""Counts by fewer dimensions, filled from the rows that are there.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import numpy as np
import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_WORDS = (
    "region", "site", "tier", "model", "version", "policy", "gear", "route", "action", "decided",
    "outcome", "reason", "answered_by", "guarantee", "label",
)  # fmt: skip
_DETAIL = ("policy", "gear", "route", "guarantee", "label")
# As ``cuts`` had them when this revision was made.
_CUTS = ((1, (*_DETAIL, "site")), (2, _DETAIL), (3, ("site",)))
_WITHOUT_MINUTES = 3
_SUMS = (
    "count", "late", "sent_bytes", "service_us", "latency_ms_sum", "cost_sum", "confident",
    "confidence_sum",
)  # fmt: skip
_ENTRY = np.dtype([("bucket", "<i2"), ("count", "<u4")])
_FETCH = 5000


def _counts() -> list[sa.Column[Any]]:
    whole = {"count", "late", "confident"}
    return [
        *(
            sa.Column(name, sa.BigInteger if name in whole else sa.Float(53), nullable=False)
            for name in _SUMS
        ),
        sa.Column("latency", sa.LargeBinary, nullable=False),
    ]


def _key(name: str, kind: Any = sa.BigInteger) -> sa.Column[Any]:  # noqa: ANN401 - a type
    return sa.Column(name, kind, primary_key=True, autoincrement=False)


def upgrade() -> None:
    """Makes the tables and fills them."""
    op.create_table(
        "short_series",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("digest", sa.String(32), nullable=False, unique=True),
        sa.Column("cut", sa.SmallInteger, nullable=False),
        *(sa.Column(name, sa.String(128), nullable=False) for name in _WORDS),
        sa.Column("is_entry", sa.Boolean, nullable=False),
    )
    op.create_table(
        "short_new",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("cut", sa.SmallInteger, nullable=False),
        sa.Column("bucket_s", sa.BigInteger, nullable=False),
        sa.Column("series_id", sa.BigInteger, nullable=False),
        *_counts(),
    )
    op.create_index("short_new_by_time", "short_new", ["cut", "bucket_s"])
    for name in ("short_minute", "short_hour", "short_day"):
        op.create_table(
            name, _key("bucket_s"), _key("cut", sa.SmallInteger), _key("series_id"), *_counts()
        )
    connection = op.get_bind()
    ids = _fill_series(connection)
    # What has not been added to its hour and day yet is in no row of theirs.
    with_minutes = {
        series_id: [one for one in found if one[0] != _WITHOUT_MINUTES]
        for series_id, found in ids.items()
    }
    _fill(connection, with_minutes, "short_minute", "SELECT {} FROM minute", 60)
    for name, width_s in (("hour", 3600), ("day", 86_400)):
        rows = (
            f"SELECT {{}} FROM {name} UNION ALL "  # noqa: S608 - names of this file
            f"SELECT bucket_s - bucket_s % {width_s}, {{rest}} FROM minute WHERE added = 0"
        )
        _fill(connection, ids, f"short_{name}", rows, width_s)


def downgrade() -> None:
    """Drops the tables: all that is in them is in others."""
    for name in ("short_day", "short_hour", "short_minute", "short_new", "short_series"):
        op.drop_table(name)


def _fill_series(connection: sa.Connection) -> dict[int, list[tuple[int, int]]]:
    """Makes the short series; returns the cut and the id of each one that a series is of."""
    columns: list[Any] = [sa.column(name) for name in ("id", *_WORDS, "is_entry")]
    table = sa.table("short_series", *map(sa.column, ("id", "digest", "cut", *_WORDS, "is_entry")))
    known: dict[str, tuple[int, int]] = {}
    new: list[dict[str, Any]] = []
    ids: dict[int, list[tuple[int, int]]] = {}
    for series_id, *words, is_entry in connection.execute(
        sa.select(*columns).select_from(sa.table("series")).order_by(sa.column("id"))
    ).all():
        for cut, without in _CUTS:
            short = {
                name: "" if name in without else word
                for name, word in zip(_WORDS, words, strict=True)
            }
            said = json.dumps((cut, *short.values(), bool(is_entry))).encode()
            digest = hashlib.blake2b(said, digest_size=16).hexdigest()
            if digest not in known:
                known[digest] = (cut, len(known) + 1)
                new.append({"digest": digest, "cut": cut, **short, "is_entry": bool(is_entry)})
            ids.setdefault(series_id, []).append(known[digest])
    for at in range(0, len(new), _FETCH):
        connection.execute(sa.insert(table), new[at : at + _FETCH])
    numbered = connection.execute(sa.select(table.c.digest, table.c.id))
    made: dict[str, int] = {digest: number for digest, number in numbered}  # noqa: C416 - of rows
    by_number = {number: made[digest] for digest, (_, number) in known.items()}
    return {
        series_id: [(cut, by_number[number]) for cut, number in found]
        for series_id, found in ids.items()
    }


def _fill(
    connection: sa.Connection,
    ids: dict[int, list[tuple[int, int]]],
    name: str,
    rows: str,
    width_s: int,
) -> None:
    """Adds rows up, a bucket at a time: no more than one is in memory."""
    rest = ", ".join(("series_id", *_SUMS, "latency"))
    names = ("bucket_s", "cut", "series_id", *_SUMS, "latency")
    table = sa.table(name, *map(sa.column, names))
    query = sa.text(rows.format(f"bucket_s, {rest}", rest=rest) + " ORDER BY 1")
    query = query.execution_options(stream_results=True, yield_per=_FETCH)
    with connection.execute(query) as read:
        for at_s, bucket in groupby(_numbered(read), key=lambda row: row[0] // width_s * width_s):
            sums: dict[tuple[int, int], tuple[list[Any], list[bytes]]] = {}
            for _, series_id, *values, sketch in bucket:
                for key in ids[series_id]:
                    total, sketches = sums.setdefault(key, ([0] * len(_SUMS), []))
                    for at, value in enumerate(values):
                        total[at] += value
                    sketches.append(bytes(sketch))
            made = [
                dict(zip(names, (at_s, *key, *total, _joined(sketches)), strict=True))
                for key, (total, sketches) in sums.items()
            ]
            for at in range(0, len(made), _FETCH):
                connection.execute(sa.insert(table), made[at : at + _FETCH])


def _numbered(read: Any) -> Iterator[tuple[Any, ...]]:  # noqa: ANN401 - a result
    for row in read:
        yield tuple(row)


def _joined(sketches: list[bytes]) -> bytes:
    """One sketch of several: entries of a bucket's number and its count, six bytes each."""
    entries = np.frombuffer(b"".join(sketches), _ENTRY)
    if not entries.size:
        return b""
    least = int(entries["bucket"].min())
    counts = np.bincount(entries["bucket"].astype(np.int64) - least, weights=entries["count"])
    found = np.flatnonzero(counts)
    if int(counts.max()) >= 1 << 32:
        # A count that fits in no entry: as many entries as there were.
        return b"".join(sketches)
    packed = np.empty(found.size, _ENTRY)
    packed["bucket"], packed["count"] = found + least, counts[found].astype(np.int64)
    return packed.tobytes()
