"""A small case on disk, and `tierwise place` as it is called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tierwise.cli import main

Output = pytest.CaptureFixture[str]

CASE = """
name = "small"
[use]
num_sites = 10
devices_per_site = 2
requests_per_s = 2.0
request_bytes = 1000
budget_ms = 100
min_accuracy = {accuracy}
max_leaving_share = 0.9
{use}
[[models]]
name = "edge"
accuracy = 0.8
size_bytes = 50000
memory_bytes = 1e8
latency = {{camera = {{p50_ms = 1, p99_ms = 2}}}}
[[models]]
name = "cloud"
accuracy = 0.95
size_bytes = 5e6
memory_bytes = 2e8
latency = {{cloud = {{p50_ms = 5, p99_ms = 9}}}}
[[places]]
name = "camera"
kind = "device"
profile = "raspberry-pi-5"
[[places]]
name = "cloud"
kind = "cloud"
profile = "cloud-cpu"
price_per_hour = 0.4
[[links]]
lower = "camera"
upper = "cloud"
rtt_ms = 20
bandwidth_mbit_s = 50
price_per_gb = 0.05
"""


def case(folder: Path, *, accuracy: object = 0.85, use: str = "", **replaced: str) -> Path:
    path = folder / "case.toml"
    text = CASE.format(accuracy=accuracy, use=use)
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return path


def said(capsys: Output, *words: object, code: int = 0) -> Any:
    assert main([*map(str, words), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def refused(capsys: Output, *words: object) -> tuple[int, str]:
    code = main([*map(str, words)])
    captured = capsys.readouterr()
    assert captured.out == ""
    return code, captured.err
