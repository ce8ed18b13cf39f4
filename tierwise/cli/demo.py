"""``tierwise demo``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tierwise import demo

if TYPE_CHECKING:
    from tierwise.cli.types import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Adds the command."""
    text = "run three tiers on this machine, cut the link, watch answers stay on time"
    parser = subparsers.add_parser("demo", help=text, description=f"{text.capitalize()}.")
    demo.add_arguments(parser)
    parser.set_defaults(run=demo.run)
