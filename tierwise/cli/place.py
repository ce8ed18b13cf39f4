"""``tierwise place``: which model should run where, and how many machines a fleet needs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tierwise.cli.types import add_json

if TYPE_CHECKING:
    from tierwise.cli.types import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Adds the commands; ``place CASE.toml`` is short for ``place case CASE.toml``."""
    text = "say which model should run where, before anything is installed"
    place = subparsers.add_parser(
        "place", help=text, description=f"{text[0].upper()}{text[1:]}.", default_command="case"
    )
    group = place.add_subparsers(
        title="commands", dest="place_command", metavar="COMMAND", required=True
    )
    text = "the cheapest placement that keeps all limits (`place CASE.toml` for short)"
    parser = group.add_parser("case", help=text, description=f"{text.capitalize()}.")
    parser.add_argument("case", nargs="?", type=Path, metavar="CASE.toml", help="what is asked for")
    parser.add_argument("--example", action="store_true", help="print a commented CASE.toml")
    parser.add_argument(
        "--explain", action="store_true", help="say of every placement why it is not recommended"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the alternatives")
    parser.add_argument(
        "--write-fit",
        type=Path,
        metavar="FIT.toml",
        help="write what `tierwise policy collect|fit --placement` take",
    )
    add_json(parser)
    parser.set_defaults(run=_case)


def _case(arguments: argparse.Namespace) -> int:
    from tierwise.place_command import run_case  # noqa: PLC0415 - keeps --help quick

    return run_case(arguments)
