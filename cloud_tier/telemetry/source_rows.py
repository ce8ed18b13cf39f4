"""Which numbers of which decision log are counted: rows of ``sources``, locked while in use."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from cloud_tier.telemetry import tables
from cloud_tier.telemetry.coverage import Coverage, Gap
from cloud_tier.telemetry.database import chunks, insert_new, put
from cloud_tier.telemetry.limits import Limits
from cloud_tier.telemetry.series import clean, digest_of
from runtime.telemetry import Source

# Numbers that a hostile log may claim still add up in 64 bits.
_MOST = 2**53
_CHANGING = (
    "last", "counted", "unread", "dropped", "repeated", "heard_s", "gaps", "audits_last",
    "audit_gaps",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fresh:
    """What of a rollup is new.

    ``places`` are region, site and tier of whom decisions are new. ``audits`` are region and site
    of whom audits are new, or not known to be counted. ``num_over`` sources are over the bound:
    these are counted without knowing what is missing.
    """

    places: set[tuple[str, str, str]]
    audits: set[tuple[str, str]]
    num_over: int


@dataclass
class _Source:
    values: dict[str, Any]
    coverage: Coverage
    audits: Coverage


class SourceRows:
    """The sources of a batch of rollups, until the end of the transaction."""

    def __init__(self, connection: Connection, given: Sequence[Source], limits: Limits) -> None:
        self._limits = limits
        wanted = {_digest(source): source for source in given}
        self._rows = _locked(connection, sorted(wanted))
        missing = {one: of for one, of in sorted(wanted.items()) if one not in self._rows}
        if missing:
            kept = self._within_bounds(connection, missing)
            insert_new(connection, tables.sources, [_bare(one, wanted[one]) for one in kept])
            self._rows.update(_locked(connection, kept))

    def cover(self, given: Sequence[Source], heard_s: float, now_s: float) -> Fresh:
        """Notes what a rollup covers, which was made at ``heard_s``; returns what of it is new."""
        fresh = Fresh(set(), set(), sum(_digest(source) not in self._rows for source in given))
        for source in given:
            kept = self._rows.get(_digest(source))
            is_new = kept is None or _cover(kept, source, heard_s, now_s)
            if is_new:
                fresh.places.add((source.region, source.site, source.tier))
            are_new = is_new
            if kept is not None and source.audits_first:
                are_new = _cover_audits(kept, source)
            if are_new:
                fresh.audits.add((source.region, source.site))
        return fresh

    def write(self, connection: Connection) -> None:
        """Puts what has changed into the table."""
        rows = [
            {
                **one.values,
                "last": one.coverage.last,
                "gaps": json.dumps(one.coverage.gaps),
                "audits_last": one.audits.last,
                "audit_gaps": json.dumps(one.audits.gaps),
            }
            for _, one in sorted(self._rows.items())
        ]
        put(connection, tables.sources, rows, replacing=_CHANGING)

    def _within_bounds(self, connection: Connection, new: Mapping[str, Source]) -> list[str]:
        by_place: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        for digest, source in new.items():
            by_place[clean(source.region), clean(source.site)].append(digest)
        table, kept = tables.sources, []
        total = connection.execute(select(func.count()).select_from(table)).scalar_one()
        for (region, site), digests in sorted(by_place.items()):
            query = select(func.count()).where(table.c.region == region, table.c.site == site)
            of_site = connection.execute(query).scalar_one()
            room = min(self._limits.sources_per_site - of_site, self._limits.sources - total)
            some = digests[: max(0, room)]
            kept += some
            total += len(some)
        return sorted(kept)


def _cover(kept: _Source, source: Source, heard_s: float, now_s: float) -> bool:
    """Whether something of a source is new; its row is brought up to date."""
    values, num = kept.values, source.last - source.first + 1
    values["heard_s"] = max(values["heard_s"], heard_s)
    values["dropped"] = max(values["dropped"], source.dropped)
    if not num:
        # A sign of life, or audits that came after their decisions.
        return True
    kept.coverage, num_new = kept.coverage.added(source.first, source.last, now_s)
    if not num_new:
        return False
    unread = min(source.unread, num)
    values["counted"] = min(_MOST, values["counted"] + num - unread)
    values["unread"] = min(_MOST, values["unread"] + unread)
    values["repeated"] = min(_MOST, values["repeated"] + num - num_new)
    return True


def _cover_audits(kept: _Source, source: Source) -> bool:
    """Whether audits of a source are new; what has none is no reason to take any."""
    if source.audits_last < source.audits_first:
        return False
    kept.audits, num_new = kept.audits.added(source.audits_first, source.audits_last)
    return num_new > 0


def gaps_of(text: str) -> tuple[Gap, ...]:
    """The gaps of a row; those that an earlier version wrote have no time."""
    return tuple(Gap(*one) for one in json.loads(text))


def _digest(source: Source) -> str:
    return digest_of(source.region, source.site, source.tier, source.log)


def _bare(digest: str, source: Source) -> dict[str, Any]:
    return {
        "digest": digest,
        "region": clean(source.region),
        "site": clean(source.site),
        "tier": clean(source.tier),
        "log": source.log,
        "last": 0,
        "counted": 0,
        "unread": 0,
        "dropped": 0,
        "repeated": 0,
        "heard_s": 0.0,
        "gaps": "[]",
        "audits_last": 0,
        "audit_gaps": "[]",
    }


def _locked(connection: Connection, digests: Sequence[str]) -> dict[str, _Source]:
    table, found = tables.sources, {}
    for some in chunks(digests):
        query = select(table).where(table.c.digest.in_(some)).order_by(table.c.digest)
        for row in connection.execute(query.with_for_update()).mappings():
            found[row["digest"]] = _Source(
                dict(row),
                Coverage(row["last"], gaps_of(row["gaps"])),
                Coverage(row["audits_last"], gaps_of(row["audit_gaps"])),
            )
    return found
