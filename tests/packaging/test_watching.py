"""Rules, alerts and dashboards: their tools take them, and they name metrics that exist."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from golden.metrics_document import described

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = sorted((DEPLOY / "prometheus" / "rules").glob("*.yaml"))
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
# What Prometheus itself has.
OTHERS = {"up", "ALERTS"}
pytestmark = pytest.mark.timeout(60)


def promtool(*words: object) -> str:
    program = shutil.which("promtool")
    if program is None:
        assert os.environ.get("CI") != "true", "promtool is missing: apt-get install prometheus"
        pytest.skip("there is no promtool: apt-get install prometheus")
    done = subprocess.run([program, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rules() -> list[dict[str, Any]]:
    return [
        rule
        for path in RULES
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]


def expressions() -> Iterator[tuple[str, str]]:
    """Every expression of a dashboard, with where it is; what a variable stands for filled in."""
    for path in DASHBOARDS:
        dashboard = json.loads(path.read_text())
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                found = re.fullmatch(r"label_values\((.*), \w+\)", variable["query"]["query"])
                assert found is not None
                yield path.stem, found[1]
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                yield f"{path.stem}: {panel['title']}", target["expr"].replace("$instance", ".*")


def known() -> set[str]:
    """The names of all series: those of tiers, and those that rules record."""
    names = {rule["record"] for rule in rules() if "record" in rule} | OTHERS
    for one in described():
        suffixes = ("_bucket", "_sum", "_count") if one.kind == "histogram" else ("",)
        names |= {f"tierwise_{tier}_{one.name}{end}" for tier in one.tiers for end in suffixes}
    return names


def unknown(expression: str, names: set[str]) -> list[str]:
    """What an expression names and nobody has; a pattern has to match something."""
    patterns = re.findall(r'__name__=~"([^"]+)"', expression)
    bad = [one for one in patterns if not any(re.fullmatch(one, name) for name in names)]
    rest = re.sub(r'"[^"]*"', "", expression)
    plain = re.findall(r"\b(?:instance:)?tierwise_[\w:]+", rest)
    return bad + [one for one in plain if one not in names]


def test_prometheus_takes_the_configurations_and_the_rules() -> None:
    for name in ("prometheus.yaml", "kubernetes.yaml"):
        said = promtool("check", "config", DEPLOY / "prometheus" / name)
        assert f"SUCCESS: {len(RULES)} rule files found" in said


def test_alerts_fire_and_recover_as_their_tests_say() -> None:
    said = promtool("test", "rules", DEPLOY / "prometheus" / "tests" / "alerts.yaml")

    assert "SUCCESS" in said


def test_every_alert_is_seen_to_fire_and_says_what_to_do() -> None:
    alerts = {rule["alert"]: rule for rule in rules() if "alert" in rule}
    tests = yaml.safe_load((DEPLOY / "prometheus" / "tests" / "alerts.yaml").read_text())["tests"]
    seen = {
        case["alertname"]
        for test in tests
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }

    assert seen == set(alerts)
    for rule in alerts.values():
        assert rule["labels"]["severity"] in {"page", "ticket", "info"}
        assert {"summary", "remedy"} <= set(rule["annotations"])


def test_rules_name_metrics_that_exist() -> None:
    names = known()
    missing = {rule["expr"]: unknown(rule["expr"], names) for rule in rules()}

    assert not {expression: bad for expression, bad in missing.items() if bad}
    assert unknown("rate(tierwise_edge_requests_nobody_has_total[5m])", names)
    assert unknown('{__name__=~"tierwise_(edge|cloud)_nothing"}', names)


def test_prometheus_takes_every_expression_of_the_dashboards(tmp_path: Path) -> None:
    found = [
        {"record": f"dashboard:expression:{number}", "expr": expression, "labels": {"in": place}}
        for number, (place, expression) in enumerate(expressions())
    ]
    assert len(DASHBOARDS) == 5
    assert len(found) >= 50
    generated = tmp_path / "expressions.yaml"
    generated.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": found}]}))

    promtool("check", "rules", generated)


def test_dashboards_name_metrics_that_exist() -> None:
    names = known()
    missing = {place: unknown(expression, names) for place, expression in expressions()}

    assert not {place: bad for place, bad in missing.items() if bad}


def test_the_dashboards_are_those_of_their_script(tmp_path: Path) -> None:
    copy = shutil.copytree(DEPLOY / "grafana", tmp_path / "grafana")
    for path in (copy / "dashboards").iterdir():
        path.unlink()
    subprocess.run([sys.executable, copy / "dashboards.py"], check=True)

    written = {path.name: path.read_text() for path in (copy / "dashboards").iterdir()}
    assert written == {path.name: path.read_text() for path in DASHBOARDS}
    uids = [json.loads(text)["uid"] for text in written.values()]
    assert len(set(uids)) == len(uids)


def test_grafana_and_kubernetes_get_all_of_them() -> None:
    provided = (DEPLOY / "grafana/provisioning/dashboards/tierwise.yaml").read_text()
    (provider,) = yaml.safe_load(provided)["providers"]
    compose = (DEPLOY / "compose" / "compose.yaml").read_text()
    (dashboards,) = yaml.safe_load((DEPLOY / "grafana/kustomization.yaml").read_text())[
        "configMapGenerator"
    ]
    _, ruled = yaml.safe_load((DEPLOY / "prometheus/kustomization.yaml").read_text())[
        "configMapGenerator"
    ]

    assert f"../grafana/dashboards:{provider['options']['path']}:ro" in compose
    assert "../prometheus/rules:/etc/prometheus/rules:ro" in compose
    assert sorted(dashboards["files"]) == [f"dashboards/{path.name}" for path in DASHBOARDS]
    assert sorted(ruled["files"]) == [f"rules/{path.name}" for path in RULES]
