"""Items as rows: everything of a batch in the caller's one transaction.

Order of locks, the same in every process: ids of items, sources, series, short series, sums,
samples; each in ascending order. The bounds of series and sources are kept to within what processes
add at the same moment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import Connection, select

from cloud_tier.telemetry import tables
from cloud_tier.telemetry.claims import check_claims
from cloud_tier.telemetry.database import insert_all, is_inserted, put
from cloud_tier.telemetry.intake import HOUR_S, Earlier, Feedback, Taken, minute_of, sane, words
from cloud_tier.telemetry.limits import Limits
from cloud_tier.telemetry.sample_rows import put_samples, sample_row
from cloud_tier.telemetry.series import clean
from cloud_tier.telemetry.series_ids import SeriesIds
from cloud_tier.telemetry.short_ids import ShortIds
from cloud_tier.telemetry.shortening import add_short
from cloud_tier.telemetry.sketches import pack
from cloud_tier.telemetry.source_rows import SourceRows
from runtime.decision_sample import place_of
from runtime.telemetry import OTHER, AuditRow, Rollup

Applied = Literal["stored", "known"]
_Place = tuple[str, str]


@dataclass
class _Batch:
    minutes: list[tuple[dict[str, Any], str]] = field(default_factory=list)
    audits: dict[tuple[Any, ...], list[float]] = field(default_factory=dict)
    feedback: list[dict[str, Any]] = field(default_factory=list)
    samples: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)


class Writer:
    """Writes items; not for two threads at a time."""

    def __init__(
        self,
        limits: Limits,
        *,
        own_region: str,
        speakers: Mapping[str, Sequence[str]],
        keeps_samples: bool = True,
    ) -> None:
        self._keeps_samples = keeps_samples
        self._limits, self._own_region, self._speakers = limits, own_region, speakers
        self._series = SeriesIds(per_site=limits.series_per_site, overall=limits.series)
        self._short = ShortIds()

    def confirm(self) -> None:
        """What was written is committed."""
        self._series.confirm()
        self._short.confirm()

    def forget(self) -> None:
        """It is not."""
        self._series.forget()
        self._short.forget()

    def check(self, taken: Taken) -> None:
        """Returns where the sender of an item may say it.

        Raises:
            MalformedBodyError: it may not.
        """
        if isinstance(taken.body, Rollup):
            check_claims(
                taken.item.origin,
                taken.body,
                own_region=self._own_region,
                speakers=self._speakers,
            )

    def write(self, connection: Connection, items: Sequence[Taken], now_s: float) -> list[Applied]:
        """What has become of each item, once the caller commits."""
        is_new = {}
        for item_id in sorted({taken.item.id for taken in items}):
            is_new[item_id] = _remember(connection, item_id, now_s)
        outcomes: list[Applied] = []
        todo: list[Taken] = []
        for taken in items:
            if is_new[taken.item.id]:
                # The same id twice in one batch counts once.
                is_new[taken.item.id] = False
                todo.append(taken)
                outcomes.append("stored")
            else:
                outcomes.append("known")
        batch = _Batch()
        rollups = [taken.body for taken in todo if isinstance(taken.body, Rollup)]
        given = [source for rollup in rollups for source in rollup.sources]
        sources = SourceRows(connection, given, self._limits)
        for taken in todo:
            if isinstance(taken.body, Rollup):
                self._rollup(batch, taken, taken.body, sources, now_s)
            elif isinstance(taken.body, Feedback):
                _feedback(batch, taken, taken.body, now_s)
            elif isinstance(taken.body, Earlier):
                batch.notes["reports of an earlier version"] += 1
        self._flush(connection, batch, sources)
        return outcomes

    def _rollup(
        self,
        batch: _Batch,
        taken: Taken,
        rollup: Rollup,
        sources: SourceRows,
        now_s: float,
    ) -> None:
        said_s = taken.item.created_s
        fresh = sources.cover(rollup.sources, min(said_s, now_s), now_s)
        batch.notes["sources over the bound"] += fresh.num_over
        known = {(one.region, one.site, one.tier) for one in rollup.sources} - fresh.places
        known_sites = {(one.region, one.site) for one in rollup.sources} - fresh.audits
        for given in rollup.rows:
            if (given.region, given.site, given.tier) in known:
                batch.notes["rows that were known"] += 1
                continue
            row = sane(given)
            bucket_s, is_moved = minute_of(said_s, row.minutes_ago, now_s)
            batch.notes["rows with impossible numbers"] += row != given
            batch.notes["rows of impossible times"] += is_moved
            digest = self._series.noted(row)
            values = {name: getattr(row, name) for name in tables.SUMS}
            packed = {name: pack(getattr(row, name)) for name in tables.SKETCHES}
            batch.minutes.append(({"bucket_s": bucket_s, "added": 0, **values, **packed}, digest))
        for audit in rollup.audits:
            if (audit.region, audit.site) in known_sites:
                batch.notes["audits that were known"] += 1
            else:
                minute_s, is_moved = minute_of(said_s, audit.minutes_ago, now_s)
                batch.notes["rows of impossible times"] += is_moved
                _audit(batch, audit, minute_s // HOUR_S * HOUR_S)
        for sample in rollup.samples if self._keeps_samples else ():
            if place_of(sample) not in known:
                row_ = sample_row(sample, said_s, now_s)
                batch.samples[row_["digest"]] = row_

    def _flush(self, connection: Connection, batch: _Batch, sources: SourceRows) -> None:
        sources.write(connection)
        ids, other = self._series.resolve(connection)
        batch.notes["rows in (other)"] += sum(digest in other for _, digest in batch.minutes)
        minutes = [{**row, "series_id": ids[digest]} for row, digest in batch.minutes]
        if minutes:
            insert_all(connection, tables.minute, minutes)
            ids_of_short = self._short.resolve(connection, {row["series_id"] for row in minutes})
            add_short(connection, minutes, ids_of_short)
        self._flush_audits(connection, batch)
        if batch.feedback:
            connection.execute(tables.feedback.insert(), batch.feedback)
        put_samples(connection, batch.samples)
        noted = [{"name": name, "count": num} for name, num in sorted(batch.notes.items()) if num]
        put(connection, tables.notes, noted, adding=("count",))

    def _flush_audits(self, connection: Connection, batch: _Batch) -> None:
        rows: dict[tuple[Any, ...], list[float]] = {}
        known: dict[_Place, set[_Place]] = {}
        for (bucket_s, region, site, policy, gear), sums in sorted(batch.audits.items()):
            kinds = known.get((region, site))
            if kinds is None:
                table = tables.audits
                query = (
                    select(table.c.policy, table.c.gear)
                    .where(table.c.region == region, table.c.site == site)
                    .distinct()
                )
                kinds = {(one[0], one[1]) for one in connection.execute(query)}
                known[region, site] = kinds
            kind = (policy, gear)
            if kind not in kinds and len(kinds) >= self._limits.audit_kinds_per_site:
                kind = (OTHER, OTHER)
                batch.notes["audits in (other)"] += 1
            kinds.add(kind)
            _add(rows, (bucket_s, region, site, *kind), sums)
        names = ("bucket_s", "region", "site", "policy", "gear")
        put(
            connection,
            tables.audits,
            [
                dict(zip((*names, *tables.AUDIT_SUMS), (*key, *sums), strict=True))
                for key, sums in sorted(rows.items())
            ],
            adding=tables.AUDIT_SUMS,
        )


def _remember(connection: Connection, item_id: str, now_s: float) -> bool:
    """Whether an item is new; from here on it is not, in any process."""
    return is_inserted(connection, tables.applied, {"item": item_id, "at_s": now_s})


def _audit(batch: _Batch, row: AuditRow, hour_s: int) -> None:
    against = max(0.0, row.weighted - row.weighted_agreed)
    sums = [
        min(row.agreed, 10**9),
        min(row.disagreed, 10**9),
        min(row.failed, 10**9),
        min(row.weighted_agreed, row.weighted),
        row.weighted,
        row.weighted_agreed**2 / row.agreed if row.agreed else 0.0,
        against**2 / row.disagreed if row.disagreed else 0.0,
    ]
    key = (hour_s, clean(row.region), clean(row.site), clean(row.policy), clean(row.gear))
    _add(batch.audits, key, sums)


def _add(
    rows: dict[tuple[Any, ...], list[float]], key: tuple[Any, ...], sums: Sequence[float]
) -> None:
    known = rows.get(key, [0] * len(sums))
    rows[key] = [one + other for one, other in zip(known, sums, strict=True)]


def _feedback(batch: _Batch, taken: Taken, said: Feedback, now_s: float) -> None:
    bucket_s, is_moved = minute_of(taken.item.created_s, 0, now_s)
    batch.notes["rows of impossible times"] += is_moved
    region, _, site = taken.item.origin.partition("/")
    batch.feedback.append(
        {
            "bucket_s": bucket_s,
            "region": region,
            "site": site,
            **words(said.answered),
            "label": "" if said.label is None else str(said.label),
            "is_correct": said.verdict,
        }
    )
