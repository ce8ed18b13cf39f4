"""``tierwise demo``: three tiers on this machine answer real pictures, and survive a cut link."""

from __future__ import annotations

import argparse
from collections.abc import Callable

DEFAULT_REQUESTS = 1500
DEFAULT_AGENTS = 3
DEFAULT_BUDGET_MS = 100.0
DEFAULT_RATE = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the demo."""
    parser.add_argument(
        "--requests",
        type=_count(1, 100_000),
        default=DEFAULT_REQUESTS,
        metavar="N",
        help="pictures to ask about (default %(default)s)",
    )
    parser.add_argument(
        "--agents",
        type=_count(1, 32),
        default=DEFAULT_AGENTS,
        metavar="N",
        help="edge agents (default %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=1, metavar="N", help="of the order of pictures (default 1)"
    )
    parser.add_argument(
        "--budget-ms",
        type=_positive,
        default=DEFAULT_BUDGET_MS,
        metavar="MS",
        help="latency budget of every request (default %(default)g)",
    )
    parser.add_argument(
        "--rate",
        type=_positive,
        default=DEFAULT_RATE,
        metavar="PER_S",
        help="requests a second, all agents together (default %(default)g)",
    )
    parser.add_argument(
        "--rollout",
        action="store_true",
        help="roll a good model out to 16 agents, then a quietly worse one, and watch the gate",
    )
    parser.add_argument("--state", metavar="DIR", help="folder for logs and decisions")
    parser.add_argument(
        "--broker",
        choices=("auto", "mosquitto", "embedded"),
        default="auto",
        help="which MQTT broker to start (default: mosquitto where there is one)",
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave the tiers running until Ctrl-C; print the URLs"
    )
    parser.add_argument(
        "--json", action="store_true", help="the summary as one JSON object on standard output"
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the demo; returns the exit code."""
    # The view needs the extra `demo`; the options above must be readable without it.
    from tierwise.demo.main import main  # noqa: PLC0415

    return main(arguments)


def _count(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{value} is not between {least} and {most}")
        return value

    return number


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:  # noqa: PLR2004 any larger is a slip of the finger
        raise argparse.ArgumentTypeError(f"{text} is not a usable number")
    return value
