"""``tierwise hardware``: what a device is, what a model costs on it, which variant fits."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tierwise.cli.types import add_group, add_json, positive, share

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierwise.cli.types import Subparsers

MODELS = ("edge", "regional", "cloud")
MAX_THREADS = 256
MAX_BATCH = 4096
MAX_SECONDS = 3600.0
MAX_IN_LIST = 16


def add_parser(subparsers: Subparsers) -> None:
    """Adds the commands."""
    group = add_group(
        subparsers, "hardware", "say what a device is, and which variant of a model fits it"
    )
    parser = _add(group, "detect", "say which profile this host has", "run_detect")
    parser.add_argument(
        "--root", type=Path, default=Path("/"), metavar="DIR",
        help="where proc, sys and etc of the host are (default: %(default)s)",
    )  # fmt: skip
    _add(group, "list", "list the profiles of devices", "run_list")
    parser = _add(group, "show", "show a profile, with the source of each figure", "run_show")
    parser.add_argument(
        "profile", nargs="?", metavar="PROFILE",
        help="its name, or a .toml file (default: that of this host)",
    )  # fmt: skip
    _add_bench(group)
    _add_fit(group)


def counts(most: int) -> Callable[[str], tuple[int, ...]]:
    """What reads whole numbers from 1 to ``most`` with commas between them, each of them once.

    What it returns raises ArgumentTypeError for another text, and for more than 16 numbers.
    """

    def read(text: str) -> tuple[int, ...]:
        words = [word.strip() for word in text.split(",")]
        right = [word for word in words if word.isascii() and word.isdigit() and len(word) < 10]  # noqa: PLR2004
        numbers = [int(word) for word in right]
        if (
            len(right) < len(words)
            or len(words) > MAX_IN_LIST
            or not all(1 <= number <= most for number in numbers)
        ):
            raise argparse.ArgumentTypeError(
                f"{text!r} is no list such as 1,2 of whole numbers from 1 to {most}"
            )
        return tuple(dict.fromkeys(numbers))

    return read


def seconds(text: str) -> float:
    """A number of seconds above 0 and up to an hour.

    Raises:
        ArgumentTypeError: another one, or none.
    """
    number = positive(text)
    if number > MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r} is over {MAX_SECONDS:g} seconds")
    return number


def named_folder(text: str) -> tuple[str, Path]:
    """Name and folder of ``NAME=DIR``.

    Raises:
        ArgumentTypeError: not of that form.
    """
    name, _, folder = text.partition("=")
    if not name or not folder:
        raise argparse.ArgumentTypeError(f"{text!r} is no NAME=DIR, such as int8=models/int8")
    return name, Path(folder)


def _add_bench(group: Subparsers) -> None:
    parser = _add(
        group, "bench", "time a model on this host, and keep what was measured", "run_bench"
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", choices=MODELS, metavar="TIER", help="a bundled model, by tier")
    what.add_argument("--folder", type=Path, metavar="DIR", help="a model folder")
    parser.add_argument("--variant", metavar="NAME", help="the folder of that name below --folder")
    parser.add_argument(
        "--seconds", type=seconds, default=2.0, metavar="N",
        help="for each number of threads and each batch size (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--threads", type=counts(MAX_THREADS), metavar="N,N",
        help="threads of one inference (default: those of the profile)",
    )  # fmt: skip
    parser.add_argument(
        "--batch", type=counts(MAX_BATCH), default=(1, 8), metavar="N,N",
        help="examples in one inference (default: 1,8)",
    )  # fmt: skip
    _add_out(parser)


def _add_fit(group: Subparsers) -> None:
    parser = _add(
        group, "fit", "say which variant a device takes, and why not the others", "run_fit"
    )
    parser.add_argument(
        "--model", action="append", default=[], choices=MODELS, metavar="TIER",
        help="a bundled model, by tier; may be repeated",
    )  # fmt: skip
    parser.add_argument("--folder", type=Path, metavar="DIR", help="a model folder")
    parser.add_argument(
        "--variant", action="append", default=[], type=named_folder, metavar="NAME=DIR",
        help="a variant in a model folder; may be repeated",
    )  # fmt: skip
    parser.add_argument("--entry", type=Path, metavar="FILE", help="an entry of a catalogue")
    parser.add_argument(
        "--profile", metavar="PROFILE", help="name or .toml file (default: this host)"
    )
    parser.add_argument(
        "--budget-ms", type=positive, metavar="MS", help="one inference, all but 1 in 100"
    )
    parser.add_argument("--min-accuracy", type=share, metavar="SHARE", help="such as 0.9")
    parser.add_argument(
        "--max-memory-mb", type=positive, metavar="MB", help="resident memory of its process"
    )
    parser.add_argument("--power-w", type=positive, metavar="W", help="power at most")
    _add_out(parser)


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, metavar="DIR",
        help="folder of the measurements (default: tierwise/hardware in XDG_DATA_HOME, or in "
        "~/.local/share)",
    )  # fmt: skip


def _add(group: Subparsers, name: str, text: str, function: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = group.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}."
    )
    add_json(parser)
    parser.set_defaults(run=_run, function=function)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    from tierwise import hardware_command, hardware_models_command  # noqa: PLC0415 - quick --help

    home = (
        hardware_models_command
        if arguments.function in {"run_bench", "run_fit"}
        else hardware_command
    )
    code: int = getattr(home, arguments.function)(arguments)
    return code
