"""``tierwise fleet``: devices that are taken out of service for good, and those that are back."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tierwise.cli.rollout import add_service, add_who
from tierwise.cli.types import add_group

if TYPE_CHECKING:
    from tierwise.cli.types import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Adds the commands."""
    group = add_group(subparsers, "fleet", "devices that are out of service")
    text = "take a device or gateway out of service for good: nobody is told that it is silent"
    _add_change(group, "retire", text)
    _add_change(group, "restore", "have a device or gateway watched again")
    text = "list what is out of service, and what speaks all the same"
    parser = group.add_parser("list", help=text, description=f"{text.capitalize()}.")
    add_service(parser, _run, "list")


def _add_change(group: Subparsers, name: str, text: str) -> None:
    parser = group.add_parser(name, help=text, description=f"{text.capitalize()}.")
    parser.add_argument("device", metavar="DEVICE", help="its name (`site` in its settings)")
    parser.add_argument(
        "--region", default="", metavar="R", help="where several regions have one of that name"
    )
    add_who(parser)
    add_service(parser, _run, name)


def _run(arguments: argparse.Namespace) -> int:
    from tierwise.fleet_command import run  # noqa: PLC0415 - keeps --help quick

    return run(arguments)
