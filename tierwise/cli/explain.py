"""``tierwise explain``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tierwise import explain_command
from tierwise.cli.operators import add_operator
from tierwise.cli.types import add_json, add_state

if TYPE_CHECKING:
    from tierwise.cli.types import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Adds the command."""
    text = "say why each tier did what it did with a request"
    parser = subparsers.add_parser(
        "explain",
        help=text,
        description=f"{text.capitalize()}, in plain words, from the decision logs of all tiers "
        "below a folder. Where none of them has the request, the cloud tier is asked, to which all "
        "tiers send a sample of their decisions.",
    )
    parser.add_argument(
        "request_id",
        metavar="REQUEST_ID",
        help="the id of a request, as its answer and the logs have it; `latest`: the newest one",
    )
    add_state(parser)
    parser.add_argument(
        "--policy",
        type=Path,
        metavar="FILE",
        help="the policy file that was followed: then it is told, too, what would have had to "
        "differ (default: the bundled policy, where that was followed)",
    )
    add_operator(parser)
    add_json(parser, "the story")
    parser.set_defaults(run=explain_command.run)
