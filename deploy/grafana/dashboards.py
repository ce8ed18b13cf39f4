"""Writes the dashboards of this folder anew; each is a list of panels, and a panel one line here.

python deploy/grafana/dashboards.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).with_name("dashboards")
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH, _HEIGHT, _PER_ROW = 8, 8, 3
# Of the process that is chosen at the top.
_ONE = 'instance=~"$instance"'


class Panel(NamedTuple):
    """A title, a unit of Grafana, and expressions with the names of their series."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "timeseries"


def named(metric: str, *matchers: str) -> str:
    """A metric of whichever tier the process is."""
    inner = ", ".join([f'__name__=~"tierwise_(edge|regional|cloud)_{metric}"', *matchers])
    return "{" + inner + "}"


def rate(metric: str, *matchers: str, by: str = "instance") -> str:
    """What is counted a second, added up."""
    return f"sum by ({by}) (rate({named(metric, *matchers)}[5m]))"


def quantile(metric: str, share: float, *matchers: str, by: str = "instance") -> str:
    """Of a histogram."""
    buckets = named(f"{metric}_bucket", *matchers)
    return f"histogram_quantile({share}, sum by (le, {by}) (rate({buckets}[5m])))"


DASHBOARDS: dict[str, tuple[str, tuple[Panel, ...]]] = {
    "overview": (
        "Tierwise: overview",
        (
            Panel("Processes that answer", "none", (('sum by (tier) (up{job="tierwise"})', "{{tier}}"),), "stat"),
            Panel("Alerts", "none", (('count by (alertname) (ALERTS{alertname=~"Tierwise.*", alertstate="firing"})', "{{alertname}}"),), "stat"),
            Panel("Brokers connected", "percentunit", ((f"avg({named('broker_connected_ratio')})", "all"),), "stat"),
            Panel("Requests a second", "reqps", (("instance:tierwise_received_requests:rate5m", "{{instance}}"),)),
            Panel("Escalated", "percentunit", (("instance:tierwise_escalation_share:rate5m", "{{instance}}"),)),
            Panel("Deadlines missed", "percentunit", (("instance:tierwise_late_share:rate5m", "{{instance}}"),)),
            Panel("Answers by outcome", "reqps", ((rate("answers_total", by="outcome"), "{{outcome}}"),)),
            Panel("Latency, 99 in 100", "s", ((quantile("latency_seconds", 0.99), "{{instance}}"),)),
            Panel("Bytes sent up", "Bps", ((rate("uplink_bytes_total"), "{{instance}}"),)),
        ),
    ),
    "tier": (
        "Tierwise: one tier",
        (
            Panel("Answers by reason", "reqps", ((rate("answers_total", _ONE, by="reason"), "{{reason}}"),)),
            Panel("Latency", "s", tuple((quantile("latency_seconds", share, _ONE), f"{share:.0%}") for share in (0.5, 0.9, 0.99))),
            Panel("The model", "s", tuple((quantile("inference_seconds", share, _ONE, by="model"), f"{{{{model}}}} {share:.0%}") for share in (0.5, 0.99))),
            Panel("Requests in progress", "none", ((named("pending_requests", _ONE), "{{instance}}"),)),
            Panel("Refused", "reqps", ((rate("refused_requests_total", _ONE, by="code"), "{{code}}"),)),
            Panel("Escalations by result", "reqps", ((rate("escalations_total", _ONE, by="result"), "{{result}}"),)),
            Panel("Chance of an answer from above", "percentunit", ((named("link_chance_ratio", _ONE), "{{instance}}"),)),
            Panel("Breakers not closed", "none", ((named("breakers", _ONE), "{{of}} {{state}}"),)),
            Panel("Processes of models that ended", "none", ((f"sum by (member, cause) (increase({named('model_process_ends_total', _ONE)}[5m]))", "{{member}} {{cause}}"),)),
            Panel("Decisions not written down", "none", ((f"sum by (instance) (increase({named('decision_log_dropped_records_total', _ONE)}[5m]))", "{{instance}}"),)),
            Panel("Disk left", "percentunit", ((f"instance:tierwise_state_free:share{{{_ONE}}}", "{{instance}}"),)),
            Panel("Stopped by an operator", "none", ((named("stopped_ratio", _ONE), "{{mode}}"),)),
        ),
    ),
    "policies": (
        "Tierwise: policies and drift",
        (
            Panel("Answers by guarantee", "reqps", ((rate("guarantees_total", by="guarantee"), "{{guarantee}}"),)),
            Panel("Drift alarms", "none", ((f"sum by (instance, sign) (increase({named('drift_alarms_total')}[1h]))", "{{instance}} {{sign}}"),)),
            Panel("Chance of scores like these", "percentunit", ((named("score_shift_p_ratio"), "{{instance}}"),)),
            Panel("Steps safer than the gear", "none", ((named("safer_steps"), "{{instance}}"),)),
            Panel("Share of them that audits ask for", "percentunit", ((named("steering_ratio"), "{{instance}}"),)),
            Panel("Estimated loss of answers that stood", "percentunit", ((named("audit_loss_ratio"), "{{instance}}"),)),
            Panel("Audits", "reqps", ((rate("audits_total", by="result"), "{{result}}"),)),
            Panel("Routes", "reqps", ((rate("routes_total", by="route"), "{{route}}"),)),
            Panel("Load above", "none", ((named("load_ratio"), "{{instance}}"),)),
            Panel("Rules that decided", "reqps", ((rate("rules_total", by="rule"), "{{rule}}"),)),
            Panel("Last resorts", "reqps", ((rate("fallbacks_total", by="resort"), "{{resort}}"),)),
            Panel("Answers that wait for people", "none", (("tierwise_cloud_reviews", "{{state}}"), ("tierwise_cloud_late_reviews", "late"))),
            Panel("The oldest of them", "s", (("tierwise_cloud_oldest_review_seconds", "{{instance}}"),)),
            Panel("Agreement of people (kappa)", "percentunit", (("tierwise_cloud_review_agreement_ratio", "{{instance}}"),)),
            Panel("Overrides", "reqps", ((rate("overrides_total", by="kind"), "{{kind}}"),)),
        ),
    ),
    "rollouts": (
        "Tierwise: rollouts and models",
        (
            Panel("Rollouts by phase", "none", (("sum by (phase) (tierwise_cloud_rollouts)", "{{phase}}"),), "stat"),
            Panel("Phases entered", "none", (("sum by (phase) (increase(tierwise_cloud_rollout_phases_total[1h]))", "{{phase}}"),)),
            Panel("Questions to operators", "none", (("sum(increase(tierwise_cloud_rollout_questions_total[1h]))", "questions"),)),
            Panel("Devices by state of their assignment", "none", (("sum by (state) (tierwise_edge_update_state_ratio)", "{{state}}"),)),
            Panel("Models given up", "none", ((f"sum by (fault) (increase({named('update_faults_total')}[1h]))", "{{fault}}"),)),
            Panel("Requests in shadow", "reqps", ((rate("update_shadowed_requests_total", by="result"), "{{result}}"),)),
            Panel("Model files sent", "Bps", ((rate("transfer_sent_bytes_total", by="instance, file"), "{{instance}} {{file}}"),)),
            Panel("Transfers that failed", "none", ((f"sum by (instance, reason) (increase({named('transfer_failures_total')}[5m]))", "{{instance}} {{reason}}"),)),
            Panel("Fetched by mirrors", "none", ((f"sum by (instance, result) (increase({named('mirror_pulls_total')}[5m]))", "{{instance}} {{result}}"),)),
            Panel("Announced and not here yet", "none", ((named("prefetch_missing_files"), "{{instance}}"),)),
            Panel("Assignments passed on", "none", ((f"sum by (instance, result) (increase({named('relayed_assignments_total')}[5m]))", "{{instance}} {{result}}"),)),
        ),
    ),
    "outbox": (
        "Tierwise: outboxes and late answers",
        (
            Panel("Of the quota in bytes", "percentunit", (("instance:tierwise_outbox_bytes:share", "{{instance}}"),)),
            Panel("Of the quota in items", "percentunit", (("instance:tierwise_outbox_items:share", "{{instance}}"),)),
            Panel("Items", "none", ((named("outbox_items"), "{{instance}} {{state}}"),)),
            Panel("Sent", "ops", ((rate("outbox_sent_items_total", by="kind"), "{{kind}}"),)),
            Panel("Given up", "none", ((f"sum by (kind, reason) (increase({named('outbox_dropped_items_total')}[5m]))", "{{kind}} {{reason}}"),)),
            Panel("Parked", "none", ((f"sum by (kind) (increase({named('outbox_parked_items_total')}[5m]))", "{{kind}}"),)),
            Panel("Taken over", "ops", ((rate("received_items_total", by="kind, result"), "{{kind}} {{result}}"),)),
            Panel("Corrections", "ops", ((rate("corrections_total", by="result"), "{{result}}"),)),
            Panel("Spans", "ops", ((rate("spans_total", by="result"), "{{result}}"),)),
        ),
    ),
}  # fmt: skip


