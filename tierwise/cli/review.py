"""``tierwise review``: the answers that wait for a person."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tierwise.cli.operators import add_operator
from tierwise.cli.types import add_group, add_json, http_url

if TYPE_CHECKING:
    from tierwise.cli.types import Subparsers

STATES = ("waiting", "assigned", "labelled", "agreed", "disputed", "expired")
_HERE = "folder with review queues, at any depth, instead of the cloud tier's port"


def add_parser(subparsers: Subparsers) -> None:
    """Adds the commands."""
    group = add_group(subparsers, "review", "see which answers wait for a person, and label them")
    text = "list what waits: at the cloud tier's port, or in queues of a folder"
    parser = _command(group, "list", text, has_state=True)
    parser.add_argument(
        "--in",
        dest="states",
        action="append",
        choices=STATES,
        metavar="STATE",
        help=f"only those in this state, may be repeated: {', '.join(STATES)}",
    )
    text = "show one item: its inputs, and what the tiers answered"
    parser = _command(group, "show", text, has_state=True)
    parser.add_argument("id", metavar="ID", help="the item; in a folder also its request's id")
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help="write the inputs to an .npz, by name"
    )
    _add_who(parser)
    text = "label an item; without one, whatever is most urgent, one after the other by single keys"
    parser = _command(group, "label", text)
    parser.add_argument("id", metavar="ID", nargs="?", default="", help="the item")
    parser.add_argument("label", metavar="LABEL", nargs="?", help="number or name of its label")
    parser.add_argument(
        "--agent",
        type=http_url,
        metavar="URL",
        help="label a request (ID) at the agent that has answered it: for what may not leave it",
    )
    _add_who(parser)
    parser = _command(group, "skip", "say that you cannot label an item")
    parser.add_argument("id", metavar="ID", help="the item")
    parser.add_argument("--why", default="", metavar="TEXT", help="what was wrong with it")
    _add_who(parser)
    parser = _command(group, "assign", "give an item to somebody, for ten minutes")
    parser.add_argument("id", metavar="ID", help="the item")
    _add_who(parser)
    _command(group, "agreement", "say how far people agree (Cohen's kappa of each pair)")
    text = "write what is labelled as examples to train, fit and calibrate on"
    parser = _command(group, "export", text)
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help=".npz with inputs and labels"
    )
    parser.add_argument(
        "--model", default="", metavar="NAME", help="only items of this model (default: all)"
    )
    parser.add_argument(
        "--disputed",
        action="store_true",
        help="also items that people disagree on, with the label that most have given",
    )
    text = "fit temperature and weights of an ensemble to what is labelled"
    parser = group.add_parser("weights", help=text, description=f"{text.capitalize()}.")
    parser.add_argument(
        "--model", type=Path, required=True, metavar="FOLDER", help="folder of the model"
    )
    parser.add_argument(
        "--data", required=True, metavar="FILE", help="what `tierwise review export` has written"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="write the model with them, as a new version"
    )
    add_json(parser)
    parser.set_defaults(run=_weights)


def _command(
    group: Subparsers, name: str, text: str, *, has_state: bool = False
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = group.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}."
    )
    if has_state:
        parser.add_argument("--state", type=Path, metavar="DIR", help=f"{_HERE} (default: state)")
    add_operator(parser)
    add_json(parser)
    parser.set_defaults(run=_run, what=name)
    return parser


def _add_who(parser: argparse.ArgumentParser) -> None:
    # `--by`, as all other commands have it.
    parser.add_argument(
        "--by", "--who", dest="who", default="", metavar="NAME",
        help="who you are (default: your login)",
    )  # fmt: skip


def _run(arguments: argparse.Namespace) -> int:
    is_local = arguments.what in ("list", "show") and (
        arguments.state is not None or not (arguments.operator or arguments.url)
    )
    if is_local:
        from tierwise.review_command import run_list, run_show  # noqa: PLC0415 - quick help

        arguments.state = arguments.state or Path("state")
        return run_list(arguments) if arguments.what == "list" else run_show(arguments)
    from tierwise.review_operator import run  # noqa: PLC0415 - keeps --help quick

    return run(arguments)


def _weights(arguments: argparse.Namespace) -> int:
    from tierwise.review_weights import run_weights  # noqa: PLC0415 - keeps --help quick

    return run_weights(arguments)
