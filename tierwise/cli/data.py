"""``tierwise data``: datasets from what the tiers have recorded."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tierwise.cli.types import add_group, add_json, add_state

if TYPE_CHECKING:
    from tierwise.cli.types import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Adds the commands."""
    group = add_group(subparsers, "data", "make a dataset of what the tiers have recorded")
    text = "write hard examples, disagreements and labelled reviews into a folder"
    parser = group.add_parser("export", help=text, description=f"{text.capitalize()}.")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="a folder that is not there yet"
    )
    parser.add_argument(
        "--to", choices=("device", "region", "cloud"), default="cloud",
        help="how far the dataset will be taken: what may not go there is left out "
        "(default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--max-items", type=_above_0, default=10_000, metavar="N",
        help="examples at most (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--max-bytes", type=_above_0, default=1 << 30, metavar="N",
        help="bytes of inputs at most (default: %(default)s)",
    )  # fmt: skip
    add_state(parser, "review queues, decision logs and outboxes")
    add_json(parser)
    parser.set_defaults(run=_export)


def _above_0(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def _export(arguments: argparse.Namespace) -> int:
    from tierwise.data_command import run_export  # noqa: PLC0415 - keeps --help quick

    return run_export(arguments)
