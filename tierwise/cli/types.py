"""Names for argparse's types, and the arguments that several commands share."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # argparse has no public name for what add_subparsers() returns.
    Subparsers = argparse._SubParsersAction[Any]  # noqa: SLF001

TIERS = ("edge", "gateway", "cloud")


def add_json(parser: argparse.ArgumentParser, what: str = "the result") -> None:
    """``--json``: the result on standard output, errors on standard error."""
    parser.add_argument("--json", action="store_true", help=f"{what} as JSON; errors, too")


def add_state(parser: argparse.ArgumentParser, what: str = "decision logs") -> None:
    """``--state``: the folder whose decision logs, or other files of tiers, a command reads."""
    parser.add_argument(
        "--state",
        type=Path,
        default=Path("state"),
        metavar="DIR",
        help=f"folder with {what}, at any depth (default: %(default)s)",
    )


def add_group(subparsers: Subparsers, name: str, text: str) -> Subparsers:
    """A command that has commands of its own."""
    parser = subparsers.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    group: Subparsers = parser.add_subparsers(
        title="commands", dest=f"{name}_command", metavar="COMMAND", required=True
    )
    return group


def http_url(text: str) -> str:
    """Argparse's type of a URL.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not text.startswith(("http://", "https://")) or not text.partition("://")[2]:
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is no http:// or https:// URL")
    return text


def positive(text: str) -> float:
    """A number above 0.

    Raises:
        ArgumentTypeError: another one, or none.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return number


def share(text: str) -> float:
    """A number from 0 to 1.

    Raises:
        ArgumentTypeError: another one, or none.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to 1")
    return number
