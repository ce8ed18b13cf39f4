"""Metrics of assignments on their way down, and of what is fetched before they arrive."""

from __future__ import annotations

from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge

AssignmentResult = Literal["relayed", "cleared", "stale", "malformed", "forgotten"]
PrefetchResult = Literal["complete", "incomplete", "malformed"]


class RelayMetrics:
    """Counted and measured beside ``TierMetrics``, whose registry and prefix they share."""

    def __init__(self, name: str, registry: CollectorRegistry) -> None:
        self._assignments = Counter(
            f"{name}_relayed_assignments_total",
            "Assignments of models that came from above, by what became of them",
            ("result",),
            registry=registry,
        )
        self._prefetches = Counter(
            f"{name}_prefetches_total",
            "Times that announced model files were looked for, by how that ended",
            ("result",),
            registry=registry,
        )
        self._missing = Gauge(
            f"{name}_prefetch_missing_files",
            "Announced model files, and entries of the catalogue, that are not here yet",
            registry=registry,
        )

    def count_assignment(self, result: AssignmentResult, num: int = 1) -> None:
        """Counts what became of assignments."""
        self._assignments.labels(result).inc(num)

    def count_prefetch(self, result: PrefetchResult) -> None:
        """Counts how an announcement was met."""
        self._prefetches.labels(result).inc()

    def set_missing(self, num: int) -> None:
        """Says how much of what was announced is not here."""
        self._missing.set(num)
