"""``tierwise policy``: thresholds with a guarantee, from labelled data."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tierwise import policy_commands
from tierwise.cli.metrics import duration_s
from tierwise.cli.types import add_group, add_json, add_state

if TYPE_CHECKING:
    from tierwise.cli.types import Subparsers

DEFAULT_PRICES = {"edge": 0.0, "regional": 0.3, "cloud": 1.0}


def pair(text: str) -> tuple[str, str]:
    """Name and value of ``name=value``.

    Raises:
        ArgumentTypeError: there is no ``=`` or nothing on one side of it.
    """
    name, _, value = text.partition("=")
    if not name or not value:
        raise argparse.ArgumentTypeError(f"{text!r} is no NAME=VALUE, such as edge=0.1")
    return name, value


def price(text: str) -> tuple[str, float]:
    """Tier and price of ``tier=number``.

    Raises:
        ArgumentTypeError: not of that form.
    """
    name, value = pair(text)
    return name, number(value)


def number(text: str) -> float:
    """A finite number, at least 0.

    Raises:
        ArgumentTypeError: it is not.
    """
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 0")
    return value


def numbers(text: str) -> tuple[float, ...]:
    """Numbers parted by commas.

    Raises:
        ArgumentTypeError: one is none.
    """
    return tuple(number(part) for part in text.split(","))


def indices(text: str) -> tuple[int, ...]:
    """Whole numbers parted by commas.

    Raises:
        ArgumentTypeError: one is none.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} are no services; write their numbers, lowest tier first: 0,1,2"
        ) from None


def review_terms(text: str) -> tuple[float, ...]:
    """Price, latency in s and accuracy of ``20``, ``20:600`` or ``20:600:0.95``.

    Raises:
        ArgumentTypeError: not of that form.
    """
    parts = text.split(":")
    terms = tuple(map(number, parts[:3]))
    if len(parts) > len(terms) or terms[2:] > (1.0,):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no PRICE[:SECONDS[:ACCURACY]], such as 20:3600:0.98"
        )
    return terms


