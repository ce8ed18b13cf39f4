"""``tierwise place``: which model should run where, and how many machines a fleet needs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tierwise.cli.metrics import duration_s
from tierwise.cli.types import add_json, http_url, positive

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
    _add_fleet(group)
    _add_check(group)


def _add_fleet(group: Subparsers) -> None:
    text = "forecast the load and pack replicas on machines, so that failures do no harm"
    parser = group.add_parser(
        "fleet",
        help=text,
        description=f"{text.capitalize()}. Exit code 1 when the machines are too few.",
    )
    parser.add_argument(
        "fleet", nargs="?", type=Path, metavar="FLEET.toml", help="models, machines, failures"
    )
    parser.add_argument("--example", action="store_true", help="print a commented FLEET.toml")
    parser.add_argument(
        "--exact",
        choices=("auto", "yes", "no"),
        default="auto",
        help="also find the fewest machines, with the extra `place` (default: where installed)",
    )
    parser.add_argument(
        "--seconds",
        type=positive,
        default=60.0,
        metavar="S",
        help="for the exact answer at most (default: %(default)s)",
    )
    add_json(parser)
    parser.set_defaults(run=_fleet)


def _add_check(group: Subparsers) -> None:
    text = "compare a placement with what then happened"
    parser = group.add_parser(
        "check",
        help=text,
        description=f"{text.capitalize()}. Exit code 1 when a figure is outside of its interval.",
    )
    parser.add_argument(
        "placed", type=Path, metavar="PLACED.json", help="what `place CASE.toml --json` printed"
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--state", type=Path, metavar="DIR", help="folder with decision logs")
    source.add_argument(
        "--url",
        type=http_url,
        action="append",
        metavar="URL",
        help="where an agent serves its metrics; may be repeated",
    )
    parser.add_argument(
        "--since",
        type=duration_s,
        metavar="DURATION",
        help="of the logs, only the last 90s, 15m, 1h, 7d (default: all)",
    )
    add_json(parser)
    parser.set_defaults(run=_check)


def _case(arguments: argparse.Namespace) -> int:
    from tierwise.place_command import run_case  # noqa: PLC0415 - keeps --help quick

    return run_case(arguments)


def _fleet(arguments: argparse.Namespace) -> int:
    from tierwise.place_fleet_command import run_fleet  # noqa: PLC0415

    arguments.exact = "" if arguments.exact == "no" else arguments.exact
    return run_fleet(arguments)


def _check(arguments: argparse.Namespace) -> int:
    from tierwise.place_check_command import run_check  # noqa: PLC0415

    return run_check(arguments)
