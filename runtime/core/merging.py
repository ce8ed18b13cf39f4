"""Many rollups as few: what gateways do with those of their devices.

Rules of this file:
  * whole rollups are merged, so that what is lost later is lost with what it covers; one that alone
    is too large for a message is parted first (``runtime.core.parting``);
  * rows are merged only if they are alike in every dimension and of the same minute;
  * of samples as many are kept as one rollup may have, and of no site more than its share; none
    that would make a rollup too large to be taken, for then its counts would be lost, too;
  * nobody tells of decisions that are not theirs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from runtime.core.parting import bare_bytes, parted
from runtime.core.rollup import (
    AUDIT_FIELDS,
    MOST,
    MOST_AMOUNT,
    MOST_MINUTES,
    ROW_FIELDS,
    audit_row_of,
    minutes_of,
    row_of,
)
from runtime.core.sampling_decisions import chosen
from runtime.core.sketch import added, within
from runtime.decision_sample import (
    MAX_AGE_S,
    MAX_SAMPLES,
    MAX_SAMPLES_BYTES,
    MAX_SAMPLES_OF_A_SITE,
    Sample,
    name_of,
    place_of,
    size_of,
)
from runtime.messages import Tier
from runtime.telemetry import (
    AUDIT_DIMENSIONS,
    DIMENSIONS,
    MAX_BUCKETS,
    MAX_ROWS,
    MAX_SOURCES,
    AuditRow,
    Rollup,
    RollupRow,
    Source,
    encode_rollup,
)

# Decisions that one rollup of a device may cover: many of them can still be added up.
MAX_COVERED = 1_000_000_000
# Samples that are in hand while rollups are merged.
_MAX_HELD = 4 * MAX_SAMPLES
# What a tier takes as it is delivered (``request.max_body_bytes``) is a little more.
MAX_WITH_SAMPLES_BYTES = 1_000_000
# Without samples: well under that, so that some have room.
MAX_BARE_BYTES = 750_000
# By how much two rows that become one may be longer than both: sums have more digits.
_LONGER_BYTES = 64
_NUM_KEY, _NUM_AUDIT_KEY = len(DIMENSIONS) + 1, len(AUDIT_DIMENSIONS) + 1


@dataclass(slots=True)
class _Merging:
    """A rollup that others are added to as a whole.

    ``num_bytes`` is at least what it has as JSON without samples.
    """

    max_bytes: int
    num_bytes: int = 0
    sources: dict[tuple[str, str, str, str], Source] = field(default_factory=dict)
    rows: dict[tuple[object, ...], RollupRow] = field(default_factory=dict)
    audits: dict[tuple[object, ...], AuditRow] = field(default_factory=dict)
    samples: dict[tuple[str, ...], Sample] = field(default_factory=dict)

    def takes(self, rollup: Rollup, num_bytes: int) -> bool:
        """Whether it stays within its bounds, and a log in one piece.

        ``num_bytes`` is what the rollup has without samples.
        """
        rows = sum(_place(row) not in self.rows for row in rollup.rows)
        audits = sum(_audit_place(row) not in self.audits for row in rollup.audits)
        fits = all(
            len(held) + new <= limit
            for held, new, limit in (
                (self.rows, rows, MAX_ROWS),
                (self.audits, audits, MAX_ROWS),
                (self.sources, len(rollup.sources), MAX_SOURCES),
            )
        )
        return (
            fits
            and self._has_room(num_bytes)
            and all(
                _log(source) not in self.sources or _follows(self.sources[_log(source)], source)
                for source in rollup.sources
            )
        )

    def _has_room(self, num_bytes: int) -> bool:
        if self.sources and self.num_bytes + num_bytes > self.max_bytes:
            # Rows that are alike have become one: it may be much less by now.
            self.num_bytes = len(encode_rollup(self._bare()))
        return not self.sources or self.num_bytes + num_bytes <= self.max_bytes

    def add(self, rollup: Rollup, num_bytes: int) -> None:
        """Adds one; it has been asked whether it takes it."""
        num_alike = sum(_place(row) in self.rows for row in rollup.rows)
        num_alike += sum(_audit_place(row) in self.audits for row in rollup.audits)
        self.num_bytes += num_bytes + num_alike * _LONGER_BYTES
        for source in rollup.sources:
            before = self.sources.get(_log(source))
            self.sources[_log(source)] = source if before is None else _joined(before, source)
        for row in rollup.rows:
            held = self.rows.get(_place(row))
            self.rows[_place(row)] = row if held is None else _sum(held, row)
        for audit in rollup.audits:
            found = self.audits.get(_audit_place(audit))
            self.audits[_audit_place(audit)] = audit if found is None else _audit_sum(found, audit)
        self.samples.update((name_of(one), one) for one in rollup.samples)
        if len(self.samples) > _MAX_HELD:
            self.samples = {name_of(one): one for one in fair(self.samples)}

    def _bare(self) -> Rollup:
        return Rollup(
            tuple(self.sources.values()), tuple(self.rows.values()), tuple(self.audits.values())
        )

    def whole(self) -> Rollup:
        """What has come together."""
        bare = self._bare()
        if not self.samples:
            return bare
        # Each has a comma.
        room_bytes = MAX_WITH_SAMPLES_BYTES - len(encode_rollup(bare)) - len(self.samples)
        return replace(bare, samples=tuple(fair(self.samples, room_bytes)))


def merged(
    rollups: Iterable[tuple[float, Rollup]], max_bytes: int = MAX_BARE_BYTES
) -> list[Rollup]:
    """Rollups with their ages in s as few of the age 0, each of them within its bounds.

    Where those of one log do not come in the order of their rows, they stay apart. ``max_bytes`` is
    what each of them may have as JSON without samples.
    """
    done: list[Rollup] = []
    now = _Merging(max_bytes)
    for age_s, rollup in rollups:
        for part in parted(_aged(rollup, age_s), max_bytes):
            num_bytes = bare_bytes(part)
            if not now.takes(part, num_bytes):
                done.append(now.whole())
                now = _Merging(max_bytes)
            now.add(part, num_bytes)
    if now.sources:
        done.append(now.whole())
    return done


def fair(samples: Mapping[tuple[str, ...], Sample], room_bytes: float = math.inf) -> list[Sample]:
    """Those that one rollup may have: so many of a site, so many in all, so many bytes."""
    max_bytes = min(room_bytes, MAX_SAMPLES_BYTES)
    by_site: dict[tuple[str, str, str], dict[tuple[str, ...], Sample]] = {}
    for name, one in samples.items():
        by_site.setdefault(place_of(one), {})[name] = one
    some = {
        name_of(one): one
        for of_site in by_site.values()
        for one in chosen(of_site, MAX_SAMPLES_OF_A_SITE)
    }
    kept, num_bytes = [], 0
    for one in chosen(some, MAX_SAMPLES):
        num_bytes += size_of(one)
        if num_bytes > max_bytes:
            break
        kept.append(one)
    return kept


def speaks_for(tier: Tier, region: str, agent: str, source: Source) -> bool:
    """Whether an agent below a tier may tell of this source.

    A device speaks for itself alone. Above the first gateways, those who ask are gateways, and
    speak for all that is below them.
    """
    if tier is not Tier.REGIONAL:
        return source.site == agent or source.region != region
    is_its_own = (source.region, source.site) == (region, agent)
    return is_its_own and source.last - source.first < MAX_COVERED


def _log(source: Source) -> tuple[str, str, str, str]:
    return source.region, source.site, source.tier, source.log


def _follows(before: Source, after: Source) -> bool:
    """Whether the numbers of one go on where those of the other end."""
    if (before.audits_first == 0) != (after.audits_first == 0):
        return False
    goes_on = not after.audits_first or before.audits_last + 1 == after.audits_first
    return goes_on and before.last + 1 == after.first


def _joined(before: Source, after: Source) -> Source:
    return Source(
        after.region, after.site, after.tier, after.log, before.first, after.last,
        before.unread + after.unread, max(before.dropped, after.dropped),
        before.audits_first, after.audits_last,
    )  # fmt: skip


def _place(row: RollupRow) -> tuple[object, ...]:
    return tuple(getattr(row, name) for name in ROW_FIELDS[:_NUM_KEY])


def _audit_place(row: AuditRow) -> tuple[object, ...]:
    return tuple(getattr(row, name) for name in AUDIT_FIELDS[:_NUM_AUDIT_KEY])


def _sum(one: RollupRow, other: RollupRow) -> RollupRow:
    numbers = [_both(one, other, name) for name in ROW_FIELDS[_NUM_KEY:-2]]
    sketches = added((one.confidences, other.confidences)), added((one.latency, other.latency))
    return row_of(*_place(one), *numbers, *map(_taken, sketches))


def _taken(sketch: dict[int, int]) -> dict[int, int]:
    """The sketch as a row may have it: who tells of buckets that no value has makes too many."""
    found = within(sketch) if len(sketch) > MAX_BUCKETS else sketch
    return {bucket: min(count, MOST) for bucket, count in found.items()}


def _audit_sum(one: AuditRow, other: AuditRow) -> AuditRow:
    numbers = [_both(one, other, name) for name in AUDIT_FIELDS[_NUM_AUDIT_KEY:]]
    return audit_row_of(*_audit_place(one), *numbers)


def _both(one: object, other: object, name: str) -> float:
    """What both have, within what a rollup may say."""
    total: int | float = getattr(one, name) + getattr(other, name)
    return min(total, MOST if isinstance(total, int) else MOST_AMOUNT)


def _aged(rollup: Rollup, age_s: float) -> Rollup:
    minutes = minutes_of(age_s)
    # Of a clock that has been set back, or is none, it is as if it came at once.
    later_s = age_s if age_s > 0 else 0.0
    if not minutes and not rollup.samples:
        return rollup

    def shifted(ago: int) -> int:
        return min(MOST_MINUTES, ago + minutes)

    return Rollup(
        rollup.sources,
        tuple(replace(row, minutes_ago=shifted(row.minutes_ago)) for row in rollup.rows),
        tuple(replace(row, minutes_ago=shifted(row.minutes_ago)) for row in rollup.audits),
        samples=tuple(
            replace(one, age_s=min(MAX_AGE_S, one.age_s + later_s)) for one in rollup.samples
        ),
    )
