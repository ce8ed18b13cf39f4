"""gateway-containers.md and deployment.md: containers are prepared, and compose takes each line.

What needs an engine is understood by the real program, with services that exist, and not done.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from fakes.deploying import docker_compose, run_there, stand_in, unprepared
from fakes.documents import ROOT, SHELL, blocks_of, lines_of

# Where each subcommand has the names of services.
SERVICES = {"up": slice(5, None), "exec": slice(5, 6), "logs": slice(-1, None)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkout with `docker compose`, and nothing prepared."""
    unprepared(tmp_path)
    stand_in(tmp_path, "docker", f'shift; exec {docker_compose()} "$@"')
    return tmp_path


@pytest.mark.timeout(60)
@pytest.mark.parametrize("page", ["gateway-containers.md", "deployment.md"])
def test_containers_are_prepared_and_commands_are_taken(page: str, folder: Path) -> None:
    blocks = blocks_of((ROOT / "docs" / page).read_text(), page)
    lines = [line for one in blocks if one.language in SHELL for line in lines_of(one)]
    prepare = "sh deploy/compose/prepare.sh"
    compose = [shlex.split(line) for line in lines if line.startswith("docker compose ")]

    prepared = run_there(folder, *shlex.split(prepare))
    assert prepare in lines
    assert prepared.returncode == 0, prepared.stderr
    known = run_there(folder, *compose[0][:4], "config", "--services").stdout.split()
    for words in compose:
        command = words[4]
        named = [one for one in words[SERVICES.get(command, slice(0))] if not one.startswith("-")]
        asked = words if command == "config" else [*words[:5], "--help", *words[5:]]
        done = run_there(folder, *asked)
        assert done.returncode == 0, done.stderr
        assert set(named) <= set(known), words


def test_an_option_that_compose_does_not_have_is_found(folder: Path) -> None:
    words = ["docker", "compose", "-f", "deploy/compose/compose.yaml", "up", "--help", "--buid"]

    assert "unknown flag: --buid" in run_there(folder, *words).stderr
