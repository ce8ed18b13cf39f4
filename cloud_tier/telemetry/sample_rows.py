"""Decisions that are told whole, as rows of ``samples``: written once, the oldest deleted.

Rules of this file:
  * a tier has one sample of a request; a later one takes its place;
  * rows go by age. Over their number, those of a site that has more than its share go first, so
    that nobody drives out everybody else; else the oldest. One process deletes at a time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, func, select

from cloud_tier.telemetry.database import chunks, is_alone, put
from cloud_tier.telemetry.intake import MAX_PAST_S
from cloud_tier.telemetry.limits import Retention
from cloud_tier.telemetry.series import clean, digest_of
from cloud_tier.telemetry.tables import samples
from runtime.decision_sample import Sample, name_of

# Of all rows, what one site may have where there are too many.
SHARE_OF_A_SITE = 0.05
_WORDS = (
    "request_id", "region", "site", "tier", "model", "model_version", "action",
    "decided_because", "outcome", "reason", "answered_by",
)  # fmt: skip
_CHANGING = tuple(name for name in samples.columns.keys() if name != "digest")  # noqa: SIM118 - columns


def sample_row(sample: Sample, said_s: float, now_s: float) -> dict[str, Any]:
    """The row of a sample in what was made at ``said_s``; its time is one that can be."""
    at_s = said_s - sample.age_s
    kept_s = min(max(at_s, now_s - MAX_PAST_S), now_s) if math.isfinite(at_s) else now_s
    return {
        "digest": digest_of(*name_of(sample)),
        "wall_s": kept_s,
        **{name: clean(getattr(sample, name)) for name in _WORDS},
        "hop": sample.hop,
        "label": sample.label,
        "body": msgspec.json.encode(sample),
    }


def put_samples(connection: Connection, rows: Mapping[str, dict[str, Any]]) -> None:
    """Writes rows, each by its digest."""
    put(connection, samples, [row for _, row in sorted(rows.items())], replacing=_CHANGING)


def prune_samples(connection: Connection, now_s: float, retention: Retention, max_rows: int) -> int:
    """Deletes what is too old or too much; returns how many rows, 0: no more."""
    if not is_alone(connection):
        return 0
    table = samples.c
    old = select(table.digest).where(table.wall_s < now_s - retention.sample_s).limit(max_rows)
    if num := _delete(connection, connection.execute(old).scalars().all()):
        return num
    total = connection.execute(select(func.count()).select_from(samples)).scalar_one()
    excess = total - retention.max_samples
    if excess <= 0:
        return 0
    oldest = select(table.digest).order_by(table.wall_s)
    share = int(SHARE_OF_A_SITE * retention.max_samples)
    largest = connection.execute(
        select(table.region, table.site, func.count().label("num"))
        .group_by(table.region, table.site)
        .having(func.count() > share)
        .order_by(func.count().desc(), table.region, table.site)
        .limit(1)
    ).one_or_none()
    most = min(excess, max_rows)
    if largest is not None:
        oldest = oldest.where(table.region == largest.region, table.site == largest.site)
        most = min(most, largest.num - share)
    return _delete(connection, connection.execute(oldest.limit(most)).scalars().all())


def _delete(connection: Connection, digests: Sequence[str]) -> int:
    for some in chunks(digests):
        connection.execute(delete(samples).where(samples.c.digest.in_(some)))
    return len(digests)
