"""Metrics of a tier, as Prometheus reads them."""

from __future__ import annotations

import math

import pytest
from prometheus_client.parser import text_string_to_metric_families

from runtime.adapters.metrics import TierMetrics
from runtime.messages import Guarantee, Outcome, Reason, Tier


def sample(metrics: TierMetrics, name: str, **labels: str) -> float:
    text = metrics.render()[0].decode()
    found = [
        one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
        if one.name == name and one.labels == labels
    ]
    assert len(found) == 1, text
    return found[0]


@pytest.fixture
def metrics() -> TierMetrics:
    return TierMetrics(Tier.EDGE)


def test_answers_are_counted_by_outcome_reason_and_tier(metrics: TierMetrics) -> None:
    metrics.observe_answer(Outcome.ANSWERED, Reason.CONFIDENT, Tier.EDGE, 2.0)
    metrics.observe_answer("failed", "overloaded", "", 0.5)

    assert (
        sample(
            metrics,
            "tierwise_edge_answers_total",
            outcome="answered",
            reason="confident",
            answered_by="edge",
        )
        == 1
    )
    assert (
        sample(
            metrics,
            "tierwise_edge_answers_total",
            outcome="failed",
            reason="overloaded",
            answered_by="none",
        )
        == 1
    )


def test_latency_is_in_seconds(metrics: TierMetrics) -> None:
    metrics.observe_answer("answered", "confident", "edge", 20.0)
    metrics.observe_inference("fashion", 1500)

    assert sample(metrics, "tierwise_edge_latency_seconds_sum", outcome="answered") == 0.02
    assert sample(metrics, "tierwise_edge_inference_seconds_sum", model="fashion") == 0.0015


def test_counters(metrics: TierMetrics) -> None:
    metrics.count_escalation("answered")
    metrics.add_uplink_bytes(900)
    metrics.count_ignored("duplicate")

    assert sample(metrics, "tierwise_edge_escalations_total", result="answered") == 1
    assert sample(metrics, "tierwise_edge_uplink_bytes_total") == 900
    assert sample(metrics, "tierwise_edge_ignored_messages_total", kind="duplicate") == 1


def test_the_drops_of_the_decision_log_are_taken_over_as_a_total(metrics: TierMetrics) -> None:
    metrics.count_decision_log_drops(3)
    metrics.count_decision_log_drops(5)
    metrics.count_decision_log_drops(5)

    assert sample(metrics, "tierwise_edge_decision_log_dropped_records_total") == 5


def test_gauges(metrics: TierMetrics) -> None:
    metrics.set_pending(4)
    metrics.set_link_chance(0.25)
    metrics.set_connected(True)

    assert sample(metrics, "tierwise_edge_pending_requests") == 4
    assert sample(metrics, "tierwise_edge_link_chance_ratio") == 0.25
    assert sample(metrics, "tierwise_edge_broker_connected_ratio") == 1


def test_two_tiers_in_one_process_do_not_share_a_registry(metrics: TierMetrics) -> None:
    other = TierMetrics("cloud")
    other.set_pending(7)

    assert b"tierwise_edge" not in other.render()[0]
    assert sample(metrics, "tierwise_edge_pending_requests") == 0


def test_an_unknown_tier_is_refused() -> None:
    with pytest.raises(ValueError, match="fog"):
        TierMetrics("fog")


def test_refusals_are_counted_by_code(metrics: TierMetrics) -> None:
    metrics.count_refusal("too_late")

    assert sample(metrics, "tierwise_edge_refused_requests_total", code="too_late") == 1


def test_answers_are_counted_by_guarantee_and_climbs_by_route(metrics: TierMetrics) -> None:
    metrics.count_guarantee(Guarantee.SUSPENDED)
    metrics.count_route(())
    metrics.count_route((Tier.REGIONAL, Tier.CLOUD))

    assert sample(metrics, "tierwise_edge_guarantees_total", guarantee="suspended") == 1
    assert sample(metrics, "tierwise_edge_routes_total", route="next") == 1
    assert sample(metrics, "tierwise_edge_routes_total", route="regional,cloud") == 1


def test_audits_are_counted_by_result_and_the_loss_is_unknown_at_first(
    metrics: TierMetrics,
) -> None:
    unknown = sample(metrics, "tierwise_edge_audit_loss_ratio")
    metrics.count_audit("agreed")
    metrics.count_served_audit("overloaded")
    metrics.set_audit_loss(0.02)

    assert math.isnan(unknown)
    assert sample(metrics, "tierwise_edge_audits_total", result="agreed") == 1
    assert sample(metrics, "tierwise_edge_served_audits_total", result="overloaded") == 1
    assert sample(metrics, "tierwise_edge_audit_loss_ratio") == 0.02
    metrics.set_audit_loss(None)
    assert math.isnan(sample(metrics, "tierwise_edge_audit_loss_ratio"))


def test_what_live_control_says_is_shown_once_it_is_known(metrics: TierMetrics) -> None:
    unknown = sample(metrics, "tierwise_edge_load_ratio")
    metrics.set_live(step=2, steering=0.4, load=1.5, score_p=0.03)
    metrics.count_drift_alarm("scores")

    assert math.isnan(unknown)
    assert sample(metrics, "tierwise_edge_safer_steps") == 2
    assert sample(metrics, "tierwise_edge_steering_ratio") == 0.4
    assert sample(metrics, "tierwise_edge_load_ratio") == 1.5
    assert sample(metrics, "tierwise_edge_score_shift_p_ratio") == 0.03
    assert sample(metrics, "tierwise_edge_drift_alarms_total", sign="scores") == 1
    metrics.set_live(step=0, steering=0.0, load=None, score_p=None)
    assert math.isnan(sample(metrics, "tierwise_edge_score_shift_p_ratio"))
