"""``tierwise metrics``: who answers, what climbs, how long it takes, and what comes of it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tierwise.cli.operators import add_operator
from tierwise.cli.types import add_group

if TYPE_CHECKING:
    from tierwise.cli.types import Subparsers

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
# What decision logs can answer, too.
OF_LOGS = ("escalations", "latency")
_ONCE = (
    " Every request counts once. Without `tier` in --by, only the tier that the caller asked "
    "counts; with it, every tier's own decisions."
)
METRICS = {
    "escalations": (
        "rates of escalation, by tier, model, reason, region and more",
        f"{_ONCE} A failed escalation is one that no tier above answered.",
    ),
    "latency": ("latencies in ms, and the share of late answers", _ONCE),
    "accuracy": (
        "accuracy by feedback and by audits, with 95 %% intervals",
        " Audits say how often the top tier agrees, which is as good as the top tier.",
    ),
    "cost": ("cost, bytes sent up and time of models", _ONCE),
    "agreement": ("how often the top tier agrees with answers from below, by audits", ""),
    "rollouts": ("what each version does over time", _ONCE),
    "fleet": ("sites: when they were heard, what they run, what is missing of their decisions", ""),
}


def duration_s(text: str) -> float:
    """Seconds of ``90s``, ``15m``, ``1h`` or ``7d``.

    Raises:
        ArgumentTypeError: it is none of these.
    """
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhd])", text)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no duration: write a number and s, m, h or d, such as 90s, 15m, 1h, 7d"
        )
    return float(found[1]) * _UNITS_S[found[2]]


def duration_up_to(days: int) -> Callable[[str], float]:
    """Argparse's type of a duration that is no longer than so many days."""

    def seconds(text: str) -> float:
        found = duration_s(text)
        if not 0 < found <= days * _UNITS_S["d"]:
            raise argparse.ArgumentTypeError(f"{text!r} is not between 1s and {days}d")
        return found

    return seconds


def dimensions(text: str) -> tuple[str, ...]:
    """The names in a comma-separated list, of those that decision logs know.

    Raises:
        ArgumentTypeError: one is unknown.
    """
    # Reads SQLite's module only when the option is used.
    from runtime.adapters.decision_query import check_dimensions  # noqa: PLC0415

    try:
        return check_dimensions(name.strip() for name in text.split(",") if name.strip())
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_parser(subparsers: Subparsers) -> None:
    """Adds the commands."""
    group = add_group(subparsers, "metrics", "ask the cloud tier, or decision logs")
    for name, (text, more) in METRICS.items():
        parser = group.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}.{more}"
        )
        _add_where_to_ask(parser, of_logs=name in OF_LOGS)
        _add_question(parser)
        _add_form(parser)
        if name == "fleet":
            parser.add_argument(
                "--retired", action="store_true", help="also devices that are out of service"
            )
        parser.set_defaults(run=_run, metric=name)


def _not_of_logs(_: str) -> None:
    raise argparse.ArgumentTypeError(
        f"decision logs answer {' and '.join(OF_LOGS)} alone: ask the cloud tier (--operator FILE) "
        "or its database (--store URL)"
    )


def _add_where_to_ask(parser: argparse.ArgumentParser, *, of_logs: bool) -> None:
    place = parser.add_mutually_exclusive_group()
    add_operator(parser, place)
    place.add_argument(
        "--store", metavar="URL", help="ask a database of telemetry itself: a URL, or SQLite's file"
    )
    if of_logs:
        place.add_argument(
            "--state",
            type=Path,
            nargs="+",
            metavar="DIR",
            help="ask the decision logs in these folders, at any depth",
        )
    else:
        place.add_argument("--state", type=_not_of_logs, nargs="+", help=argparse.SUPPRESS)


def _add_question(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--since",
        metavar="TIME",
        help="only the last 90s, 15m, 1h, 7d, or from 2026-11-23T10:00:00Z on (default: 24h; of "
        "decision logs, everything)",
    )
    parser.add_argument("--until", metavar="TIME", help="only before this time (default: now)")
    parser.add_argument(
        "--by",
        metavar="NAMES",
        help="comma-separated: tier, model, version, reason (why the tier decided so), end_reason "
        "(how it ended), region, site, label, outcome, answered_by, policy, gear, route, "
        "guarantee, minute, hour, day; of decision logs also rule, but no label and no times",
    )
    parser.add_argument(
        "--where", metavar="CONDITIONS", help="such as region=eu,label=3|4,site!=cam-1"
    )
    parser.add_argument(
        "--order", metavar="FIELD", help="a field of the rows, with - for the largest first"
    )
    parser.add_argument(
        "--limit", type=int, default=1000, metavar="N", help="rows at most (default: %(default)s)"
    )


def _add_form(parser: argparse.ArgumentParser) -> None:
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="the rows as JSON; errors as JSON, too")
    form.add_argument("--csv", action="store_true", help="the rows as comma-separated values")
    form.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="a picture (.png, .svg, .pdf): lines over time, or bars (extra `plots`)",
    )
    parser.add_argument(
        "--value", metavar="FIELD", help="the field that --plot shows (default: the main one)"
    )


def _run(arguments: argparse.Namespace) -> int:
    from tierwise.metrics_command import run  # noqa: PLC0415 - keeps --help quick

    return run(arguments)
