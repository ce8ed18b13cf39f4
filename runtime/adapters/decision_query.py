"""Answers questions about escalation from decision logs, while they are written or long after.

What is counted:
  * A request is counted once: retries of an id are one request, and the last decision about it
    counts. Only where ``by`` names the tier, site or region is it counted once in each of those.
  * Without ``tier`` in ``by``, only entry decisions count (hop 0: the tier that the caller asked),
    so that a request that climbed three tiers is one request. With it, each tier's own decisions.
  * An escalation failed when no tier above gave the answer; what the tier then answered itself is
    never an answer from above. When the tier above found that the answer below is the better one,
    that is no failure.
  * Audits are no requests; the tiers that serve them keep no decision of them.
  * A log of an earlier version has no gears and the like; they count as "none".
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from runtime.adapters.decision_log import FILE_NAME
from runtime.adapters.log_file import columns_of, reading
from runtime.errors import StartError
from runtime.messages import Outcome, Reason, Tier

# Dimension of a query to the column that holds it.
DIMENSIONS = {
    "tier": "tier",
    "model": "model",
    "reason": "decided_because",
    "region": "region",
    "site": "site",
    "model_version": "model_version",
    "outcome": "outcome",
    "answered_by": "answered_by",
    "end_reason": "reason",
    "policy": "policy",
    "gear": "gear",
    "route": "route",
    "guarantee": "guarantee",
    "rule": "rule",
}
_PLACES = ("tier", "site", "region")
_HEIGHTS = {tier.value: tier.height for tier in Tier}


@dataclass(frozen=True, slots=True)
class EscalationRow:
    """One group of requests; ``group`` has a value for each dimension asked for, in order.

    ``answered_here`` are those whose answer is of the tier that decided; ``failed_escalations``
    climbed, and no tier above gave the answer. Latencies are those of the deciding tier.
    """

    group: tuple[str, ...]
    requests: int
    answered_here: int
    escalated: int
    escalation_rate: float
    failed_escalations: int
    degraded: int
    abstained: int
    failed: int
    mean_confidence: float | None
    p50_latency_ms: float
    p99_latency_ms: float


class EscalationReport(NamedTuple):
    """Rows, largest group first, and how many decisions the logs' quotas have deleted so far."""

    rows: tuple[EscalationRow, ...]
    num_deleted: int


@dataclass(frozen=True, slots=True)
class LatencyRow:
    """Latencies of one group in ms, at the deciding tier; ``late`` were over their budget."""

    group: tuple[str, ...]
    requests: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    late: int
    late_share: float


class LatencyReport(NamedTuple):
    """Rows, largest group first, and how many decisions the logs' quotas have deleted so far."""

    rows: tuple[LatencyRow, ...]
    num_deleted: int


class _Decision(NamedTuple):
    group: tuple[str, ...]
    tier: str
    action: str
    outcome: str
    answered_by: str
    reason: str
    confidence: float | None
    latency_ms: float
    budget_ms: float | None

    @property
    def has_escalated(self) -> bool:
        return self.action == "escalate"

    @property
    def has_failed_above(self) -> bool:
        is_from_above = _HEIGHTS.get(self.answered_by, -1) > _HEIGHTS.get(self.tier, len(_HEIGHTS))
        return not is_from_above and self.reason != Reason.LOWER_STANDS


def find_logs(folder: Path) -> tuple[Path, ...]:
    """All decision logs in a folder and below it."""
    return tuple(sorted(folder.rglob(FILE_NAME)))


def logs_in(folder: Path) -> tuple[Path, ...]:
    """The same, of which there must be one.

    Raises:
        StartError: there is none; says where logs come from.
    """
    paths = find_logs(folder)
    if not paths:
        raise StartError(
            f"no decision log in {folder}: start a tier, or give --state the folder that its "
            "setting `state.folder` names"
        )
    return paths


def check_dimensions(by: Iterable[str]) -> tuple[str, ...]:
    """The dimensions, without repetitions.

    Raises:
        ValueError: one is unknown; the text names those that are known.
    """
    wanted = tuple(dict.fromkeys(by))
    unknown = [name for name in wanted if name not in DIMENSIONS]
    if unknown:
        raise ValueError(f"cannot group by {unknown[0]!r}: choose from {', '.join(DIMENSIONS)}")
    return wanted


def query_escalations(
    paths: Iterable[Path], *, since_s: float = 0.0, by: Sequence[str] = ("tier",)
) -> EscalationReport:
    """Counts requests and escalations in decision logs.

    Args:
        paths: Files of decision logs; those of several tiers and sites are counted together.
        since_s: Decisions before this instant (seconds since 1970) do not count.
        by: Dimensions to group by.

    Raises:
        ValueError: an unknown dimension.
        StartError: a log cannot be read.
    """
    groups, num_deleted = _grouped(paths, since_s, by)
    rows = [_row(group, decisions) for group, decisions in groups.items()]
    rows.sort(key=lambda row: (-row.requests, row.group))
    return EscalationReport(tuple(rows), num_deleted)


def query_latency(
    paths: Iterable[Path], *, since_s: float = 0.0, by: Sequence[str] = ("tier",)
) -> LatencyReport:
    """Latencies in decision logs; arguments and errors are those of ``query_escalations``."""
    groups, num_deleted = _grouped(paths, since_s, by)
    rows = [_latency_row(group, decisions) for group, decisions in groups.items()]
    rows.sort(key=lambda row: (-row.requests, row.group))
    return LatencyReport(tuple(rows), num_deleted)


