"""The example of docs/explain.md tells the story that it promises."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

DOCUMENT = (Path(__file__).parents[2] / "docs" / "explain.md").read_text()


def _run(folder: Path, *words: str) -> str:
    ran = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.timeout(120)
def test_the_example_is_told_as_the_document_says(tmp_path: Path) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    (commands,) = re.findall(r"```bash\n(.*?)```", DOCUMENT, re.DOTALL)

    _run(tmp_path, "-c", script)
    in_words, as_json, asked = (
        _run(tmp_path, "-m", *shlex.split(command)) for command in commands.splitlines()
    )

    assert in_words.startswith("request picture-1\n\nedge (camera-1, fashion ")
    assert "In the end: " in in_words
    assert json.loads(as_json)["request_id"] == "picture-1"
    assert "Guarantee " in asked
