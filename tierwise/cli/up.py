"""``tierwise up``: the command line of it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tierwise.cli.types import add_json, positive

if TYPE_CHECKING:
    from tierwise.cli.types import Subparsers

DEFAULT_PORT = 8470


def add_parser(subparsers: Subparsers) -> None:
    """Adds the command."""
    text = "start broker and tiers on this machine from model folders"
    parser = subparsers.add_parser("up", help=text, description=f"{text.capitalize()}.")
    parser.add_argument("--edge", type=Path, required=True, metavar="DIR", help="model folder")
    parser.add_argument("--regional", type=Path, metavar="DIR", help="that of a gateway, if any")
    parser.add_argument("--cloud", type=Path, metavar="DIR", help="that of the cloud tier, if any")
    parser.add_argument(
        "--policy", type=Path, metavar="FILE", help="(default: the thresholds in the manifests)"
    )
    parser.add_argument(
        "--broker", choices=("auto", "mosquitto", "embedded"), default="auto",
        help="which MQTT broker to start (default: mosquitto where there is one)",
    )  # fmt: skip
    parser.add_argument(
        "--port", type=port, default=DEFAULT_PORT, metavar="N",
        help="of the agent on 127.0.0.1; 0: any (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--budget-ms", type=positive, default=200.0, metavar="MS",
        help="of requests that do not say theirs (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--state", type=Path, default=Path("state"), metavar="DIR",
        help="folder for logs, decisions and settings (default: %(default)s)",
    )  # fmt: skip
    add_json(parser, "URLs")
    parser.set_defaults(run=_run)


def port(text: str) -> int:
    """A TCP port, or 0.

    Raises:
        ArgumentTypeError: it is none.
    """
    if not text.isdecimal() or int(text) > 65535:  # noqa: PLR2004 - the last port
        raise argparse.ArgumentTypeError(f"{text!r} is no port of 0 to 65535")
    return int(text)


def _run(arguments: argparse.Namespace) -> int:
    from tierwise.up.run import run_up  # noqa: PLC0415 - keeps --help quick

    return run_up(arguments)
