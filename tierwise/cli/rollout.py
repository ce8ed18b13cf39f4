"""``tierwise rollout``: bring a version of a model to devices in stages, watch it, stop it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tierwise.cli.operators import add_operator
from tierwise.cli.types import add_group, add_json

if TYPE_CHECKING:
    from tierwise.cli.types import Subparsers

COMMANDS = {
    "approve": "begin a rollout that somebody else has drafted",
    "pause": "tell no further device; what is on its way goes on and stays watched",
    "resume": "go on after a pause",
    "abort": "end it; devices that run the version keep it",
    "rollback": "end it; every device goes back to what it had before",
    "promote": "go on where you were asked, although the gate has too little to go by",
}


def add_parser(subparsers: Subparsers) -> None:
    """Adds the commands."""
    group = add_group(subparsers, "rollout", "bring versions of models to devices, in stages")
    _add_start(group)
    text = "say how a rollout stands, and which devices ever ran the version"
    parser = _add(group, "status", text)
    parser.add_argument("--devices", action="store_true", help="with every device")
    text = "follow a rollout until it has ended; exit code 0 if it is done"
    _add(group, "watch", text)
    for name, text in COMMANDS.items():
        add_who(_add(group, name, text))
    parser = _add(group, "history", "list who did what, when and why, devices among them")
    parser.add_argument(
        "--after", type=int, default=0, metavar="SEQ", help="only what came after this line"
    )
    parser = group.add_parser("list", help="list all rollouts", description="List all rollouts.")
    add_service(parser, _run, "list")


def _add_start(group: Subparsers) -> None:
    text = "start a rollout of a published version"
    parser = group.add_parser("start", help=text, description=f"{text.capitalize()}.")
    parser.add_argument("--model", required=True, metavar="NAME", help="its name in the catalogue")
    parser.add_argument("--version", type=int, default=0, metavar="N", help="(default: the newest)")
    parser.add_argument("--region", metavar="NAME", help="a version that is for this region only")
    parser.add_argument("--id", metavar="NAME", help="(default: made from model and version)")
    parser.add_argument(
        "--group", metavar="NAME", help="models that never change at once (default: the cascade)"
    )
    parser.add_argument(
        "--plan", type=Path, metavar="FILE", help="TOML file with the settings that are to differ"
    )
    parser.add_argument(
        "--shares", metavar="LIST", help="shares of the fleet after each stage, such as 0.01,0.1,1"
    )
    parser.add_argument(
        "--no-shadow", action="store_true", help="do not run it beside the old version first"
    )
    parser.add_argument(
        "--rollback", choices=("auto", "manual"),
        help="what follows a breach: devices go back, or an operator decides (default: auto)",
    )  # fmt: skip
    parser.add_argument("--draft", action="store_true", help="wait for somebody else to approve")
    parser.add_argument(
        "--again", action="store_true", help="also where a device has given this version up before"
    )
    add_who(parser)
    add_service(parser, _run, "start")


def _add(group: Subparsers, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = group.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}."
    )
    parser.add_argument("id", metavar="ID", help="of the rollout; `tierwise rollout list` has all")
    add_service(parser, _run, name)
    return parser


def add_service(
    parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int], what: str
) -> None:
    """Where the cloud tier is, and what is run."""
    add_operator(parser)
    add_json(parser)
    parser.set_defaults(run=run, what=what)


def add_who(parser: argparse.ArgumentParser) -> None:
    """Who asks, and why."""
    parser.add_argument("--why", required=True, metavar="TEXT", help="the reason, for the history")
    parser.add_argument(
        "--by", default="", metavar="NAME", help="who you are (default: your login)"
    )


def _run(arguments: argparse.Namespace) -> int:
    from tierwise.rollout_command import run  # noqa: PLC0415 - keeps --help quick

    return run(arguments)
