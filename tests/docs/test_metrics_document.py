"""The fleet of docs/metrics.md is made, and every command prints what the document shows."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cloud_tier.settings import CloudSettings
from cloud_tier.telemetry.asking import DIMENSIONS
from runtime.settings import load
from tierwise.cli.parser import build_parser

DOCUMENT = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
SCRIPT, _ = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
(SETTINGS,) = re.findall(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)
SESSIONS = [
    session
    for block in re.findall(r"```bash\n(.*?)```", DOCUMENT, re.DOTALL)
    for session in re.findall(r"^\$ ([^\n]+)\n((?:(?!\$ )[^\n]+\n)*)", block, re.MULTILINE)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fleet")
    ran(folder, "-c", SCRIPT)
    return folder


def ran(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("command", "shown"), SESSIONS)
def test_a_question_is_answered_as_it_is_shown(folder: Path, command: str, shown: str) -> None:
    assert shown
    assert ran(folder, "-m", *shlex.split(command)) == shown


def test_every_metric_is_asked() -> None:
    assert {command.split()[2] for command, _ in SESSIONS} == set(DIMENSIONS)


def test_every_command_is_understood() -> None:
    commands = re.findall(r"^\| `(tierwise [^`]+)`", DOCUMENT, re.MULTILINE)

    assert len(commands) == 3
    for command in commands:
        assert build_parser().parse_args(shlex.split(command)[1:]).run, command


def test_the_settings_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "cloud.toml"
    path.write_text(f'cloud = "cloud-1"\n{SETTINGS}')

    own = load(CloudSettings, file=path, environment={}, flags={}).settings.telemetry

    assert own.speakers == {"gw-eu-1": ("eu",), "gw-eu-2": ("eu",), "gw-us": ("us",)}
