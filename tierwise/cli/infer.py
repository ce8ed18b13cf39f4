"""``tierwise infer``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tierwise import infer_command

if TYPE_CHECKING:
    from tierwise.cli.types import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Adds the command."""
    text = "ask a running tier about an input"
    parser = subparsers.add_parser("infer", help=text, description=f"{text.capitalize()}.")
    infer_command.add_arguments(parser)
    parser.set_defaults(run=infer_command.run)
