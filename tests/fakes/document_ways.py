"""In which way each page of the documentation is looked at, where that is not the same for all."""

from __future__ import annotations

# Pages whose commands, or examples, are run by another test, against real programs.
WALKED = {
    "README.md": "docs/test_readme.py",
    "docs/alerts.md": "docs/test_running_hierarchy.py",
    "docs/corrections.md": "docs/test_running_hierarchy.py",
    "docs/deployment.md": "docs/test_running_hierarchy.py",
    "docs/examples.md": "docs/test_pages_alone.py",
    "docs/experiments.md": "docs/test_fleet_pages.py",
    "docs/explain.md": "docs/test_explain.py",
    "docs/hardware.md": "docs/test_hardware_document.py",
    "docs/hierarchies.md": "docs/test_running_hierarchy.py",
    "docs/jetson.md": "docs/test_device_guides.py",
    "docs/metrics.md": "docs/test_metrics_document.py",
    "docs/model-store.md": "docs/test_pages_alone.py",
    "docs/overrides.md": "docs/test_running_hierarchy.py",
    "docs/own-model.md": "docs/test_own_model.py",
    "docs/placement.md": "docs/test_placement_document.py",
    "docs/policies.md": "docs/test_policies.py",
    "docs/publishing.md": "docs/test_pages_alone.py",
    "docs/raspberry-pi.md": "docs/test_device_guides.py",
    "docs/retraining.md": "docs/test_pages_alone.py",
    "docs/review.md": "docs/test_running_hierarchy.py",
    "docs/rollouts.md": "docs/test_fleet_pages.py",
    "docs/smaller-models.md": "docs/test_pages_alone.py",
    "docs/start.md": "docs/test_start.py",
    "docs/stop.md": "docs/test_running_hierarchy.py",
    "docs/tracing.md": "docs/test_tracing_page.py",
    "docs/updates.md": "docs/test_updates_document.py",
    "docs/wire-protocol.md": "docs/test_wire_protocol.py",
    "examples/sensor-activity/README.md": "examples/test_sensor_activity.py",
    "examples/text-language/README.md": "examples/test_text_language.py",
}
# Pages whose commands are understood and not run, and why.
UNDERSTOOD = {
    "docs/dashboard.md": "another machine; the dashboard itself: tests/e2e/test_dashboard.py",
    "docs/gateway-containers.md": "an engine; the rest is run: tests/docs/test_container_pages.py",
}
# Programs beside ``tierwise``, and why their words are not looked at any further.
OTHERS = {
    ".": "of the shell",
    "apt-get": "installs packages of the system",
    "awk": "of every system",
    "cd": "of the shell",
    "chmod": "of every system",
    "chown": "of every system",
    "cp": "of every system; what it copies is there",
    "curl": "its addresses are looked at",
    "docker": "needs an engine; the files it is given are there",
    "head": "of every system",
    "kill": "of the shell",
    "kubectl": "needs a cluster; the folder it is given is there",
    "mosquitto": "the broker",
    "mosquitto_passwd": "makes passwords of the broker",
    "openssl": "makes keys and secrets",
    "pip": "installs packages; the extras are there",
    "python": "of an environment on a device",
    "python3": "makes an environment",
    "sed": "of every system",
    "sh": "the script is there",
    "sha256sum": "of every system",
    "ssh": "needs another machine",
    "systemctl": "needs systemd; the unit is there",
    "tail": "of every system",
    "wait": "of the shell",
}
# What a JSON block is part of, by page, in the order of the page.
JSON_FORMS = {
    "docs/alerts.md": ["webhook"],
    "docs/engines.md": ["manifest", "manifest"],
    "docs/own-model.md": ["member", "steps", "tasks", "outputs of a member"],
}
# Examples that another test runs, because they need something running or are part of more.
RUN_ELSEWHERE = {
    ("README.md", "edge_agent"): "docs/test_readme.py",
    ("docs/experiments.md", "arm_of"): "docs/test_rollouts_document.py",
    ("docs/explain.md", "edge_agent"): "docs/test_explain.py",
    ("docs/metrics.md", "TelemetryStore"): "docs/test_metrics_document.py",
    ("docs/placement.md", "regional.csv"): "docs/test_placement_document.py",
    ("docs/metrics.md", "MetricsClient.of"): "docs/test_running_hierarchy.py",
    ("docs/wire-protocol.md", "paho.mqtt"): "docs/test_wire_protocol.py",
}
# What programs have shown: the test that compares it, or the source of its words.
DIAGRAM = "a drawing"
SHOWN = {
    "README.md": [DIAGRAM, "tierwise/demo", "tierwise/demo"],
    "docs/concepts.md": [DIAGRAM, DIAGRAM],
    "docs/explain.md": ["runtime/core"],
    "docs/hardware.md": ["docs/test_hardware_document.py"] * 5,
    "docs/hierarchies.md": [DIAGRAM],
    "docs/jetson.md": ["docs/test_device_guides.py"] * 3,
    "docs/placement.md": ["docs/test_placement_document.py"] * 4,
    "docs/raspberry-pi.md": ["docs/test_device_guides.py"] * 2,
    "docs/smaller-models.md": ["docs/test_pages_alone.py"] * 3,
    "examples/sensor-activity/README.md": ["tierwise/demo/trial.py"],
    "examples/text-language/README.md": ["tierwise/demo/trial.py"],
}
