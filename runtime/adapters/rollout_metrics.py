"""Metrics of rollouts, of the one cloud process that drives them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from runtime.core.rollout_states import Phase


class RolloutMetrics:
    """Counted and measured beside ``TierMetrics``, whose registry and prefix they share."""

    def __init__(self, name: str, registry: CollectorRegistry) -> None:
        self._phases = Counter(
            f"{name}_rollout_phases_total",
            "Times that a rollout came into a phase",
            ("phase",),
            registry=registry,
        )
        for phase in Phase:
            # Known from the start, so that the first one is seen to grow.
            self._phases.labels(phase.value)
        self._live = Gauge(
            f"{name}_rollouts",
            "Rollouts that are not over, by phase",
            ("phase",),
            registry=registry,
        )
        self._questions = Counter(
            f"{name}_rollout_questions_total",
            "Times that a rollout asked an operator what to do",
            registry=registry,
        )

    def count_phase(self, phase: str) -> None:
        """Counts that a rollout came into a phase."""
        self._phases.labels(phase).inc()

    def count_question(self) -> None:
        """Counts that a rollout waits for an operator's word."""
        self._questions.inc()

    def set_live(self, phases: dict[str, int]) -> None:
        """Says how many rollouts are in which phase; those of no rollout are left out."""
        self._live.clear()
        for phase, num in phases.items():
            self._live.labels(phase).set(num)
