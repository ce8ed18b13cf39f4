"""Ids of series, made when missing, within bounds for each site and for all."""

from __future__ import annotations

from collections import ChainMap, defaultdict
from collections.abc import Mapping
from operator import attrgetter

from sqlalchemy import Connection, func, select

from cloud_tier.telemetry import tables
from cloud_tier.telemetry.database import ids_of, insert_new
from cloud_tier.telemetry.series import Series, digest_of, folded, series_of
from runtime.telemetry import DIMENSIONS, RollupRow

_MAX_KNOWN = 100_000
# Each with the words of a series, of about 1 KB.
_MAX_DIGESTS = 20_000
_told_of = attrgetter(*DIMENSIONS)


class SeriesIds:
    """What is known here of the table ``series``; ids count only once they are committed."""

    def __init__(self, *, per_site: int, overall: int) -> None:
        self._per_site, self._overall = per_site, overall
        self._digests: dict[tuple[object, ...], str] = {}
        self._known: dict[str, int] = {}
        self._wanted: dict[str, Series] = {}
        self._fresh: dict[str, int] = {}

    def noted(self, row: RollupRow) -> str:
        """The digest of a row's series, whose id ``resolve`` finds."""
        told = _told_of(row)
        digest = self._digests.get(told)
        # The digest of what has been seen is ten times as fast to look up as to make.
        if digest is not None and (digest in self._known or digest in self._wanted):
            return digest
        series = series_of(row)
        digest = digest_of(*series)
        if len(self._digests) >= _MAX_DIGESTS:
            self._digests.clear()
        self._digests[told] = digest
        if digest not in self._known:
            self._wanted[digest] = series
        return digest

    def resolve(self, connection: Connection) -> tuple[Mapping[str, int], set[str]]:
        """Ids by digest, and the digests whose rows go into a series of what is too much."""
        found = ids_of(connection, tables.series, sorted(self._wanted))
        missing = {one: of for one, of in self._wanted.items() if one not in found}
        instead = self._folded(connection, missing) if missing else {}
        new = {digest_of(*of): of for of in (instead.get(one, of) for one, of in missing.items())}
        if new:
            rows = [{"digest": one, **of._asdict()} for one, of in sorted(new.items())]
            insert_new(connection, tables.series, rows)
            found.update(ids_of(connection, tables.series, sorted(new)))
        self._fresh.update(found)
        others = {one: found[digest_of(*of)] for one, of in instead.items()}
        self._wanted = {}
        return ChainMap(others, found, self._known), set(instead)

    def confirm(self) -> None:
        """What was found and made is committed."""
        if len(self._known) > _MAX_KNOWN:
            self._known.clear()
        self._known.update(self._fresh)
        self._fresh = {}

    def forget(self) -> None:
        """It is not."""
        self._fresh, self._wanted = {}, {}

    def _folded(self, connection: Connection, missing: dict[str, Series]) -> dict[str, Series]:
        """By digest, the series of what is too much that takes its place."""
        table = tables.series
        total = connection.execute(select(func.count()).select_from(table)).scalar_one()
        by_site: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        for digest, series in sorted(missing.items()):
            by_site[series.region, series.site].append(digest)
        instead: dict[str, Series] = {}
        for (region, site), digests in sorted(by_site.items()):
            query = select(func.count()).where(table.c.region == region, table.c.site == site)
            of_site = connection.execute(query).scalar_one()
            for digest in digests:
                if total < self._overall and of_site < self._per_site:
                    total, of_site = total + 1, of_site + 1
                else:
                    with_site = total < self._overall
                    instead[digest] = folded(missing[digest], with_site=with_site)
        return instead
