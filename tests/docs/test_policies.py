"""The commands of the documentation: all are understood, and those of policies.md do their work."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tierwise.cli.parser import build_parser

DOCS = Path(__file__).parents[2] / "docs"
# Parts of the data that are small enough for a test, in the order of the document.
SMALLER = {
    "bundled:calibration": "0:400",
    "0:2500": "0:300",
    "2500:": "2500:2600",
}


def _commands(document: Path) -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", document.read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    # What the shell does with output, and in the background, is no word of the command.
    commands = [line.partition(" > ")[0] for line in lines if line.startswith("tierwise ")]
    return [shlex.split(command)[1:] for command in commands]


@pytest.mark.parametrize(
    ("name", "words"),
    [(path.name, words) for path in sorted(DOCS.glob("*.md")) for words in _commands(path)],
)
def test_every_command_is_understood(name: str, words: list[str]) -> None:
    assert build_parser().parse_args(words).run, name


def _smaller(words: list[str]) -> list[str]:
    if words[:2] != ["policy", "collect"]:
        return words
    if "--part" not in words:
        return [*words, "--part", SMALLER["bundled:calibration"]]
    return [SMALLER.get(word, word) for word in words]


@pytest.mark.timeout(180)
def test_from_labelled_examples_to_a_policy_as_the_document_has_it(tmp_path: Path) -> None:
    first = DOCS / "policies.md"
    commands = _commands(first)[:5]

    said = []
    for words in commands:
        ran = subprocess.run(
            [sys.executable, "-m", "tierwise", *_smaller(words)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        said.append(ran.stdout)

    assert {path.name for path in tmp_path.iterdir()} == {
        "train.npz", "cal.npz", "fresh.npz", "policy.json",
    }  # fmt: skip
    assert "expectation" in said[2]
    assert "fresh" in said[4] or "bundled" in said[4]
