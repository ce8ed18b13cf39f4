"""What the demo counts: pure sums over what callers saw."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypedDict

import numpy as np

from runtime.policy import Policy
from tierwise.demo.promise import Promise, checked

TIERS = ("edge", "regional", "cloud")


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as its caller saw it; ``tier`` and ``label`` are missing without an answer."""

    index: int
    outcome: str
    tier: str | None
    label: int | None
    truth: int
    latency_ms: float
    in_outage: bool


class Accuracy(TypedDict):
    """Shares of right answers; of requests without an answer, none is right."""

    hierarchy: float
    hierarchy_outside_outage: float
    edge_only: float
    cloud_only: float


class Outage(TypedDict):
    """What became of requests that were asked while the link was cut."""

    requests: int
    answered: int
    degraded: int


class Summary(TypedDict):
    """The result of a demo; keys only grow."""

    requests: int
    answered_by: dict[str, int]
    degraded: int
    abstained: int
    failed: int
    accuracy: Accuracy
    latency_ms: dict[str, float]
    deadline_met: float
    uplink_bytes: int
    uplink_bytes_if_all_cloud: int
    outage: Outage
    budget_ms: float
    first_answer_s: float
    state: str
    promise: Promise | None
    dashboard: str


@dataclass
class Tally:
    """Running sums. ``edge_only`` and ``cloud_only`` are labels of the same pictures by index."""

    budget_ms: float
    edge_only: dict[int, int] = field(default_factory=dict)
    cloud_only: dict[int, int] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)

    def add(self, seen: Seen) -> None:
        """Takes one more request in."""
        self.seen.append(seen)

    def answered_by(self, *, outside_outage: bool = False) -> dict[str, int]:
        """Requests by the tier whose model answered."""
        used = [seen for seen in self.seen if not (outside_outage and seen.in_outage)]
        return {tier: sum(seen.tier == tier for seen in used) for tier in TIERS}

    def count(self, outcome: str) -> int:
        """Requests with this outcome."""
        return sum(seen.outcome == outcome for seen in self.seen)

    def accuracy(self, *, outside_outage: bool = False) -> float:
        """Share of right answers."""
        used = [seen for seen in self.seen if not (outside_outage and seen.in_outage)]
        return _share(seen.label == seen.truth for seen in used)

    def accuracy_of(self, labels: dict[int, int]) -> float:
        """Share of right labels that a single tier gave to the same pictures."""
        used = [seen for seen in self.seen if seen.index in labels]
        return _share(labels[seen.index] == seen.truth for seen in used)

    def latency_ms(self, percent: float) -> float:
        """A percentile of the latency at the caller."""
        if not self.seen:
            return 0.0
        return float(np.percentile([seen.latency_ms for seen in self.seen], percent))

    def deadline_met(self) -> float:
        """Share of requests that came back within the budget, with or without an answer."""
        return _share(seen.latency_ms <= self.budget_ms for seen in self.seen)

    def outage(self) -> Outage:
        """What became of requests that were asked while the link was cut."""
        hit = [seen for seen in self.seen if seen.in_outage]
        return Outage(
            requests=len(hit),
            answered=sum(seen.outcome in ("answered", "degraded") for seen in hit),
            degraded=sum(seen.outcome == "degraded" for seen in hit),
        )

    def summary(
        self,
        *,
        uplink_bytes: int,
        num_sent: int,
        first_answer_s: float,
        state: str,
        policy: Policy | None = None,
        dashboard: str = "",
    ) -> Summary:
        """All figures; ``uplink_bytes`` were sent for ``num_sent`` requests and audits."""
        each = uplink_bytes / num_sent if num_sent else 0.0
        return Summary(
            requests=len(self.seen),
            answered_by=self.answered_by(),
            degraded=self.count("degraded"),
            abstained=self.count("abstained"),
            failed=self.count("failed"),
            accuracy=Accuracy(
                hierarchy=round(self.accuracy(), 4),
                hierarchy_outside_outage=round(self.accuracy(outside_outage=True), 4),
                edge_only=round(self.accuracy_of(self.edge_only), 4),
                cloud_only=round(self.accuracy_of(self.cloud_only), 4),
            ),
            latency_ms={
                "p50": round(self.latency_ms(50), 2),
                "p99": round(self.latency_ms(99), 2),
            },
            deadline_met=round(self.deadline_met(), 4),
            uplink_bytes=uplink_bytes,
            uplink_bytes_if_all_cloud=round(each * len(self.seen)),
            outage=self.outage(),
            budget_ms=self.budget_ms,
            first_answer_s=round(first_answer_s, 2),
            state=state,
            dashboard=dashboard,
            promise=(
                None
                if policy is None
                else checked(policy, self.answered_by(outside_outage=True), self.budget_ms)
            ),
        )


def _share(flags: Iterable[bool]) -> float:
    values = list(flags)
    return sum(values) / len(values) if values else 0.0
