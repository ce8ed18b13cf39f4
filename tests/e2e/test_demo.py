"""``tierwise demo`` as a newcomer runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from fakes.brokers import launch
from fakes.waiting import eventually_sync
from runtime.adapters.broker import Preference

pytestmark = pytest.mark.timeout(120)
METRICS = (sys.executable, "-m", "tierwise", "metrics", "escalations", "--json")


def _demo(state: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tierwise", "demo", "--state", str(state), *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "HOME": str(state), "COLUMNS": "100"},
    )


def _offspring(state: Path) -> list[psutil.Process]:
    """Processes whose command line names the state folder of this demo."""
    return [
        process
        for process in psutil.process_iter(["cmdline", "status"])
        if process.info["status"] != psutil.STATUS_ZOMBIE
        and any(str(state) in part for part in process.info["cmdline"] or ())
    ]


@pytest.mark.parametrize("broker", ["embedded", "mosquitto"])
def test_the_demo_sums_up_as_json_and_leaves_nothing_running(
    tmp_path: Path, broker: Preference
) -> None:
    launch(tmp_path / "probe", broker).stop()

    demo = _demo(tmp_path, "--json", "--requests", "300", "--rate", "60", "--broker", broker)
    output, errors = demo.communicate(timeout=100)

    assert demo.returncode == 0, errors
    summary = json.loads(output)
    assert summary["requests"] == 300
    assert summary["failed"] == 0
    assert sum(summary["answered_by"].values()) == 300
    assert set(summary["answered_by"]) == {"edge", "regional", "cloud"}
    assert set(summary["accuracy"]) == {
        "hierarchy",
        "hierarchy_outside_outage",
        "edge_only",
        "cloud_only",
    }
    assert summary["outage"]["answered"] == summary["outage"]["requests"] > 0
    assert 0 < summary["uplink_bytes"] < summary["uplink_bytes_if_all_cloud"]
    assert summary["latency_ms"]["p50"] <= summary["latency_ms"]["p99"]
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/#token=[\w-]{43}", summary["dashboard"])
    assert _offspring(tmp_path) == []


def test_ctrl_c_stops_every_process(tmp_path: Path) -> None:
    demo = _demo(tmp_path, "--requests", "5000")
    eventually_sync(lambda: len(_offspring(tmp_path)) >= 7, 60)

    demo.send_signal(signal.SIGINT)
    _, errors = demo.communicate(timeout=30)

    assert demo.returncode == 130
    assert "Traceback" not in errors
    eventually_sync(lambda: not _offspring(tmp_path), 10)


def test_a_killed_demo_leaves_no_orphans(tmp_path: Path) -> None:
    demo = _demo(tmp_path, "--requests", "5000")
    eventually_sync(lambda: len(_offspring(tmp_path)) >= 7, 60)

    demo.kill()
    demo.communicate(timeout=30)

    eventually_sync(lambda: not _offspring(tmp_path), 20)


def test_the_kept_state_answers_questions_afterwards(tmp_path: Path) -> None:
    demo = _demo(tmp_path, "--json", "--requests", "120", "--agents", "2")
    output, errors = demo.communicate(timeout=100)
    assert demo.returncode == 0, errors
    summary = json.loads(output)

    asked = subprocess.run(
        [*METRICS, "--state", summary["state"], "--by", "answered_by"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    rows = json.loads(asked.stdout)["rows"]
    counted = {row["answered_by"]: row["requests"] for row in rows}
    assert counted == {tier: n for tier, n in summary["answered_by"].items() if n}