def _grouped(
    paths: Iterable[Path], since_s: float, by: Sequence[str]
) -> tuple[dict[tuple[str, ...], list[_Decision]], int]:
    by = check_dimensions(by)
    latest: dict[tuple[str, ...], tuple[float, _Decision]] = {}
    num_deleted = 0
    for path in paths:
        with reading(path) as log:
            if log is None:
                continue
            num_deleted += _num_deleted(log)
            for wall_s, key, decision in _decisions(log, since_s, by):
                known = latest.get(key)
                if known is None or wall_s >= known[0]:
                    latest[key] = (wall_s, decision)
    groups: dict[tuple[str, ...], list[_Decision]] = {}
    for _, decision in latest.values():
        groups.setdefault(decision.group, []).append(decision)
    return groups, num_deleted


def _latency_row(group: tuple[str, ...], decisions: Sequence[_Decision]) -> LatencyRow:
    latencies = sorted(one.latency_ms for one in decisions)
    num = len(latencies)
    late = sum(one.budget_ms is not None and one.latency_ms > one.budget_ms for one in decisions)
    return LatencyRow(
        group=group,
        requests=num,
        mean_ms=sum(latencies) / num,
        p50_ms=percentile(latencies, 50),
        p90_ms=percentile(latencies, 90),
        p99_ms=percentile(latencies, 99),
        p999_ms=latencies[max(-(-num * 999 // 1000), 1) - 1],
        late=late,
        late_share=late / num,
    )


class Entry(NamedTuple):
    """The last decision about a request at the tier that its caller asked."""

    wall_s: float
    answered_by: str
    latency_ms: float


def query_entries(paths: Iterable[Path], *, since_s: float = 0.0) -> tuple[Entry, ...]:
    """Each request once, in order of time; ``answered_by`` is "none" where nobody answered.

    Raises:
        StartError: a log cannot be read.
    """
    latest: dict[tuple[str, ...], Entry] = {}
    for path in paths:
        with reading(path) as log:
            if log is None:
                continue
            for wall_s, key, decision in _decisions(log, since_s, ("answered_by",)):
                known = latest.get(key)
                if known is None or wall_s >= known.wall_s:
                    latest[key] = Entry(wall_s, decision.answered_by or "none", decision.latency_ms)
    return tuple(sorted(latest.values()))


def _row(group: tuple[str, ...], decisions: Sequence[_Decision]) -> EscalationRow:
    escalated = [one for one in decisions if one.has_escalated]
    confidences = [one.confidence for one in decisions if one.confidence is not None]
    latencies = sorted(one.latency_ms for one in decisions)
    outcomes = [one.outcome for one in decisions]
    return EscalationRow(
        group=group,
        requests=len(decisions),
        answered_here=sum(one.answered_by == one.tier for one in decisions),
        escalated=len(escalated),
        escalation_rate=len(escalated) / len(decisions),
        failed_escalations=sum(one.has_failed_above for one in escalated),
        degraded=outcomes.count(Outcome.DEGRADED),
        abstained=outcomes.count(Outcome.ABSTAINED),
        failed=outcomes.count(Outcome.FAILED),
        mean_confidence=sum(confidences) / len(confidences) if confidences else None,
        p50_latency_ms=percentile(latencies, 50),
        p99_latency_ms=percentile(latencies, 99),
    )


def percentile(ordered: Sequence[float], percent: int) -> float:
    """The nearest-rank percentile of values in ascending order."""
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(rank, 1) - 1]


def _num_deleted(log: sqlite3.Connection) -> int:
    found = log.execute("SELECT value FROM totals WHERE name = 'deleted'")
    return int(found.fetchone()[0])


def _decisions(
    log: sqlite3.Connection, since_s: float, by: Sequence[str]
) -> Iterator[tuple[float, tuple[str, ...], _Decision]]:
    """Instant, identity and content of each decision that counts, in the order of writing."""
    there = columns_of(log, "decisions")
    columns = [
        "wall_s", "request_id", "tier", "action", "outcome", "answered_by", "reason",
        "confidence", "latency_ms", "budget_ms" if "budget_ms" in there else "NULL",
        *(DIMENSIONS[name] if DIMENSIONS[name] in there else "''" for name in by),
    ]  # fmt: skip
    entry_only = "" if "tier" in by else "AND hop = 0"
    rows = log.execute(
        f"SELECT {', '.join(columns)} FROM decisions "  # noqa: S608 - columns from DIMENSIONS
        f"WHERE wall_s >= ? {entry_only} ORDER BY rowid",
        (since_s,),
    )
    for (
        wall_s,
        request_id,
        tier,
        action,
        outcome,
        answered_by,
        why,
        sure,
        ms,
        budget_ms,
        *values,
    ) in rows:
        group = tuple(value or "none" for value in values)
        places = (value for name, value in zip(by, group, strict=True) if name in _PLACES)
        decision = _Decision(
            group, tier, action, outcome, answered_by, why, sure, ms or 0.0, budget_ms
        )
        yield wall_s, (request_id, *places), decision
