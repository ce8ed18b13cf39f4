"""Metrics of model files that are handed out, and of those that a mirror fetches for that."""

from __future__ import annotations

from typing import Literal

from prometheus_client import CollectorRegistry, Counter

FileKind = Literal["blob", "document", "delta"]
TransferFailure = Literal["cut", "left", "busy", "unavailable"]
PullResult = Literal["complete", "unknown", "failed"]


class TransferMetrics:
    """Counted and measured beside ``TierMetrics``, whose registry and prefix they share."""

    def __init__(self, name: str, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            f"{name}_transfer_requests_total",
            "Requests for model files, documents of the catalogue and deltas, by HTTP status",
            ("file", "status"),
            registry=registry,
        )
        self._sent = Counter(
            f"{name}_transfer_sent_bytes_total",
            "Bodies that were sent, also of transfers that failed",
            ("file",),
            registry=registry,
        )
        self._failures = Counter(
            f"{name}_transfer_failures_total",
            "Transfers that did not come to their end: cut off here, left by the other side, "
            "refused for lack of room (busy), or not to be had (unavailable)",
            ("file", "reason"),
            registry=registry,
        )
        self._pulls = Counter(
            f"{name}_mirror_pulls_total",
            "Model files that the mirror fetched from above, by how that ended",
            ("result",),
            registry=registry,
        )
        self._pulled = Counter(
            f"{name}_mirror_pulled_bytes_total",
            "Bodies of model files that came from above",
            registry=registry,
        )

    def count_request(self, file: FileKind, status: int) -> None:
        """Counts a request that was answered, however."""
        self._requests.labels(file, str(status)).inc()

    def add_sent(self, file: FileKind, num_bytes: int) -> None:
        """Adds bytes of a body that were sent."""
        self._sent.labels(file).inc(num_bytes)

    def count_failure(self, file: FileKind, reason: TransferFailure) -> None:
        """Counts a transfer that did not come to its end."""
        self._failures.labels(file, reason).inc()

    def count_pull(self, result: PullResult, num_bytes: int = 0) -> None:
        """Counts a file that was fetched from above, or was not."""
        self._pulls.labels(result).inc()
        self._pulled.inc(num_bytes)
