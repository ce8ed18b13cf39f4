"""What questions are answered with: rows, from sums of series. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from cloud_tier.telemetry.asking import Question, cursor_after
from cloud_tier.telemetry.intervals import weighted, wilson
from cloud_tier.telemetry.rows import (
    ROWS,
    AccuracyRow,
    AgreementRow,
    CostRow,
    EscalationsRow,
    LatencyRow,
    Report,
    RolloutsRow,
    Row,
)
from cloud_tier.telemetry.series import is_from_above
from runtime.errors import RequestError
from runtime.messages import Outcome, Reason

Group = tuple[str, ...]


@dataclass
class Sums:
    """All of one group, added up."""

    requests: int = 0
    answered_here: int = 0
    escalated: int = 0
    failed_escalations: int = 0
    degraded: int = 0
    abstained: int = 0
    failed: int = 0
    late: int = 0
    sent_bytes: float = 0.0
    service_us: float = 0.0
    latency_ms_sum: float = 0.0
    cost_sum: float = 0.0
    confident: int = 0
    confidence_sum: float = 0.0
    # By the shares of ``SHARES``; None where there is no latency.
    quantiles_ms: Mapping[float, float | None] = field(default_factory=dict)

    def add(self, facts: Facts, sums: Sequence[float]) -> None:
        """Adds a series' ``tables.SUMS``."""
        count = int(sums[0])
        self.requests += count
        self.answered_here += count * facts.is_answered_here
        self.escalated += count * facts.is_escalated
        self.failed_escalations += count * facts.is_failed_escalation
        self.degraded += count * (facts.outcome == Outcome.DEGRADED)
        self.abstained += count * (facts.outcome == Outcome.ABSTAINED)
        self.failed += count * (facts.outcome == Outcome.FAILED)
        self.late += int(sums[1])
        self.sent_bytes += sums[2]
        self.service_us += sums[3]
        self.latency_ms_sum += sums[4]
        self.cost_sum += sums[5]
        self.confident += int(sums[6])
        self.confidence_sum += sums[7]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a series says of each of its decisions."""

    outcome: str
    is_escalated: bool
    is_answered_here: bool
    is_failed_escalation: bool


def facts_of(tier: str, action: str, outcome: str, answered_by: str, reason: str) -> Facts:
    """As ``runtime.adapters.decision_query`` counts them."""
    is_escalated = action == "escalate"
    is_failed = not is_from_above(tier, answered_by) and reason != Reason.LOWER_STANDS
    return Facts(outcome, is_escalated, answered_by == tier, is_escalated and is_failed)


def row_of(metric: str, group: dict[str, str], sums: Sums) -> Row:
    """The row of a group that has at least one request."""
    return _MAKERS[metric](group, sums)


def _escalations(group: dict[str, str], sums: Sums) -> Row:
    return EscalationsRow(
        group=group,
        requests=sums.requests,
        answered_here=sums.answered_here,
        escalated=sums.escalated,
        escalation_rate=sums.escalated / sums.requests,
        failed_escalations=sums.failed_escalations,
        degraded=sums.degraded,
        abstained=sums.abstained,
        failed=sums.failed,
        mean_confidence=sums.confidence_sum / sums.confident if sums.confident else None,
        p50_latency_ms=sums.quantiles_ms[0.5],
        p99_latency_ms=sums.quantiles_ms[0.99],
    )


def _latency(group: dict[str, str], sums: Sums) -> Row:
    return LatencyRow(
        group=group,
        requests=sums.requests,
        mean_ms=sums.latency_ms_sum / sums.requests,
        p50_ms=sums.quantiles_ms[0.5],
        p90_ms=sums.quantiles_ms[0.9],
        p99_ms=sums.quantiles_ms[0.99],
        p999_ms=sums.quantiles_ms[0.999],
        late=sums.late,
        late_share=sums.late / sums.requests,
    )


def _cost(group: dict[str, str], sums: Sums) -> Row:
    return CostRow(
        group=group,
        requests=sums.requests,
        escalated=sums.escalated,
        cost_sum=sums.cost_sum,
        mean_cost=sums.cost_sum / sums.requests,
        sent_bytes=int(sums.sent_bytes),
        service_s=sums.service_us / 1e6,
    )


def _rollouts(group: dict[str, str], sums: Sums) -> Row:
    return RolloutsRow(
        group=group,
        requests=sums.requests,
        escalated=sums.escalated,
        escalation_rate=sums.escalated / sums.requests,
        failed=sums.failed,
        late_share=sums.late / sums.requests,
        p99_latency_ms=sums.quantiles_ms[0.99],
    )


_MAKERS: Mapping[str, Callable[[dict[str, str], Sums], Row]] = {
    "escalations": _escalations,
    "latency": _latency,
    "cost": _cost,
    "rollouts": _rollouts,
}
# The quantiles of latency that a metric's rows tell.
SHARES: Mapping[str, tuple[float, ...]] = {
    "escalations": (0.5, 0.99),
    "latency": (0.5, 0.9, 0.99, 0.999),
    "rollouts": (0.99,),
}


def judged_row(group: dict[str, str], correct: int, judged: int) -> AccuracyRow | None:
    """Accuracy by feedback; None of nothing."""
    share = wilson(correct, judged)
    if share is None:
        return None
    return AccuracyRow(
        group=group,
        source="feedback",
        judged=judged,
        correct=correct,
        accuracy=share.value,
        low=share.low,
        high=share.high,
    )


def audited_row(group: dict[str, str], sums: Sequence[float]) -> AgreementRow:
    """Agreement by audits, of ``tables.AUDIT_SUMS``."""
    agreed, disagreed, failed, hit, total, hit_squares, miss_squares = sums
    share = weighted(hit, total, hit_squares, miss_squares)
    return AgreementRow(
        group=group,
        audited=int(agreed + disagreed),
        agreed=int(agreed),
        failed=int(failed),
        agreement=share and share.value,
        low=share and share.low,
        high=share and share.high,
    )


def as_accuracy(row: AgreementRow) -> AccuracyRow | None:
    """Agreement told as accuracy; None where nothing came back."""
    if row.agreement is None or row.low is None or row.high is None:
        return None
    return AccuracyRow(
        group=row.group,
        source="audits",
        judged=row.audited,
        correct=row.agreed,
        accuracy=row.agreement,
        low=row.low,
        high=row.high,
    )


# Fields of rows that nothing is put in order by.
_NO_NUMBERS = frozenset({"source", "tiers", "versions", "retired"})


def page(asked: Question, rows: Sequence[Row], notes: Sequence[str]) -> Report[Row]:
    """The rows in their order, from where the cursor says, at most ``limit``.

    Raises:
        RequestError: the order is no number of these rows.
    """
    name, is_falling = asked.order.removeprefix("-"), asked.order.startswith("-")
    fields = ROWS[asked.metric].__struct_fields__
    choices = [one for one in fields if one not in _NO_NUMBERS]
    if name not in choices:
        raise RequestError(f"cannot order by {name[:40]!r}: choose from {', '.join(choices)}")

    def place_of(row: Row) -> tuple[float, Group]:
        value = 0.0 if name == "group" else getattr(row, name)
        last = (*row.group.values(), getattr(row, "source", ""))
        # Without a value: at the end.
        if value is None:
            return float("inf"), last
        return (-value if is_falling else value), last

    ordered = sorted(rows, key=place_of)
    if asked.after is not None:
        at = (float("inf") if asked.after.value is None else asked.after.value, asked.after.group)
        ordered = [row for row in ordered if place_of(row) > at]
    shown, cursor = ordered[: asked.limit], ""
    if len(ordered) > asked.limit:
        value, group = place_of(shown[-1])
        cursor = cursor_after(asked, None if value == float("inf") else value, group)
    return Report(
        metric=asked.metric,
        since_s=asked.since_s,
        until_s=asked.until_s,
        grain_s=asked.grain_s,
        by=list(asked.by),
        rows=list(shown),
        next=cursor,
        notes=list(notes),
    )
