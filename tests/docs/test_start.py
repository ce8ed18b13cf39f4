"""start.md is walked through by a shell, line by line as it stands, but for the ports."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from fakes.ports import free_port
from runtime.adapters.broker import find_mosquitto

DOCUMENT = Path(__file__).parents[2] / "docs" / "start.md"
PORTS = ("1883", "8470", "8471", "8472", "8480")


def commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    return "".join(blocks).splitlines()


def ended(shell: subprocess.Popen[str]) -> None:
    """Ends what a shell that did not come to its end has left running."""
    try:
        children = psutil.Process(shell.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return
    shell.kill()
    for child in children:
        child.kill()


@pytest.mark.timeout(240)
def test_from_nothing_to_two_devices_that_answer(tmp_path: Path) -> None:
    if find_mosquitto() is None and not os.environ.get("CI"):
        pytest.skip("there is no mosquitto")
    lines = commands()
    text = "\n".join(f"echo '###{number}'\n{line}" for number, line in enumerate(lines))
    for port in PORTS:
        text = text.replace(port, str(free_port()))
    # Of a default that somebody on this machine may use as well.
    text = text.replace("tierwise cloud run", "tierwise cloud run --set operators.port=0")
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "tierwise"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tierwise "$@"\n')
    program.chmod(0o755)
    shell = subprocess.Popen(
        # With job control, as at a prompt: %3 is the third that was started.
        ["bash", "-m", "-u", "-c", text],
        cwd=tmp_path,
        env={
            "PATH": f"{programs}:/usr/local/sbin:/usr/sbin:/usr/bin:/bin",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "HOME": str(tmp_path),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said, _ = shell.communicate(timeout=200)
    finally:
        ended(shell)
    parts = re.split(r"^###\d+\n", said, flags=re.MULTILINE)[1:]
    logs = {path.name: path.read_text()[-2000:] for path in tmp_path.glob("*.log")}
    assert len(parts) == len(lines), (said, logs)

    def told(words: str) -> list[str]:
        return [part for line, part in zip(lines, parts, strict=True) if words in line]

    assert [part.split("\n")[0] for part in told(" health ")] == ["ready"] * 4, (said, logs)
    easy, hard = told("8470 --index 0")[0], told("--explain")[0]
    assert "answered by edge (confident)" in easy, said
    assert re.search(r"answered by (regional|cloud)", hard), said
    assert "cloud" in hard
    assert "edge" in told("metrics escalations")[0]
    assert "asked" in told("explain latest")[0]
    stopped, again = told("8480 --index 0")
    assert "the lens is dirty" in stopped
    assert "answered" in again
    assert "degraded" in told("8470 --index 42")[0]
    assert not [one for one in logs.values() if "Traceback" in one]
