"""``tierwise override``: what operators want otherwise of answers, for a while."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tierwise.cli.control import SCOPES, add_broker, add_who
from tierwise.cli.metrics import duration_up_to
from tierwise.cli.types import add_group, share

if TYPE_CHECKING:
    from tierwise.cli.types import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Adds the commands."""
    group = add_group(subparsers, "override", "pin answers, force tiers, ban or change labels")
    parser = _add(group, "pin", "answer with a label, before any model is asked")
    parser.add_argument("--answer", required=True, metavar="LABEL", help="what is answered")
    _add_context(parser)
    parser = _add(group, "tier", "have a tier answer, whatever the others say")
    parser.add_argument("--tier", required=True, metavar="TIER", help="edge, regional or cloud")
    _add_context(parser)
    _add_labels(_add(group, "ban", "never answer these labels; the next best one is"))
    parser = _add(group, "boost", "make labels likelier, or less likely")
    _add_labels(parser)
    parser.add_argument(
        "--amount", type=float, required=True, metavar="LOG_ODDS",
        help="added to their log-odds: 1 makes an even chance 73 %%, -1 makes it 27 %%",
    )  # fmt: skip
    parser = _add(group, "withhold", "give no answer where it would be one of these labels")
    _add_labels(parser, below=True)
    parser = _add(group, "replace", "answer another label instead of these")
    _add_labels(parser, below=True)
    parser.add_argument("--answer", required=True, metavar="LABEL", help="the other label")
    text = "take overrides back before their time"
    parser = group.add_parser("remove", help=text, description=f"{text.capitalize()}.")
    parser.add_argument("id", nargs="+", metavar="ID", help="which; `tierwise override list`")
    add_broker(parser)
    add_who(parser)
    parser.set_defaults(run=_run, what="remove")
    text = "say what is overridden, and whether everything that is online knows"
    parser = group.add_parser("list", help=text, description=f"{text.capitalize()}.")
    add_broker(parser)
    parser.set_defaults(run=_run, what="list")


def _add(group: Subparsers, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = group.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}."
    )
    parser.add_argument("--id", default="", metavar="NAME", help="(default: made up)")
    parser.add_argument(
        "--scope", choices=SCOPES, default="all", help="where it holds (default: %(default)s)"
    )
    parser.add_argument(
        "--target", default="", metavar="NAME",
        help="a region, a model (or model@version), or a device, gateway or cloud",
    )  # fmt: skip
    parser.add_argument(
        "--for", dest="lasts_s", type=duration_up_to(31), required=True, metavar="DURATION",
        help="when it ends by itself, such as 30m, 8h or 7d; at most 31d",
    )  # fmt: skip
    add_broker(parser)
    add_who(parser)
    parser.set_defaults(
        run=_run, what=name, answer="", tier="", label=[], amount=0.0, below=1.0, context=[]
    )
    return parser


def _add_context(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--context", action="append", default=[], metavar="KEY=VALUE",
        help="only for requests whose context has this value; may be repeated",
    )  # fmt: skip


def _add_labels(parser: argparse.ArgumentParser, *, below: bool = False) -> None:
    parser.add_argument(
        "--label", action="append", required=True, metavar="LABEL", help="may be repeated"
    )
    if below:
        parser.add_argument(
            "--below", type=share, default=1.0, metavar="CONFIDENCE",
            help="only where the answer is less sure than that (default: always)",
        )  # fmt: skip


def _run(arguments: argparse.Namespace) -> int:
    from tierwise.override_command import run  # noqa: PLC0415 - keeps --help quick

    return run(arguments)
