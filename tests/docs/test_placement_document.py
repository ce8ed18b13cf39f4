"""The worked example of docs/placement.md: its commands run, and print what it shows."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.placing import log_of

DOCUMENT = (Path(__file__).parents[2] / "docs" / "placement.md").read_text()
LINES = [
    line for block in re.findall(r"```(?:ba)?sh\n(.*?)```", DOCUMENT, re.DOTALL)
    for line in block.splitlines()
]  # fmt: skip
SHOWN = re.findall(r"```text\n(.*?)```", DOCUMENT, re.DOTALL)
(HISTORY,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)


def ran(folder: Path, line: str, code: int = 0) -> tuple[str, str]:
    """A line of the document as a shell has it."""
    tierwise = f"{sys.executable} -m tierwise "
    done = subprocess.run(
        ["sh", "-c", re.sub(r"^tierwise ", tierwise, line)],
        cwd=folder,
        env={
            "XDG_DATA_HOME": str(folder),
            "PYTHONPATH": ":".join(sys.path),
            "PATH": "/usr/bin:/bin",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


def line_with(words: str) -> str:
    (found,) = [one for one in LINES if words in one]
    return str(found)


@pytest.mark.timeout(300)
def test_a_case_is_decided_refused_and_checked_as_shown(tmp_path: Path) -> None:
    ran(tmp_path, line_with("place --example"))
    case = tmp_path / "case.toml"
    # What the models say is asked once; the document asks at every command.
    ran(tmp_path, "tierwise policy collect --data bundled:calibration --output known.npz")
    case.write_text(case.read_text().replace('"bundled:calibration"', '"known.npz"'))

    placed, _ = ran(tmp_path, line_with("--write-fit"))
    ran(tmp_path, line_with("sed "))
    _, impossible = ran(tmp_path, line_with("place strict.toml"), code=1)
    ran(tmp_path, line_with("place case.toml --json"))
    log_of(json.loads((tmp_path / "placed.json").read_text()), tmp_path / "state")
    checked, _ = ran(tmp_path, line_with("place check"))

    # Figures depend a little on the processor that the models ran on.
    assert placed.splitlines()[:3] == SHOWN[0].splitlines()[:3]
    assert _notes(placed) == _notes(SHOWN[0])
    assert (tmp_path / "fit.toml").exists()
    assert impossible.splitlines()[-2][:60] == SHOWN[1].splitlines()[0][:60]
    assert [line.split()[:3] for line in checked.splitlines()][:2] == [
        line.split()[:3] for line in SHOWN[2].splitlines()
    ][:2]


def _notes(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("note: ")]


@pytest.mark.timeout(120)
def test_a_fleet_is_packed_as_shown(tmp_path: Path) -> None:
    ran(tmp_path, line_with("fleet --example"))
    (tmp_path / "history.py").write_text(HISTORY)
    ran(tmp_path, f"{sys.executable} history.py")

    told, _ = ran(tmp_path, line_with("place fleet fleet.toml"))

    assert told == SHOWN[3]
