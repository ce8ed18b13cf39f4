"""What the READMEs of the examples tell to run, and what they link to, is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tierwise.cli.parser import build_parser

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "docs" / "examples.md", *sorted(ROOT.glob("examples/*/README.md"))]
MAX_EXAMPLE_BYTES = 300_000
NAMES = [path.parent.name for path in DOCUMENTS]


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_file_that_is_linked_exists(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text())

    files = [link for link in links if "://" not in link]
    assert files
    assert [link for link in files if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_command_is_understood(document: Path) -> None:
    text = document.read_text()
    commands = [
        *re.findall(r"^(tierwise [^\n`]+)$", text, re.MULTILINE),
        *re.findall(r"`(tierwise [^`]+)`", text),
    ]

    assert commands
    for command in commands:
        assert build_parser().parse_args(shlex.split(command)[1:]).run, command


@pytest.mark.parametrize("example", DOCUMENTS[1:], ids=NAMES[1:])
def test_an_example_is_small_and_whole(example: Path) -> None:
    files = [
        path
        for path in example.parent.rglob("*")
        if path.is_file()
        and not {"build", "__pycache__"} & set(path.relative_to(example.parent).parts)
    ]

    names = {str(path.relative_to(example.parent)) for path in files}
    assert {"prepare.py", "train.py", "run.py", "run.sh", "settings/edge.toml"} <= names
    assert sum(path.stat().st_size for path in files) < MAX_EXAMPLE_BYTES
