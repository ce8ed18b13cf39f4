"""``tierwise agent run``, ``tierwise gateway run``, ``tierwise cloud run``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from runtime.command_line import Program, add_run_arguments, run_program
from tierwise.cli.types import add_group

if TYPE_CHECKING:
    from tierwise.cli.types import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Adds one command for each tier."""
    for name, text, load in (
        ("agent", "the edge agent of a device", _agent),
        ("gateway", "the regional gateway", _gateway),
        ("cloud", "the cloud tier", _cloud),
    ):
        group = add_group(subparsers, name, text)
        run_text = "run it until SIGTERM or Ctrl-C; logs go to standard error"
        parser = group.add_parser("run", help=run_text, description=f"{run_text.capitalize()}.")
        add_run_arguments(parser)
        parser.set_defaults(run=_runner(load))


def _runner(load: Callable[[], Program]) -> Callable[[argparse.Namespace], int]:
    def run(arguments: argparse.Namespace) -> int:
        return run_program(load(), arguments)

    return run


def _agent() -> Program:
    from edge_agent.command import PROGRAM  # noqa: PLC0415 - only the tier that runs

    return PROGRAM


def _gateway() -> Program:
    from regional_gateway.command import PROGRAM  # noqa: PLC0415 - only the tier that runs

    return PROGRAM


def _cloud() -> Program:
    from cloud_tier.command import PROGRAM  # noqa: PLC0415 - only the tier that runs

    return PROGRAM
