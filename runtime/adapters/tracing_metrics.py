"""Metrics of spans: what was recorded, what stayed here, what was sent or dropped."""

from __future__ import annotations

from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge

SpanResult = Literal[
    "recorded", "kept_local", "sent", "dropped_burst", "dropped_size", "dropped_age", "dropped_disk"
]


class TracingMetrics:
    """Counted and measured beside ``TierMetrics``, whose registry and prefix they share."""

    def __init__(self, name: str, registry: CollectorRegistry) -> None:
        self._spans = Counter(
            f"{name}_spans_total",
            "Spans by what became of them; kept_local are those of requests that may not leave the "
            "device, dropped_burst came faster than the disk takes them",
            ("result",),
            registry=registry,
        )
        self._spool = Gauge(
            f"{name}_span_spool_bytes",
            "Spans on disk that wait for the endpoint of traces",
            registry=registry,
        )

    def count_spans(self, result: SpanResult, num: int = 1) -> None:
        """Counts spans."""
        self._spans.labels(result).inc(num)

    def set_spool(self, num_bytes: int) -> None:
        """Says how much waits on disk."""
        self._spool.set(num_bytes)
