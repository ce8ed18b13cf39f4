"""What the README tells to run, runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tierwise.cli.parser import build_parser

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_python_example_answers_without_anything_around_it(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)

    ran = subprocess.run(
        [sys.executable, "-c", example],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split()[0] in ("answered", "degraded")


def _commands() -> list[str]:
    """Every whole ``tierwise`` command line of the README."""
    found = re.findall(r"^(?:.*&& )?(?:\.venv/bin/)?(tierwise [^\n`]+)$", README, re.MULTILINE)
    found += re.findall(r"`(tierwise [^`]+)`", README)
    return sorted(
        {command for command in found if "|" not in command and "models list" not in command}
    )


@pytest.mark.parametrize("command", _commands())
def test_every_command_is_understood(command: str) -> None:
    arguments = build_parser().parse_args(command.split()[1:])

    assert arguments.run


def test_every_file_that_is_linked_exists() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]

    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
