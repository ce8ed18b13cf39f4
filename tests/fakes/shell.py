"""Lines of the documentation, typed into a shell."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

_RUN = rf"{shlex.quote(sys.executable)} -m \1 "


def environment(folder: Path) -> dict[str, str]:
    """That of a person who has nothing but Tierwise."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "HOME": str(folder),
    }


def runnable(line: str) -> str:
    """The line for a shell of this environment: no comment, and programs of this Python."""
    return re.sub(r"^(tierwise|pip) ", _RUN, line).partition("   #")[0]


def run_line(line: str, folder: Path, code: int = 0) -> str:
    """What it prints when it is typed in that folder."""
    done = subprocess.run(
        ["bash", "-c", runnable(line)],
        cwd=folder,
        env=environment(folder),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, (line, done.stdout, done.stderr)
    return done.stdout + done.stderr


def form(text: str) -> list[str]:
    """The words of each line in their order; any number is 0."""
    lines = (" ".join(line.split()) for line in text.splitlines())
    return [re.sub(r"(?:(?<=\s)-)?[\d.]+", "0", line) for line in lines]
