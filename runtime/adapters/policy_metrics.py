"""Metrics of what a policy does besides its gears: rules, reviews, last resorts, live control."""

from __future__ import annotations

from math import nan
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge

from runtime.policy_rules import Resort
from runtime.ports import ReviewResult

DriftSign = Literal["scores", "audits"]


class PolicyMetrics:
    """A part of ``TierMetrics``, with its registry and prefix."""

    def __init__(self, name: str, registry: CollectorRegistry) -> None:
        self._rules = Counter(
            f"{name}_rules_total",
            "Requests that a rule of the policy decided",
            ("rule",),
            registry=registry,
        )
        self._unusable_rule_values = Counter(
            f"{name}_unusable_rule_values_total",
            "Requests with a value that a rule looked at and could not compare",
            ("rule",),
            registry=registry,
        )
        self._reviews = Counter(
            f"{name}_review_items_total",
            "Answers that a person was to look at, by what became of the item",
            ("result",),
            registry=registry,
        )
        self._drift_alarms = Counter(
            f"{name}_drift_alarms_total",
            "Times that traffic was found not to be what the policy was fitted on, by what said so",
            ("sign",),
            registry=registry,
        )
        for sign in get_args(DriftSign):
            # Known from the start, so that the first one is seen to grow.
            self._drift_alarms.labels(sign)
        self._safer_steps = Gauge(
            f"{name}_safer_steps",
            "Steps that the last request was safer than its gear",
            registry=registry,
        )
        self._steering = Gauge(
            f"{name}_steering_ratio",
            "Share of the safer steps that audits ask for",
            registry=registry,
        )
        self._load = Gauge(
            f"{name}_load_ratio",
            "Round trips above, in those of the trace that the policy was fitted on",
            registry=registry,
        )
        self._score_p = Gauge(
            f"{name}_score_shift_p_ratio",
            "Chance of scores like the latest ones in traffic like that of the fit",
            registry=registry,
        )
        self._fallbacks = Counter(
            f"{name}_fallbacks_total",
            "Requests without an answer that stands, by the last resort of the policy that was "
            "followed",
            ("resort",),
            registry=registry,
        )

        self._overrides = Counter(
            f"{name}_overrides_total",
            "Answers and requests that an operator's override has changed",
            ("kind",),
            registry=registry,
        )

    def count_override(self, kind: str) -> None:
        """Counts what an override of this kind has changed."""
        self._overrides.labels(kind).inc()

    def count_rule(self, rule: str, num: int = 1) -> None:
        """Counts requests that a rule of the policy decided; 0 makes the series known."""
        self._rules.labels(rule).inc(num)

    def count_unusable_rule_value(self, rule: str) -> None:
        """Counts a request with a value of another kind than a rule compares with."""
        self._unusable_rule_values.labels(rule).inc()

    def count_review(self, result: ReviewResult) -> None:
        """Counts an item for review by whether it is in the queue."""
        self._reviews.labels(result).inc()

    def count_fallback(self, resort: Resort | Literal["none"]) -> None:
        """Counts a request that a last resort took care of, or that none had anything for."""
        self._fallbacks.labels(resort).inc()

    def count_drift_alarm(self, sign: DriftSign) -> None:
        """Counts a time that traffic was found to have changed, or to have changed further."""
        self._drift_alarms.labels(sign).inc()

    def set_live(
        self, *, step: int, steering: float, load: float | None, score_p: float | None
    ) -> None:
        """Says what live control makes of traffic; not a number while unknown."""
        self._safer_steps.set(step)
        self._steering.set(steering)
        self._load.set(nan if load is None else load)
        self._score_p.set(nan if score_p is None else score_p)
