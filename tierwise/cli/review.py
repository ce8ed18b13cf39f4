"""``tierwise review``: the answers that wait for a person."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tierwise.cli.types import add_group, add_json, add_state

if TYPE_CHECKING:
    from tierwise.cli.types import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Adds the commands."""
    group = add_group(subparsers, "review", "see which answers wait for a person")
    text = "list what waits, oldest first, with its age against the promised time"
    parser = group.add_parser("list", help=text, description=f"{text.capitalize()}.")
    add_state(parser, "review queues")
    add_json(parser)
    parser.set_defaults(run=_list)
    text = "show one item: what the tiers answered, and its inputs"
    parser = group.add_parser("show", help=text, description=f"{text.capitalize()}.")
    parser.add_argument("id", metavar="ID", help="the item, or the id of its request")
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help="write the inputs to an .npz, by name"
    )
    add_state(parser, "review queues")
    add_json(parser)
    parser.set_defaults(run=_show)


def _list(arguments: argparse.Namespace) -> int:
    from tierwise.review_command import run_list  # noqa: PLC0415 - keeps --help quick

    return run_list(arguments)


def _show(arguments: argparse.Namespace) -> int:
    from tierwise.review_command import run_show  # noqa: PLC0415 - keeps --help quick

    return run_show(arguments)
