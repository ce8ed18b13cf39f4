"""Metrics of new models on a device: how far the latest came, and what was refused."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge


class UpdateMetrics:
    """Counted and measured beside ``TierMetrics``, whose registry and prefix they share."""

    def __init__(self, name: str, registry: CollectorRegistry) -> None:
        self._states = Gauge(
            f"{name}_update_state_ratio",
            "1 for the state of the latest assignment",
            ("state",),
            registry=registry,
        )
        self._refusals = Counter(
            f"{name}_update_refusals_total",
            "Assignments that were not taken, by why",
            ("reason",),
            registry=registry,
        )
        self._repeated = Counter(
            f"{name}_update_repetitions_total",
            "Assignments that were heard again, as retained ones are",
            registry=registry,
        )
        self._faults = Counter(
            f"{name}_update_faults_total",
            "Models that were given up on this device, by why",
            ("fault",),
            registry=registry,
        )
        self._shadowed = Counter(
            f"{name}_update_shadowed_requests_total",
            "Requests that a new model was shown as well, by how its label compares",
            ("result",),
            registry=registry,
        )
        self._downloaded = Counter(
            f"{name}_update_downloaded_bytes_total",
            "Bodies of model files and deltas, also of attempts that failed",
            registry=registry,
        )
        self._exchanges = Counter(
            f"{name}_update_exchanges_total",
            "Times that another model began to answer",
            registry=registry,
        )
        self._arms = Counter(
            f"{name}_update_split_requests_total",
            "Requests while two releases answered side by side, by where they went",
            ("arm",),
            registry=registry,
        )
        self._unreachable = Counter(
            f"{name}_update_refreshes_total",
            "Looks at the catalogue, by how they ended",
            ("result",),
            registry=registry,
        )

    def set_state(self, state: str, states: Iterable[str]) -> None:
        """Says how far the latest assignment came; ``states`` are all that there are."""
        for one in states:
            self._states.labels(one).set(one == state)

    def count_refusal(self, reason: str) -> None:
        """Counts an assignment that was not taken."""
        self._refusals.labels(reason).inc()

    def count_repetition(self) -> None:
        """Counts one that was heard again."""
        self._repeated.inc()

    def count_fault(self, fault: str) -> None:
        """Counts a model that was given up."""
        self._faults.labels(fault).inc()

    def count_shadowed(self, result: str) -> None:
        """Counts a request in shadow: ``agreed``, ``disagreed``, ``invalid``, ``failed``, ``late``.

        ``dropped``: it was drawn while another one was in progress.
        """
        self._shadowed.labels(result).inc()

    def count_downloaded(self, num_bytes: int) -> None:
        """Counts bytes that came over the network."""
        self._downloaded.inc(num_bytes)

    def count_exchange(self) -> None:
        """Counts that another model began to answer."""
        self._exchanges.inc()

    def count_arm(self, arm: str) -> None:
        """Counts a request of a split: ``control``, ``treatment``, ``unkeyed``, ``named``."""
        self._arms.labels(arm).inc()

    def count_refresh(self, result: str) -> None:
        """Counts a look at the catalogue: ``fresh``, or the code of an error."""
        self._unreachable.labels(result).inc()
