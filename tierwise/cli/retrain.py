"""``tierwise retrain``: a tier's model anew, on what was seen in the field, and when."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from model_zoo.options import DEFAULT_DATA, RetrainOptions
from tierwise.cli.keys import add_keys
from tierwise.cli.metrics import duration_s
from tierwise.cli.types import add_group, add_json

if TYPE_CHECKING:
    from tierwise.cli.types import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Adds the commands."""
    group = add_group(subparsers, "retrain", "train a tier anew on what was seen in the field")
    _add_run(group)
    text = "the next turns, so that no two models and no two regions change at the same time"
    parser = group.add_parser("schedule", help=text, description=f"{text.capitalize()}.")
    for name, what in (("model", "a model"), ("region", "a region")):
        parser.add_argument(
            f"--{name}", action="append", required=True, metavar="NAME", help=f"{what}; repeatable"
        )
    parser.add_argument(
        "--every", type=duration_s, default="28d", metavar="TIME",
        help="how often each model is trained anew for each region (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--apart", type=duration_s, default="2d", metavar="TIME",
        help="between two turns at least: what a rollout takes (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--count", type=int, default=10, metavar="N", help="turns to show (default: %(default)s)"
    )
    add_json(parser)
    parser.set_defaults(run=_schedule)


def _add_run(group: Subparsers) -> None:
    default = RetrainOptions()
    text = "train, distil, quantize, calibrate, fit the policy and compare (extra `zoo`)"
    parser = group.add_parser("run", help=text, description=f"{text.capitalize()}.")
    parser.add_argument("task", choices=("fashion",), help="the task")
    parser.add_argument(
        "--dataset", type=Path, required=True, metavar="PATH",
        help="what `tierwise data export` has written",
    )  # fmt: skip
    parser.add_argument(
        "--tier", choices=("edge", "regional"), default=default.tier,
        help="whose model (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--models", type=Path, metavar="DIR",
        help="folder with edge, regional and cloud as they serve now (default: the bundled ones)",
    )  # fmt: skip
    parser.add_argument(
        "--data", type=Path, default=DEFAULT_DATA, metavar="DIR",
        help="the task's own training data (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, default=Path("models/retrained"), metavar="DIR",
        help="where the model folders go (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--publish", action="store_true",
        help="publish it when it is better; no device takes it before a rollout says so",
    )  # fmt: skip
    parser.add_argument(
        "--repository", type=Path, default=Path("repository"), metavar="DIR",
        help="folder of the repository, for --publish (default: %(default)s)",
    )  # fmt: skip
    add_keys(parser)
    parser.add_argument(
        "--seed", type=int, default=default.seed, help="of weights and order (default: %(default)s)"
    )
    parser.add_argument(
        "--threads", type=int, default=default.threads, help="of PyTorch (default: %(default)s)"
    )
    parser.add_argument(
        "--epochs-scale", type=float, default=default.epochs_scale, metavar="FACTOR",
        help="multiplies all epochs; 0.05 makes a quick trial (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--limit", type=int, metavar="N", help="the first N pictures of each part, for a trial"
    )
    parser.add_argument(
        "--model-version", default=default.version, metavar="VERSION",
        help="that the manifest states; publishing gives it the catalogue's (default: %(default)s)",
    )  # fmt: skip
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from tierwise.retrain_command import run  # noqa: PLC0415 - keeps --help quick

    return run(arguments)


def _schedule(arguments: argparse.Namespace) -> int:
    from tierwise.retrain_command import run_schedule  # noqa: PLC0415 - keeps --help quick

    return run_schedule(arguments)