def rendered(name: str) -> str:
    """One dashboard as JSON."""
    title, panels = DASHBOARDS[name]
    variables: list[dict[str, Any]] = [
        {"name": "datasource", "type": "datasource", "query": "prometheus"}
    ]
    if name == "tier":
        query = f"label_values({named('tier_info')}, instance)"
        variables.append(
            {
                "name": "instance",
                "type": "query",
                "datasource": _DATASOURCE,
                "query": {"query": query, "refId": "instance"},
                "refresh": 2,
                "sort": 1,
            }
        )
    dashboard = {
        "uid": f"tierwise-{name}",
        "title": title,
        "tags": ["tierwise"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": variables},
        "panels": [_panel(number, panel) for number, panel in enumerate(panels)],
    }
    return json.dumps(dashboard, indent=1) + "\n"


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, _PER_ROW)
    at = {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT}
    return {
        "id": number + 1,
        "type": panel.kind,
        "title": panel.title,
        "datasource": _DATASOURCE,
        "gridPos": at,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": _DATASOURCE,
                "expr": expression,
                "legendFormat": legend,
                # Points of traces on the curves, where exemplars are kept.
                "exemplar": "latency_seconds_bucket" in expression,
            }
            for place, (expression, legend) in enumerate(panel.queries)
        ],
    }


if __name__ == "__main__":
    for one in DASHBOARDS:
        (FOLDER / f"{one}.json").write_text(rendered(one))
