"""What operators are told of breakers."""

from __future__ import annotations

import structlog

from runtime.adapters.breaker_signs import BreakerSigns
from runtime.adapters.metrics import TierMetrics
from runtime.core.breaker import Change, State
from runtime.messages import Tier

TRIPPED = Change("g1", State.OPEN, "10 of the latest 10 failed", 1.0)
AGAIN = Change("g1", State.OPEN, "a probe failed", 2.0)
PROBING = Change("g1", State.HALF_OPEN, "the cool-down is over")
CLOSED = Change("g1", State.CLOSED, "probes succeeded")


def value(metrics: TierMetrics, sample: str) -> float:
    lines = metrics.render()[0].decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(sample))


def test_an_opening_is_a_warning_once_and_the_end_is_told() -> None:
    signs = BreakerSigns("upstream", TierMetrics(Tier.EDGE))

    with structlog.testing.capture_logs() as lines:
        for change in (TRIPPED, PROBING, AGAIN, PROBING, CLOSED, TRIPPED):
            signs(change)

    told = [(line["event"], line["log_level"]) for line in lines]
    assert told == [
        ("breaker.opened", "warning"),
        ("breaker.half_opened", "debug"),
        ("breaker.opened", "info"),
        ("breaker.half_opened", "debug"),
        ("breaker.closed", "info"),
        ("breaker.opened", "warning"),
    ]
    assert "inference.failed" in lines[0]["remedy"]


def test_metrics_count_states_and_know_no_ids() -> None:
    metrics = TierMetrics(Tier.EDGE)
    signs = BreakerSigns("upstream", metrics)
    signs(TRIPPED)
    signs(Change("g2", State.OPEN, "", 1.0))
    signs(PROBING)

    assert value(metrics, 'tierwise_edge_breakers{of="upstream",state="open"}') == 1
    assert value(metrics, 'tierwise_edge_breakers{of="upstream",state="half_open"}') == 1
    signs.forget("g1")
    signs.forget("nobody")
    assert value(metrics, "tierwise_edge_breakers{") == 1
    assert value(metrics, "tierwise_edge_breaker_changes_total{") == 3
    assert "g1" not in metrics.render()[0].decode()
