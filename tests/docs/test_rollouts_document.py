"""The picture of docs/rollouts.md is the table of transitions; all commands are told."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cloud_tier.rollouts.requests import settings_of
from cloud_tier.settings import CloudSettings
from runtime.core.experiment import Outcome
from runtime.core.rollout_states import STAGES, TRANSITIONS
from runtime.settings import load
from tierwise.cli.rollout import COMMANDS as ROLLOUT_COMMANDS

DOCS = Path(__file__).parents[2] / "docs"
DOCUMENT = (DOCS / "rollouts.md").read_text()
PICTURE = (DOCS / "pictures" / "rollout-phases.svg").read_text()
EXPERIMENTS = (DOCS / "experiments.md").read_text()
RUNNING = {stage.value for stage in STAGES}


def _expanded(name: str) -> set[str]:
    return RUNNING if name == "running" else {name}


def test_the_picture_is_drawn_from_the_table_of_today() -> None:
    written = subprocess.run(
        [sys.executable, str(DOCS.parent / "scripts" / "rollout_picture.py")],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )

    assert "(pictures/rollout-phases.svg)" in DOCUMENT
    assert written.stdout == PICTURE, "make golden"


def test_the_picture_shows_every_transition_and_no_other() -> None:
    drawn = {
        (one, cause, other)
        for was, to, cause in re.findall(r"<title>(\w+) --&gt; (\w+): (\w+)</title>", PICTURE)
        for one in _expanded(was)
        for other in _expanded(to)
    }

    assert drawn == {
        (was.value, cause.value, to.value)
        for (was, cause), targets in TRANSITIONS.items()
        for to in targets
    }


COMMANDS = re.findall(r"^(?:\$ |\| `)(tierwise rollout [^\n`]+)", DOCUMENT, re.MULTILINE)


def test_every_command_is_there() -> None:
    named = {command.split()[2] for command in COMMANDS}

    assert named == {*ROLLOUT_COMMANDS, "start", "status", "watch", "history", "list"}


def test_every_outcome_of_an_experiment_is_explained() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", EXPERIMENTS, re.MULTILINE)) == set(Outcome)


def test_the_settings_and_the_plan_are_taken(tmp_path: Path) -> None:
    settings, plan = re.findall(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)
    file = tmp_path / "cloud.toml"
    file.write_text(f'cloud = "c"\n{settings}')

    loaded, _ = load(CloudSettings, file=file, environment={}, flags=[])

    assert loaded.rollouts.key_file.endswith("rollout-5b1e07aa93c4d2f6.pem")
    assert settings_of(tomllib.loads(plan)).shares == (0.1, 0.4, 1.0)


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", EXPERIMENTS, re.DOTALL))
def test_every_example_of_experiments_runs(block: str) -> None:
    exec(compile(block, "docs/experiments.md", "exec"), {})  # noqa: S102 - our own document
