"""The rows of answers, and the page that they come in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

import msgspec


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """``group`` has a value for each dimension that was asked by; without one it is ``none``."""

    group: dict[str, str]


class EscalationsRow(Row, frozen=True, kw_only=True):
    """Requests and what climbed; the fields of ``tierwise metrics escalations``."""

    requests: int
    answered_here: int
    escalated: int
    escalation_rate: float
    failed_escalations: int
    degraded: int
    abstained: int
    failed: int
    mean_confidence: float | None
    p50_latency_ms: float | None
    p99_latency_ms: float | None


class LatencyRow(Row, frozen=True, kw_only=True):
    """Latencies in ms, within 1 %; ``late_share`` of the requests took longer than their budget."""

    requests: int
    mean_ms: float
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    p999_ms: float | None
    late: int
    late_share: float


class CostRow(Row, frozen=True, kw_only=True):
    """What requests cost: by the policy's reckoning, in bytes sent up, and in time of models."""

    requests: int
    escalated: int
    cost_sum: float
    mean_cost: float
    sent_bytes: int
    service_s: float


class RolloutsRow(Row, frozen=True, kw_only=True):
    """How much a version does, over time."""

    requests: int
    escalated: int
    escalation_rate: float
    failed: int
    late_share: float
    p99_latency_ms: float | None


class AccuracyRow(Row, frozen=True, kw_only=True):
    """The share of right answers with its 95 % interval, and what it is from.

    ``feedback``: what people and applications said was right. ``audits``: whether the top tier says
    the same, by weight; that is agreement, and as good as the top tier.
    """

    source: str
    judged: int
    correct: int
    accuracy: float
    low: float
    high: float


class AgreementRow(Row, frozen=True, kw_only=True):
    """Audits, and the share of all answers that the top tier agrees with (95 % interval)."""

    audited: int
    agreed: int
    failed: int
    agreement: float | None
    low: float | None
    high: float | None


class FleetRow(Row, frozen=True, kw_only=True):
    """A site: when it was heard last, what it runs, and what is missing of its decisions.

    ``decisions`` are those of the time asked about, at every tier; the other counts are of all
    time. ``missing`` were written and never came, ``unread`` were deleted by the log's quota before
    they were counted, ``dropped`` were never written, ``repeated`` came in two rollups.
    ``retired`` is ``yes`` of a device that is out of service, ``speaks`` where it says something
    all the same, and ``no`` of all others.
    """

    last_heard_s: float
    silent_s: float
    tiers: list[str]
    versions: list[str]
    decisions: int
    counted: int
    missing: int
    unread: int
    dropped: int
    repeated: int
    retired: str = "no"


R = TypeVar("R", bound=Row)


class Report(msgspec.Struct, Generic[R], frozen=True, kw_only=True):
    """A page of an answer; ``next`` is the cursor of the one after it, empty at the end.

    Times are s since 1970. ``grain_s`` is the width of the rows that were read; the time asked
    about is widened to whole ones. ``notes`` say what else should be known.
    """

    metric: str
    since_s: int
    until_s: int
    grain_s: int
    by: list[str]
    rows: list[R]
    next: str = ""
    notes: list[str] = []


ROWS: Mapping[str, type[Row]] = {
    "escalations": EscalationsRow,
    "latency": LatencyRow,
    "accuracy": AccuracyRow,
    "cost": CostRow,
    "agreement": AgreementRow,
    "rollouts": RolloutsRow,
    "fleet": FleetRow,
}
