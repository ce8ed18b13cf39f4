"""The command line that the three tiers share: ``python -m edge_agent --config FILE``.

The front door mounts the same options under ``tierwise agent run`` and so on.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.errors import SettingsError

if TYPE_CHECKING:
    # Only for the checker: `--help` loads neither asyncio nor numpy.
    import asyncio
    from collections.abc import Awaitable, Callable

    import msgspec

    from runtime.messages import Tier

    Serve = Callable[[Any, asyncio.Event], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Program:
    """One tier as a program.

    ``id_key`` is the top-level setting with the id of this process. ``load_serve`` imports the
    tier, so that ``--help`` and unusable settings need not wait for it.
    """

    name: str
    tier: Tier
    settings_type: type[msgspec.Struct]
    id_key: str
    load_serve: Callable[[], Serve]

    @property
    def summary(self) -> str:
        """What it is, in a line."""
        return (self.settings_type.__doc__ or "").partition("\n")[0]


def add_settings_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that say where settings come from."""
    parser.add_argument(
        "--config", "--file", dest="config", type=Path, metavar="FILE", help="settings as TOML"
    )
    parser.add_argument(
        "--set",
        dest="flags",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="one setting, over file and environment; may be repeated",
    )


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """All options of a tier."""
    add_settings_arguments(parser)
    parser.add_argument(
        "--die-with-parent",
        dest="parent_pid",
        nargs="?",
        type=int,
        const=0,
        metavar="PID",
        help="stop when the parent process (PID, else the one at the start) ends; Linux only",
    )


def run_program(program: Program, arguments: argparse.Namespace) -> int:
    """Runs a tier with parsed options until it is told to stop; returns the exit code."""
    # Here, so that `--help` stays quick.
    from runtime.logs import configure_logs  # noqa: PLC0415
    from runtime.settings import load  # noqa: PLC0415
    from runtime.supervise import exit_code, report, run_service  # noqa: PLC0415

    try:
        settings = load(
            program.settings_type,
            file=arguments.config,
            environment=os.environ,
            flags=arguments.flags,
        ).settings
    except SettingsError as error:
        report(error)
        return exit_code(error)
    shown: Any = settings
    configure_logs(
        shown.log,
        tier=getattr(settings, "tier", program.tier.value),
        site=getattr(settings, program.id_key),
        region=shown.region,
    )
    serve = program.load_serve()
    parent_pid = os.getppid() if arguments.parent_pid == 0 else arguments.parent_pid
    return run_service(lambda stop: serve(settings, stop), parent_pid=parent_pid)


def main(program: Program, arguments: Sequence[str] | None = None) -> int:
    """``python -m <tier>``."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {program.name}", description=program.summary, allow_abbrev=False
    )
    add_run_arguments(parser)
    return run_program(program, parser.parse_args(arguments))
