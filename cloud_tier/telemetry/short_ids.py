"""For each series the ids of its short series, one for each cut; made when missing.

There are no more of them than of series, times the number of cuts, and series are bounded.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Mapping

from sqlalchemy import Connection, select

from cloud_tier.telemetry import tables
from cloud_tier.telemetry.cuts import CUTS, Cut, shortened
from cloud_tier.telemetry.database import chunks, ids_of, insert_new
from cloud_tier.telemetry.series import Series, digest_of

_MAX_KNOWN = 100_000
# Ids in the order of ``CUTS``.
Ids = tuple[int, ...]


class ShortIds:
    """What is known here of the table ``short_series``; it counts only once it is committed."""

    def __init__(self) -> None:
        self._known: dict[int, Ids] = {}
        self._fresh: dict[int, Ids] = {}

    def resolve(self, connection: Connection, series_ids: Iterable[int]) -> Mapping[int, Ids]:
        """The short series' ids by the ids of these series and of others."""
        missing = sorted(set(series_ids) - self._known.keys())
        if missing:
            self._fresh.update(_resolved(connection, missing))
        return ChainMap(self._fresh, self._known)

    def confirm(self) -> None:
        """What was found and made is committed."""
        if len(self._known) > _MAX_KNOWN:
            self._known.clear()
        self._known.update(self._fresh)
        self._fresh = {}

    def forget(self) -> None:
        """It is not."""
        self._fresh = {}


def _resolved(connection: Connection, series_ids: list[int]) -> dict[int, Ids]:
    wanted: dict[int, list[str]] = {}
    rows: dict[str, tuple[Cut, Series]] = {}
    columns = [tables.series.c[name] for name in ("id", *Series._fields)]
    for some in chunks(series_ids):
        found = connection.execute(select(*columns).where(tables.series.c.id.in_(some)))
        for series_id, *values in found:
            for cut in CUTS:
                short = shortened(Series(*values), cut)
                digest = digest_of(cut.number, *short)
                rows[digest] = (cut, short)
                wanted.setdefault(series_id, []).append(digest)
    ids = ids_of(connection, tables.short_series, sorted(rows))
    new = [
        {"digest": digest, "cut": cut.number, **short._asdict()}
        for digest, (cut, short) in sorted(rows.items())
        if digest not in ids
    ]
    if new:
        insert_new(connection, tables.short_series, new)
        ids.update(ids_of(connection, tables.short_series, [row["digest"] for row in new]))
    return {one: tuple(ids[digest] for digest in digests) for one, digests in wanted.items()}
