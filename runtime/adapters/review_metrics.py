"""Metrics of answers that wait for people, of the one cloud process that keeps them."""

from __future__ import annotations

from math import nan

from prometheus_client import CollectorRegistry, Gauge

STATES = ("waiting", "assigned")


class ReviewMetrics:
    """Measured beside ``TierMetrics``, whose registry and prefix they share."""

    def __init__(self, name: str, registry: CollectorRegistry) -> None:
        self._open = Gauge(
            f"{name}_reviews",
            "Answers that wait for people, by whether somebody looks at them now",
            ("state",),
            registry=registry,
        )
        self._late = Gauge(
            f"{name}_late_reviews",
            "Answers that wait for people for longer than they may",
            registry=registry,
        )
        self._oldest = Gauge(
            f"{name}_oldest_review_seconds",
            "Age of the oldest answer that waits for people; 0: none does",
            registry=registry,
        )
        self._agreement = Gauge(
            f"{name}_review_agreement_ratio",
            "Cohen's kappa of people who label the same answers, over all pairs of them; no number "
            "while there are none",
            registry=registry,
        )
        self._agreement.set(nan)
        self.set_open({}, num_late=0, oldest_s=0.0)

    def set_open(self, states: dict[str, int], *, num_late: int, oldest_s: float) -> None:
        """Says what waits, by state."""
        for state in STATES:
            self._open.labels(state).set(states.get(state, 0))
        self._late.set(num_late)
        self._oldest.set(oldest_s)

    def set_agreement(self, kappa: float | None) -> None:
        """Says how far people agree; None: nobody knows."""
        self._agreement.set(nan if kappa is None else kappa)
