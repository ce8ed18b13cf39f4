"""``tierwise experiment``: compare versions of a model on devices, side by side."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tierwise.cli.metrics import duration_s
from tierwise.cli.rollout import add_service, add_who
from tierwise.cli.types import add_group

if TYPE_CHECKING:
    from tierwise.cli.types import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Adds the commands."""
    group = add_group(subparsers, "experiment", "compare versions on devices, side by side")
    _add_start(group)
    _add(group, "status", "say what is known so far, with intervals that always hold")
    add_who(_add(group, "stop", "end it; every device goes back to what it had"))
    parser = _add(group, "promote", "end it, and draft a rollout of the version that wins")
    parser.add_argument("--arm", default="", metavar="NAME", help="(default: the one that wins)")
    add_who(parser)
    parser = group.add_parser("list", help="list all", description="List all experiments.")
    add_service(parser, _run, "list")


def _add_start(group: Subparsers) -> None:
    text = "start an experiment: devices that have the control's version are divided"
    parser = group.add_parser("start", help=text, description=f"{text.capitalize()}.")
    parser.add_argument("--model", required=True, metavar="NAME", help="its name in the catalogue")
    parser.add_argument(
        "--control", required=True, metavar="N[:WEIGHT]", help="the version that devices have"
    )
    parser.add_argument(
        "--arm", required=True, action="append", metavar="N[:WEIGHT]",
        help="a version to try, with its share beside the others' (default: 1); may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--split-by", default="", metavar="KEY",
        help="divide the requests of every device by the value of this context key, such as user; "
        "one --arm only (default: whole devices are divided)",
    )  # fmt: skip
    parser.add_argument(
        "--primary", default="escalations", metavar="METRIC",
        help="what decides: errors, escalations, 'slow answers' or disagreement "
        "(default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--guardrail", action="append", metavar="METRIC:SHARE",
        help="what may be worse by so much at most; may be repeated (default: errors:0.01)",
    )  # fmt: skip
    parser.add_argument(
        "--observe", type=duration_s, default=86_400.0, metavar="TIME",
        help="how long each device is observed, such as 90m or 1d (default: 24h)",
    )  # fmt: skip
    parser.add_argument(
        "--min-devices", type=int, default=30, metavar="N",
        help="observed devices in each arm before anything is said (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--id", metavar="NAME", help="(default: made from the model)")
    add_who(parser)
    add_service(parser, _run, "start")


def _add(group: Subparsers, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = group.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}."
    )
    parser.add_argument("id", metavar="ID", help="`tierwise experiment list` has all")
    add_service(parser, _run, name)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    from tierwise.experiment_command import run  # noqa: PLC0415 - keeps --help quick

    return run(arguments)
