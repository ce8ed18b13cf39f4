"""Before an installation fails half-way, one line says what to do."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SHELL = shutil.which("sh") or "/bin/sh"
FINE = "#!/bin/sh\nexit 0\n"
# Answers like an interpreter that fails at what the pattern names.
BROKEN = """\
#!/bin/sh
case "$*" in
*{pattern}*) exit 1 ;;
*--version*) echo Python 3.9.2 ;;
esac
"""


def preflight(repository: Path, folder: Path, **tools: str) -> subprocess.CompletedProcess[str]:
    for name, script in tools.items():
        tool = folder / name
        tool.write_text(script)
        tool.chmod(0o755)
    return subprocess.run(
        [SHELL, str(repository / "scripts" / "preflight.sh")],
        env={"PATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )


def test_where_all_is_there_it_says_nothing(repository: Path, tmp_path: Path) -> None:
    done = preflight(repository, tmp_path, python3=FINE, make=FINE)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("tools", "remedy"),
    [
        ({"make": FINE}, "apt-get install python3 python3-venv"),
        (
            {"make": FINE, "python3": BROKEN.format(pattern="version_info")},
            "install Python 3.11 or newer and name it: make demo PYTHON=python3.12",
        ),
        (
            {"make": FINE, "python3": BROKEN.format(pattern="ensurepip")},
            "apt-get install python3-venv",
        ),
        ({"python3": FINE}, "apt-get install make"),
    ],
)
def test_the_first_line_is_the_remedy(
    repository: Path, tmp_path: Path, tools: dict[str, str], remedy: str
) -> None:
    done = preflight(repository, tmp_path, **tools)

    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == remedy


def test_make_help_lists_every_target(repository: Path) -> None:
    text = (repository / "Makefile").read_text(encoding="utf-8")
    targets = text.partition(".PHONY:")[2].partition("\n")[0].split()

    shown = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    ).stdout

    assert [line.split()[1] for line in shown.splitlines()] == targets
