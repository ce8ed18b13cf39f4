"""What to try after the demo, as commands that work where they are printed."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

WHY = "to see what it does"


def program(started_as: str, found: str | None) -> str:
    """How this program is called from a shell.

    ``started_as`` is its ``argv[0]``; ``found`` is the ``tierwise`` of the search path, if any.
    """
    if Path(started_as).name != "tierwise":
        return f"{shlex.quote(sys.executable)} -m tierwise"
    if found is not None and os.path.realpath(found) == os.path.realpath(started_as):
        return "tierwise"
    # As in an environment that nobody has activated, which is what `make demo` leaves.
    return shlex.quote(started_as)


def called() -> str:
    """The same of this process."""
    return program(sys.argv[0], shutil.which("tierwise"))


def afterwards(tierwise: str, folder: Path) -> list[str]:
    """Commands for the logs of a demo that has ended."""
    where = shlex.quote(str(folder))
    return [
        f"{tierwise} metrics escalations --state {where} --by tier,reason",
        f"{tierwise} explain latest --state {where}",
        f"{tierwise} policy show",
        f"{tierwise} demo --keep",
        f"{tierwise} doctor",
    ]


def meanwhile(
    tierwise: str, folder: Path, operator_file: Path, agent_base: str, broker: str
) -> list[str]:
    """Commands for a demo that is still running, for another terminal."""
    operator = f"--operator {shlex.quote(str(operator_file))}"
    # Logs have a decision at once, the cloud tier's telemetry a minute later.
    logs = f"--state {shlex.quote(str(folder))}"
    device = f"--broker {broker} --scope device --target agent-1"
    return [
        f"{tierwise} infer --url {agent_base} --index 42 --explain",
        f"{tierwise} metrics escalations {logs} --by tier,reason",
        f"{tierwise} metrics fleet {operator}",
        f"{tierwise} review list {operator}",
        f"{tierwise} control kill {device} --mode stop --why {shlex.quote(WHY)}",
        f"{tierwise} control resume {device} --why {shlex.quote(WHY)}",
    ]
