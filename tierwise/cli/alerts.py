"""``tierwise alerts``: what is wrong, telling nobody of it for a while, and a test of the sinks."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tierwise.cli.metrics import duration_up_to
from tierwise.cli.rollout import add_service, add_who
from tierwise.cli.types import add_group

if TYPE_CHECKING:
    from tierwise.cli.types import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Adds the commands."""
    group = add_group(subparsers, "alerts", "what is wrong, and who is told")
    text = "list alerts and silences"
    parser = group.add_parser("list", help=text, description=f"{text.capitalize()}.")
    add_service(parser, _run, "list")
    text = "tell nobody of an alert for a while"
    parser = group.add_parser("silence", help=text, description=f"{text.capitalize()}.")
    parser.add_argument(
        "key", metavar="KEY", help="of the alert; with a * at its end, all that begin so"
    )
    parser.add_argument(
        "--for",
        dest="for_s",
        type=duration_up_to(30),
        required=True,
        metavar="DURATION",
        help="such as 4h; at most 30d",
    )
    add_who(parser)
    add_service(parser, _run, "silence")
    text = "send a marked test alert through every sink; exit code 1 where one has not taken it"
    parser = group.add_parser("test", help=text, description=f"{text.capitalize()}.")
    add_service(parser, _run, "test")


def _run(arguments: argparse.Namespace) -> int:
    from tierwise.alerts_command import run  # noqa: PLC0415 - keeps --help quick

    return run(arguments)
