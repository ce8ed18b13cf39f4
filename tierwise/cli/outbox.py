"""``tierwise outbox``: what waits to be sent, and what has arrived."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tierwise.cli.types import add_group, add_json, add_state

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierwise.cli.types import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Adds the commands."""
    group = add_group(subparsers, "outbox", "see and manage what waits to be sent")
    _add(group, "list", "list what waits, what is parked, and how much was given up", _list)
    parser = _add(group, "show", "show one item", _show)
    parser.add_argument("id", metavar="ID", help="the item")
    parser = _add(group, "retry", "send parked items again", _retry)
    parser.add_argument("id", metavar="ID", nargs="*", help="the items; none: all that are parked")
    parser = _add(group, "drop", "give items up for good", _drop)
    parser.add_argument("id", metavar="ID", nargs="+", help="the items")
    parser = _add(group, "received", "list what other tiers have sent for keeping", _received)
    parser.add_argument("--kind", default="", help="only this kind, such as feedback or metrics")
    parser.add_argument(
        "--limit", type=int, default=100, metavar="N", help="the newest N (default: %(default)s)"
    )


def _add(
    group: Subparsers, name: str, text: str, run: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = group.add_parser(
        name, help=text, description=f"{text.capitalize()}."
    )
    add_state(parser, "outboxes")
    add_json(parser)
    parser.set_defaults(run=run)
    return parser


def _list(arguments: argparse.Namespace) -> int:
    from tierwise.outbox_command import run_list  # noqa: PLC0415 - keeps --help quick

    return run_list(arguments)


def _show(arguments: argparse.Namespace) -> int:
    from tierwise.outbox_command import run_show  # noqa: PLC0415 - keeps --help quick

    return run_show(arguments)


def _retry(arguments: argparse.Namespace) -> int:
    from tierwise.outbox_command import run_retry  # noqa: PLC0415 - keeps --help quick

    return run_retry(arguments)


def _drop(arguments: argparse.Namespace) -> int:
    from tierwise.outbox_command import run_drop  # noqa: PLC0415 - keeps --help quick

    return run_drop(arguments)


def _received(arguments: argparse.Namespace) -> int:
    from tierwise.outbox_command import run_received  # noqa: PLC0415 - keeps --help quick

    return run_received(arguments)
