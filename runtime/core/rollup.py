"""Decisions and audits of a log as the rows of a rollup.

Rules of this file:
  * every decision is counted once, in the order of the log;
  * a rollup is bounded, in rows and in bytes. Where labels make too many rows, the labels that come
    later are told as one (``OTHER``); where even that is too much, the rest is left for the next
    rollup.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from runtime.core.sketch import bucket_of
from runtime.telemetry import (
    DIMENSIONS,
    MAX_ROWS,
    NUM_CONFIDENCE_BINS,
    OTHER,
    AuditRow,
    RollupRow,
)

_MINUTE_S = 60.0
MOST_MINUTES = 1 << 24
_LABEL = DIMENSIONS.index("label") + 1
# From here on further labels are told as one.
MAX_LABELLED = 500
MOST = 1 << 53
MOST_AMOUNT = 1e18
_LONGEST = 128
# Rows of one rollup as JSON. With its audits and samples it stays under what a gateway merges.
MAX_ROWS_BYTES = 500_000
MAX_AUDITS_BYTES = 200_000
_Given = TypeVar("_Given")
_Row = TypeVar("_Row")


@dataclass(frozen=True, slots=True)
class Decided:
    """What a rollup takes of one decision; named as in ``DecisionRecord``."""

    wall_s: float
    region: str
    site: str
    tier: str
    model: str
    model_version: str
    policy: str
    gear: str
    route: str
    action: str
    decided_because: str
    outcome: str
    reason: str
    answered_by: str
    guarantee: str
    label: int | None
    hop: int
    latency_ms: float
    budget_ms: float | None
    sent_bytes: int
    service_us: int
    cost: float | None
    confidence: float | None


@dataclass(frozen=True, slots=True)
class Audited:
    """What a rollup takes of one audit; named as in ``AuditRecord``."""

    wall_s: float
    region: str
    site: str
    policy: str
    gear: str
    chance: float
    agrees: bool | None


@dataclass(slots=True)
class _Sum:
    """What has been added up of one row."""

    count: int = 0
    late: int = 0
    sent_bytes: int = 0
    service_us: int = 0
    latency_ms: float = 0.0
    cost: float = 0.0
    confident: int = 0
    confidence: float = 0.0
    confidences: dict[int, int] = field(default_factory=dict)
    latency: dict[int, int] = field(default_factory=dict)

    def add(self, one: Decided) -> None:
        self.count += 1
        latency_ms = amount_of(one.latency_ms)
        self.late += one.budget_ms is not None and latency_ms > one.budget_ms
        self.sent_bytes = min(MOST, self.sent_bytes + max(0, one.sent_bytes))
        self.service_us = min(MOST, self.service_us + max(0, one.service_us))
        self.latency_ms = amount_of(self.latency_ms + latency_ms)
        self.cost = amount_of(self.cost + amount_of(one.cost or 0.0))
        bucket = bucket_of(latency_ms)
        self.latency[bucket] = self.latency.get(bucket, 0) + 1
        if one.confidence is not None and 0 <= one.confidence <= 1:
            self.confident += 1
            self.confidence += one.confidence
            place = min(NUM_CONFIDENCE_BINS - 1, int(one.confidence * NUM_CONFIDENCE_BINS))
            self.confidences[place] = self.confidences.get(place, 0) + 1


def roll_up(
    decisions: Sequence[Decided], now_s: float, max_bytes: int = MAX_ROWS_BYTES
) -> tuple[tuple[RollupRow, ...], int]:
    """Rows for as many of the decisions, from the first on, as fit; and how many those are."""
    return _within(max_bytes, decisions, lambda some: _summed(some, now_s))


def _within(
    max_bytes: int,
    given: Sequence[_Given],
    summed: Callable[[Sequence[_Given]], tuple[tuple[_Row, ...], int]],
) -> tuple[tuple[_Row, ...], int]:
    """Rows of at most so many bytes; one alone is always taken, and has some 13,000 at most."""
    rows, taken = summed(given)
    while taken > 1 and len(msgspec.json.encode(rows)) > max_bytes:
        rows, taken = summed(given[: taken // 2])
    return rows, taken


def _summed(decisions: Sequence[Decided], now_s: float) -> tuple[tuple[RollupRow, ...], int]:
    sums: dict[tuple[object, ...], _Sum] = {}
    for number, one in enumerate(decisions):
        key = _key(one, now_s)
        if key not in sums and len(sums) >= MAX_LABELLED:
            key = (*key[:_LABEL], OTHER, *key[_LABEL + 1 :])
            if key not in sums and len(sums) >= MAX_ROWS:
                return _rows(sums), number
        sums.setdefault(key, _Sum()).add(one)
    return _rows(sums), len(decisions)


def _key(one: Decided, now_s: float) -> tuple[object, ...]:
    return (
        minutes_of(now_s - one.wall_s),
        *(
            str(value)[:_LONGEST]
            for value in (
                one.region, one.site, one.tier, one.model, one.model_version, one.policy,
                one.gear, one.route, one.action, one.decided_because, one.outcome, one.reason,
                one.answered_by, one.guarantee, "" if one.label is None else one.label,
            )
        ),
        one.hop == 0,
    )  # fmt: skip


def _rows(sums: dict[tuple[object, ...], _Sum]) -> tuple[RollupRow, ...]:
    return tuple(
        row_of(
            *key, it.count, it.late, it.sent_bytes, it.service_us, it.latency_ms, it.cost,
            it.confident, it.confidence, it.confidences, it.latency,
        )
        for key, it in sums.items()
    )  # fmt: skip


def roll_up_audits(
    audits: Sequence[Audited], now_s: float, max_bytes: int = MAX_AUDITS_BYTES
) -> tuple[tuple[AuditRow, ...], int]:
    """The same for audits."""
    return _within(max_bytes, audits, lambda some: _summed_audits(some, now_s))


def _summed_audits(audits: Sequence[Audited], now_s: float) -> tuple[tuple[AuditRow, ...], int]:
    sums: dict[tuple[object, ...], list[float]] = {}
    for number, one in enumerate(audits):
        places = one.region, one.site, one.policy, one.gear
        key = (minutes_of(now_s - one.wall_s), *(place[:_LONGEST] for place in places))
        if key not in sums and len(sums) >= MAX_ROWS:
            return _audit_rows(sums), number
        found = sums.setdefault(key, [0, 0, 0, 0.0, 0.0])
        if one.agrees is None:
            found[2] += 1
            continue
        weight = 1 / one.chance if 0 < one.chance <= 1 else 0.0
        found[0 if one.agrees else 1] += 1
        found[3] = amount_of(found[3] + weight * one.agrees)
        found[4] = amount_of(found[4] + weight)
    return _audit_rows(sums), len(audits)


def _audit_rows(sums: dict[tuple[object, ...], list[float]]) -> tuple[AuditRow, ...]:
    return tuple(
        audit_row_of(*key, int(agreed), int(disagreed), int(failed), right, drawn)
        for key, (agreed, disagreed, failed, right, drawn) in sums.items()
    )


ROW_FIELDS = tuple(RollupRow.__struct_fields__)
AUDIT_FIELDS = tuple(AuditRow.__struct_fields__)


def row_of(*values: Any) -> RollupRow:  # noqa: ANN401 - its fields
    """A row of its fields, in their order."""
    return RollupRow(**dict(zip(ROW_FIELDS, values, strict=True)))


def audit_row_of(*values: Any) -> AuditRow:  # noqa: ANN401 - the same
    """An audit row of its fields, in their order."""
    return AuditRow(**dict(zip(AUDIT_FIELDS, values, strict=True)))


def minutes_of(over_s: float) -> int:
    """Whole minutes in s; of a clock that has been set back, or is none, 0."""
    if not over_s > 0:
        return 0
    return int(min(MOST_MINUTES, over_s // _MINUTE_S))


def amount_of(value: float) -> float:
    """A number that can be added up; 0 of what is none."""
    return min(MOST_AMOUNT, value) if math.isfinite(value) and value > 0 else 0.0
