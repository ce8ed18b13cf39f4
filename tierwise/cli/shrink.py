"""``tierwise models quantize|prune|split``: smaller models, and models in two halves."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tierwise.cli.types import add_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierwise.cli.types import Subparsers

METHODS = ("auto", "minmax", "percentile", "entropy", "dynamic")
MAX_WIDTH, MAX_LAYERS, MAX_EPOCHS = 4096, 8, 10_000
UPPER_TIERS = ("regional", "regional-2", "regional-3", "regional-4", "cloud")


def add_shrinking(group: Subparsers) -> None:
    """Adds the commands to ``tierwise models``."""
    parser = _add(group, "quantize", "make an int8 model of a float32 one", "run_quantize")
    parser.add_argument(
        "--method", choices=METHODS, default="auto",
        help="how ranges of activations are found; auto: what does best (default: %(default)s)",
    )  # fmt: skip
    _add_max_loss(parser, 0.005)
    parser.add_argument(
        "--target", metavar="PROFILE",
        help="hardware profile that it is for; weights take 8 bits where its processors have "
        "integer products for that (default: 7 of 8 bits, right everywhere)",
    )  # fmt: skip
    parser = _add(group, "distill", "teach a small model what a large one says", "run_distill")
    parser.add_argument(
        "--tier", choices=("edge", *UPPER_TIERS), default="edge",
        help="tier of the student (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--kind", choices=("auto", "dense", "series", "text", "picture"), default="auto",
        help="its network: dense layers, convolutions over steps, hashed n-grams of codes, "
        "convolutions over pictures (extra zoo) (default: by the input: text or dense)",
    )  # fmt: skip
    parser.add_argument(
        "--hidden", type=widths, default=None, metavar="N,N",
        help="widths of its layers, or filters (default: 64,32; for pictures 16,32,64)",
    )  # fmt: skip
    parser.add_argument(
        "--epochs", type=at_least_one, default=30, metavar="N",
        help="how often it sees all examples (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--trust", type=share, default=0.7, metavar="SHARE",
        help="how much the teacher counts beside the labels (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=int, default=20, help="of the first weights (default: %(default)s)"
    )
    parser = _add(group, "prune", "set the smallest weights of a model to zero", "run_prune")
    _add_max_loss(parser, 0.005)
    parser.add_argument(
        "--sparsity", type=share, action="append", metavar="SHARE",
        help="share of zeros to try; may be repeated (default: 0.3 to 0.9)",
    )  # fmt: skip
    parser = _add(
        group, "split", "cut a model in two: a head for the device, a tail above", "run_split"
    )
    parser.add_argument(
        "--at", metavar="TENSOR", help="where (default: where least is passed on); --list names all"
    )
    parser.add_argument(
        "--list", action="store_true", help="name the places to cut, and do nothing"
    )
    parser.add_argument(
        "--tail-tier", choices=UPPER_TIERS, default="regional",
        help="tier of the tail (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--head-tier", choices=("edge", *UPPER_TIERS[:-1]), default="edge",
        help="tier of the head (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--embedding", choices=("FP32", "FP16"), default="FP32",
        help="numbers that are passed on; FP16 is half as long (default: %(default)s)",
    )  # fmt: skip


def widths(text: str) -> tuple[int, ...]:
    """Argparse's type of widths with commas between them.

    Raises:
        argparse.ArgumentTypeError: they are none.
    """
    found = tuple(int(one) if one.isdigit() else 0 for one in text.split(","))
    if not all(0 < one <= MAX_WIDTH for one in found) or len(found) > MAX_LAYERS:
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is no list of 1 to {MAX_LAYERS} widths of at most {MAX_WIDTH}"
        )
    return found


def at_least_one(text: str) -> int:
    """Argparse's type of a whole number above 0.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not text.isdigit() or not 0 < int(text) <= MAX_EPOCHS:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no number from 1 to {MAX_EPOCHS}")
    return int(text)


def share(text: str) -> float:
    """Argparse's type of a number from 0 to below 1.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no number from 0 to below 1")
    return number


def _add_max_loss(parser: argparse.ArgumentParser, default: float) -> None:
    parser.add_argument(
        "--max-loss", type=share, default=default, metavar="SHARE",
        help="accuracy that may be lost (default: %(default)s)",
    )  # fmt: skip


def _add(group: Subparsers, name: str, text: str, run: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = group.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}. Half of the examples choose, the other half is "
        "reported on. Needs the extra `shrink`.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="model folder, with manifest.json")
    parser.add_argument(
        "--data", required=True, metavar="FILE",
        help=".npz with `labels` and the inputs, or bundled:test",
    )  # fmt: skip
    parser.add_argument(
        "--part", default=":", metavar="A:B", help="of the examples (default: all of them)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help=f"folder to write (default: DIR-{name})"
    )
    parser.add_argument("--version", metavar="V", help="of the new model (default: that of before)")
    add_json(parser)
    parser.set_defaults(run=_later(run))
    return parser


def _later(name: str) -> Callable[[argparse.Namespace], int]:
    def run(arguments: argparse.Namespace) -> int:
        from tierwise import shrink_command  # noqa: PLC0415 - keeps --help quick

        ran: int = getattr(shrink_command, name)(arguments)
        return ran

    return run
