"""``tierwise control``: stop answers, or climbing, on everything that is connected, and resume."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tierwise.cli.types import add_group, add_json

if TYPE_CHECKING:
    from tierwise.cli.types import Subparsers

SCOPES = ("all", "region", "model", "device")


def add_parser(subparsers: Subparsers) -> None:
    """Adds the commands."""
    group = add_group(subparsers, "control", "stop models, devices or regions, and resume them")
    text = "stop something: at once where it is connected, and before the first answer elsewhere"
    parser = group.add_parser("kill", help=text, description=f"{text.capitalize()}.")
    add_broker(parser)
    add_what(parser, required=True)
    parser.add_argument(
        "--mode",
        choices=("stop", "fallback"),
        required=True,
        help="stop: nobody answers; fallback: nothing climbs, and local models answer alone",
    )
    add_who(parser)
    parser.set_defaults(run=_run, what="kill")
    text = "take a stop back"
    parser = group.add_parser("resume", help=text, description=f"{text.capitalize()}.")
    add_broker(parser)
    add_what(parser, required=False)
    parser.add_argument(
        "--everything", action="store_true", help="take all stops of the region back"
    )
    add_who(parser)
    parser.set_defaults(run=_run, what="resume")
    text = "say what is stopped, and whether everything that is online knows"
    parser = group.add_parser("status", help=text, description=f"{text.capitalize()}.")
    add_broker(parser)
    parser.set_defaults(run=_run, what="status")


def add_broker(parser: argparse.ArgumentParser) -> None:
    """Where the regions are, and how long to wait for them."""
    parser.add_argument(
        "--region",
        action="append",
        metavar="REGION",
        help="region that is meant; gateways tell the regions below it, so that the cloud's region "
        "reaches all; may be repeated (default: all that the broker knows)",
    )
    parser.add_argument(
        "--broker",
        default="127.0.0.1:1883",
        metavar="HOST[:PORT]",
        help="broker of the regions (default: %(default)s)",
    )
    parser.add_argument(
        "--username",
        default="",
        metavar="NAME",
        help="at the broker; the password is TIERWISE_BROKER_PASSWORD in the environment",
    )
    for name, what in (
        ("ca", "who signed the broker's certificate; makes the connection TLS"),
        ("cert", "certificate to show"),
        ("key", "its private key"),
    ):
        parser.add_argument(f"--tls-{name}", type=Path, metavar="FILE", help=what)
    parser.add_argument(
        "--wait",
        type=float,
        default=2.0,
        metavar="SECONDS",
        help="how long to wait for everything that is online to say so (default: %(default)s)",
    )
    add_json(parser)


def add_what(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """What it is about."""
    parser.add_argument(
        "--scope", choices=SCOPES, required=required, help="what kind of thing it is"
    )
    parser.add_argument(
        "--target",
        default="",
        metavar="NAME",
        help="its name: a region, a model (or model@version), a device, gateway or cloud (or "
        "region/name); none for all",
    )


def add_who(parser: argparse.ArgumentParser) -> None:
    """Who says it, and why."""
    parser.add_argument(
        "--why", required=True, metavar="TEXT", help="the reason; every answer that it costs has it"
    )
    parser.add_argument(
        "--by", default="", metavar="NAME", help="who you are (default: your login)"
    )


def _run(arguments: argparse.Namespace) -> int:
    from tierwise.control_command import run  # noqa: PLC0415 - keeps --help quick

    return run(arguments)