def count(text: str) -> int:
    """A whole number of at least 1.

    Raises:
        ArgumentTypeError: it is not.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def add_parser(subparsers: Subparsers) -> None:
    """Adds the commands."""
    group = add_group(subparsers, "policy", "fit, judge and show escalation policies")
    _add_collect(group)
    _add_fit(group)
    _add_eval(group)
    _add_replay(group)
    _add_show(group)
    _add_rules(group)


def _add_collect(group: Subparsers) -> None:
    text = "run every tier's model on labelled data and keep the predictions"
    parser = group.add_parser("collect", help=text, description=f"{text.capitalize()}.")
    parser.add_argument(
        "--data",
        required=True,
        metavar="FILE",
        help="an .npz with `labels` and the model's inputs by name; or bundled:calibration, "
        "bundled:test",
    )
    parser.add_argument(
        "--model",
        type=pair,
        action="append",
        metavar="TIER=FOLDER",
        help="a model folder for each tier, lowest first (default: the bundled models)",
    )
    parser.add_argument(
        "--price",
        type=price,
        action="append",
        metavar="TIER=NUMBER",
        help="what one call costs, in any unit: money, joules, bytes (default: edge=0, "
        "regional=0.3, cloud=1)",
    )
    parser.add_argument(
        "--part",
        metavar="FROM:TO",
        help="only these examples, such as 0:2500, to make disjoint splits of one file",
    )
    _add_placement(parser, "models and prices, where no option names them")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="an .npz")
    add_json(parser)
    parser.set_defaults(run=policy_commands.run_collect, default_prices=DEFAULT_PRICES)


def _add_targets(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-loss",
        type=number,
        default=0.01,
        metavar="SHARE",
        help="accuracy that may be lost against the top tier (default: %(default)s)",
    )
    parser.add_argument(
        "--delta",
        type=number,
        default=0.1,
        metavar="CHANCE",
        help="chance that the promise is wrong (default: %(default)s)",
    )


def _add_fit(group: Subparsers) -> None:
    text = "fit a policy and certify it"
    parser = group.add_parser("fit", help=text, description=f"{text.capitalize()}.")
    parser.add_argument(
        "--train", type=Path, required=True, metavar="FILE", help="predictions to learn from"
    )
    parser.add_argument(
        "--cal",
        type=Path,
        required=True,
        metavar="FILE",
        help="predictions to certify on: no other use, ever, not even for temperatures",
    )
    _add_targets(parser)
    parser.add_argument("--max-late", type=number, metavar="SHARE", help="late answers allowed")
    parser.add_argument("--min-accuracy", type=number, metavar="SHARE", help="accuracy needed")
    parser.add_argument(
        "--max-cost", type=number, metavar="NUMBER", help="mean cost allowed (top tier alone: 1)"
    )
    parser.add_argument(
        "--trace",
        type=Path,
        metavar="CSV",
        help="recorded round trips in ms, a column for each tier above the lowest",
    )
    parser.add_argument(
        "--budget-ms", type=numbers, metavar="MS,MS", help="budgets to make gears for, with --trace"
    )
    parser.add_argument(
        "--load", type=numbers, metavar="X,X", help="factors on the trace to make gears for"
    )
    _add_rules_file(parser, "--rules")
    parser.add_argument(
        "--review",
        type=review_terms,
        metavar="PRICE[:S[:SHARE]]",
        help="let people look at answers of the top tier where that is worth it: what one look "
        "costs, as --price has it, within how many seconds (default: 3600), and how often people "
        "are right (default: 0.98)",
    )
    parser.add_argument(
        "--no-average",
        action="store_true",
        help="let every tier decide on its own answer alone, also where probabilities are known",
    )
    parser.add_argument("--name", default="policy", help="of the policy (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of folds (default: %(default)s)")
    parser.add_argument(
        "--used-by",
        type=Path,
        action="append",
        default=[],
        metavar="POLICY",
        help="earlier policies: refuses a calibration set that one of them has used",
    )
    _add_placement(parser, "loss, budget and trace, in place of those options")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="policy.json")
    add_json(parser)
    parser.set_defaults(run=policy_commands.run_fit)


def _add_placement(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--placement",
        type=Path,
        metavar="FIT.toml",
        help=f"take from what `tierwise place --write-fit` wrote: {what}",
    )


def _add_eval(group: Subparsers) -> None:
    text = "judge policies on labelled predictions"
    parser = group.add_parser(
        "eval",
        help=text,
        description="Measure cost and broken promises over many calibrations, against the oracle "
        "and hindsight; or, with --policy, judge one fitted policy on predictions it has not seen.",
    )
    parser.add_argument(
        "--dataset", type=Path, required=True, metavar="FILE", help="predictions of all tiers"
    )
    parser.add_argument("--policy", type=Path, metavar="FILE", help="a fitted policy to judge")
    _add_targets(parser)
    parser.add_argument(
        "--labels", type=count, default=2000, metavar="N", help="calibration labels (%(default)s)"
    )
    parser.add_argument(
        "--calibrations",
        type=count,
        default=100,
        metavar="N",
        help="how often to certify anew (default: %(default)s)",
    )
    parser.add_argument(
        "--tiers",
        type=indices,
        metavar="I,I,I",
        help="services to take as tiers, lowest first (default: the first, the second, the most "
        "accurate)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of partitions (default: %(default)s)")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="write deferral curve, reliability and waterfall"
    )
    add_json(parser)
    parser.set_defaults(run=policy_commands.run_eval)


def _add_replay(group: Subparsers) -> None:
    text = "predict from decision logs what another policy would have done"
    parser = group.add_parser(
        "replay",
        help=text,
        description=f"{text.capitalize()}: shares, cost and agreement with the top tier, with 95 % "
        "intervals. Refuses to promise where the log has no support.",
    )
    parser.add_argument(
        "--policy",
        type=Path,
        required=True,
        metavar="FILE",
        help="a fitted .json, or a .toml with [thresholds] by tier",
    )
    parser.add_argument(
        "--base",
        type=Path,
        metavar="FILE",
        help="for a .toml: the policy whose tiers, classes and prices hold (default: the bundled "
        "one)",
    )
    add_state(parser)
    parser.add_argument(
        "--since",
        type=duration_s,
        metavar="DURATION",
        help="only the last 90s, 15m, 1h, 7d (default: everything)",
    )
    parser.add_argument("--by", choices=("label", "site"), help="also for each label or site")
    add_json(parser)
    parser.set_defaults(run=_replay)


def _replay(arguments: argparse.Namespace) -> int:
    from tierwise.replay_command import run_replay  # noqa: PLC0415 - keeps --help quick

    return run_replay(arguments)


def _add_show(group: Subparsers) -> None:
    text = "say what a policy promises"
    parser = group.add_parser("show", help=text, description=f"{text.capitalize()}.")
    parser.add_argument(
        "policy", type=Path, nargs="?", help="a policy file (default: the bundled one)"
    )
    add_json(parser)
    parser.set_defaults(run=policy_commands.run_show)


def _add_rules_file(parser: argparse.ArgumentParser, option: str) -> None:
    parser.add_argument(
        option,
        type=Path,
        metavar="TOML",
        help="rules that decide before any model, a table [[rules]] for each, and what to fall "
        "back on where no answer stands",
    )


def _add_rules(group: Subparsers) -> None:
    text = "show the rules of a policy, or write it with others"
    parser = group.add_parser("rules", help=text, description=f"{text.capitalize()}.")
    parser.add_argument("policy", type=Path, help="a policy file")
    _add_rules_file(parser, "--set")
    parser.add_argument("--output", type=Path, metavar="FILE", help="policy.json, with --set")
    add_json(parser)
    parser.set_defaults(run=_rules)


def _rules(arguments: argparse.Namespace) -> int:
    from tierwise.rules_commands import run_rules  # noqa: PLC0415 - keeps --help quick

    return run_rules(arguments)
