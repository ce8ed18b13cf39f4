"""A rollup that is too large for one message as several.

Rules of this file:
  * every row and every audit is in exactly one part, and each part covers as many decisions as it
    counts: the numbers that its sources cover are dealt among the parts in their order;
  * what is unread goes with the first part of its source; audits are numbered and dealt likewise;
  * decisions that are told whole are given up: they are a few of those that are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from msgspec.structs import replace

from runtime.telemetry import AuditRow, Rollup, RollupRow, Source, encode_rollup

_Row = RollupRow | AuditRow
_Place = tuple[str, str]


def bare_bytes(rollup: Rollup) -> int:
    """How many bytes a rollup has as JSON without its samples."""
    return len(encode_rollup(replace(rollup, samples=())))


def parted(rollup: Rollup, max_bytes: int) -> list[Rollup]:
    """The rollup, or parts of it that have no more bytes than this, apart from samples.

    A part of one row is not parted further: it has at most a quarter of a million bytes, with the
    few sources that a place has.
    """
    rows: list[_Row] = [*rollup.rows, *rollup.audits]
    if len(rows) <= 1 or bare_bytes(rollup) <= max_bytes:
        return [rollup]
    middle = len(rows) // 2
    first, second = _two(rollup, rows[:middle], rows[middle:])
    return [*parted(first, max_bytes), *parted(second, max_bytes)]


def _two(
    rollup: Rollup,
    some: Sequence[_Row],
    others: Sequence[_Row],
) -> tuple[Rollup, Rollup]:
    here, there = {_place(row) for row in some}, {_place(row) for row in others}
    wanted, audits = Counter[tuple[str, str, str]](), Counter[_Place]()
    for row in some:
        if isinstance(row, RollupRow):
            wanted[row.region, row.site, row.tier] += row.count
        else:
            audits[_place(row)] += row.agreed + row.disagreed + row.failed
    first, second = list[Source](), list[Source]()
    for source in rollup.sources:
        if _place(source) not in there:
            first.append(source)
        elif _place(source) not in here:
            second.append(source)
        else:
            tier = (source.region, source.site, source.tier)
            num_read = source.last - source.first + 1 - source.unread
            taken = min(wanted[tier], num_read)
            wanted[tier] -= taken
            until = source.first - 1 + taken + source.unread
            num_audits = max(0, source.audits_last - source.audits_first + 1)
            audited = min(audits[_place(source)], num_audits)
            audits[_place(source)] -= audited
            before = replace(source, last=until)
            after = replace(source, first=until + 1, unread=0)
            if source.audits_first:
                audits_until = source.audits_first - 1 + audited
                before = replace(before, audits_last=audits_until)
                after = replace(after, audits_first=audits_until + 1)
            first.append(before)
            second.append(after)
    return _rollup(first, some), _rollup(second, others)


def _rollup(sources: Collection[Source], rows: Sequence[_Row]) -> Rollup:
    return Rollup(
        tuple(sources),
        tuple(row for row in rows if isinstance(row, RollupRow)),
        tuple(row for row in rows if isinstance(row, AuditRow)),
    )


def _place(of: _Row | Source) -> _Place:
    return of.region, of.site
