"""Metrics of an outbox, of what is taken over from others, and of corrections."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from runtime.messages import ItemKind


class OutboxMetrics:
    """Counted and measured beside ``TierMetrics``, whose registry and prefix they share."""

    def __init__(self, name: str, registry: CollectorRegistry) -> None:
        self._held = Gauge(
            f"{name}_outbox_items",
            "Items in the outbox: waiting to be sent, or parked",
            ("state",),
            registry=registry,
        )
        self._bytes = Gauge(f"{name}_outbox_bytes", "Bytes in the outbox", registry=registry)
        self._max_items = Gauge(
            f"{name}_outbox_max_items", "Items that the outbox may hold", registry=registry
        )
        self._max_bytes = Gauge(
            f"{name}_outbox_max_bytes", "Bytes that the outbox may hold", registry=registry
        )
        self._dropped = Counter(
            f"{name}_outbox_dropped_items_total",
            "Items given up without having been sent, by kind and why",
            ("kind", "reason"),
            registry=registry,
        )
        self._parked = Counter(
            f"{name}_outbox_parked_items_total",
            "Items that are not sent any more",
            ("kind",),
            registry=registry,
        )
        self._sent = Counter(
            f"{name}_outbox_sent_items_total", "Sendings of items", ("kind",), registry=registry
        )
        self._received = Counter(
            f"{name}_received_items_total",
            "Items that came from other tiers, by what became of them",
            ("kind", "result"),
            registry=registry,
        )
        self._late_requests = Counter(
            f"{name}_late_requests_total",
            "Requests of outboxes below that were worked on; they are among the answers, too",
            registry=registry,
        )
        self._corrections = Counter(
            f"{name}_corrections_total",
            "Corrections that arrived, by whether they say the same as the answer that was given",
            ("result",),
            registry=registry,
        )

    def set_held(self, waiting: int, parked: int, num_bytes: int) -> None:
        """Says what the outbox holds."""
        self._held.labels("waiting").set(waiting)
        self._held.labels("parked").set(parked)
        self._bytes.set(num_bytes)

    def set_limits(self, max_items: int, max_bytes: int) -> None:
        """Says what the outbox may hold."""
        self._max_items.set(max_items)
        self._max_bytes.set(max_bytes)

    def count_dropped(self, kind: ItemKind, reason: str) -> None:
        """Counts an item that was given up: ``age``, ``room``, ``full``, ``failed``."""
        self._dropped.labels(kind.value, reason).inc()

    def count_parked(self, kind: ItemKind) -> None:
        """Counts an item that is not sent any more."""
        self._parked.labels(kind.value).inc()

    def count_sent(self, kind: ItemKind) -> None:
        """Counts one sending."""
        self._sent.labels(kind.value).inc()

    def count_received(self, kind: str, result: str) -> None:
        """Counts an item from another tier."""
        self._received.labels(kind, result).inc()

    def count_late_request(self) -> None:
        """Counts a request that nobody waits for any more, and that was worked on."""
        self._late_requests.inc()

    def count_correction(self, result: str) -> None:
        """Counts a correction: ``confirmed``, ``changed``, ``ignored`` (no or no first one)."""
        self._corrections.labels(result).inc()
