"""Options of commands that ask the operators' port of the cloud tier."""

from __future__ import annotations

import argparse
import os
from typing import Protocol


class Takes(Protocol):
    """A parser, or a group of options that exclude one another."""

    def add_argument(self, *names: str, default: str, metavar: str, help: str) -> object:  # noqa: A002 argparse's
        """One more option."""
        ...


def add_operator(parser: argparse.ArgumentParser, among: Takes | None = None) -> None:
    """Where the port is, and what opens it; ``among`` are other places to ask."""
    (among or parser).add_argument(
        "--operator",
        default=os.environ.get("TIERWISE_OPERATOR", ""),
        metavar="FILE",
        help="operator.json of the cloud tier's state folder: where its operators' port is, and "
        "what opens it (default: $TIERWISE_OPERATOR, else that of state/cloud or state/cloud-1)",
    )
    parser.add_argument(
        "--url", default="", metavar="URL", help="the port, if it is reached by another address"
    )
