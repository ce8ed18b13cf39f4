"""docs/asyncapi.json: what goes over MQTT, as it is in the code, and whole in itself."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "asyncapi.json").read_text()
DESCRIPTION: dict[str, Any] = json.loads(TEXT)
# Filters and what only speaks to itself.
NO_CHANNELS = {"any_requests_shared", "up_shared", "agent_sync", "gateway_sync"}


def test_it_is_what_the_code_says() -> None:
    written = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "asyncapi.py")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert written.stdout == TEXT, "make golden"


def test_every_topic_is_a_channel() -> None:
    source = (ROOT / "runtime" / "topics.py").read_text()
    functions = re.findall(r"^def (\w+)\([^)]*\) -> str:\n((?:    .*\n|\n)+)", source, re.MULTILINE)
    spelled = {name for name, body in functions if "{ROOT}" in body}

    assert len(spelled) > 10
    assert spelled - NO_CHANNELS <= set(DESCRIPTION["channels"])
    for channel in DESCRIPTION["channels"].values():
        assert set(channel["parameters"]) == set(re.findall(r"{(\w+)}", channel["address"]))


def test_every_reference_leads_somewhere() -> None:
    references = set(re.findall(r'"\$ref": "#/([^"]+)"', TEXT))
    assert references
    for reference in references:
        found: Any = DESCRIPTION
        for part in reference.split("/"):
            found = found[part]
