"""``tierwise audit reconcile``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tierwise import audit_commands
from tierwise.cli.types import add_group, add_json

if TYPE_CHECKING:
    from tierwise.cli.types import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Adds the command."""
    group = add_group(subparsers, "audit", "check that nothing was lost")
    text = "say whether the counters and logs of all tiers add up"
    parser = group.add_parser(
        "reconcile",
        help=text,
        description=f"{text.capitalize()}: every request received has ended in exactly one way, "
        "and what was sent up was received above or waited for in vain. Exit code 1 when "
        "something does not add up.",
    )
    parser.add_argument(
        "--url",
        action="append",
        default=[],
        metavar="URL",
        help="where a tier serves its metrics, such as http://127.0.0.1:8470; all tiers, please",
    )
    parser.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        help="folder with the decision logs of the tiers, at any depth",
    )
    add_json(parser, "the findings")
    parser.set_defaults(run=audit_commands.run)
