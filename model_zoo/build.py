"""Builds the bundled task from its public data: ``tierwise models build fashion``.

Train, export, quantize, calibrate, fit the policy, write. Training needs PyTorch (extra ``zoo``)
and about two hours on two cores. Trained networks are kept in the work folder, so that a build that
was stopped goes on where it was; everything after training is made anew.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from model_zoo.options import DEFAULT_DATA, BuildOptions
from runtime.errors import ArtifactError, StartError

INSTALL_ZOO = "Building models needs the extra `zoo`: pip install 'tierwise[zoo]'"
ZOO_PACKAGES = ("torch", "onnx", "onnxscript", "rich")
TASKS = ("fashion",)
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``tierwise models build``."""
    default = BuildOptions()
    parser.add_argument("task", choices=TASKS, help="the task to build")
    parser.add_argument(
        "--data",
        type=Path,
        default=DEFAULT_DATA,
        metavar="FOLDER",
        help="folder of the four idx files of Fashion-MNIST (default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("models/fashion"),
        metavar="FOLDER",
        help="where the model folders go (default: %(default)s)",
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("models/work"),
        metavar="FOLDER",
        help="where trained networks are kept; resumes from there (default: %(default)s)",
    )
    parser.add_argument(
        "--model-version",
        default=default.version,
        metavar="VERSION",
        help="version that the manifests state (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=default.seed,
        help="of weights, order and augmentation (default: %(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=_positive_int,
        default=default.threads,
        help="of PyTorch; another number gives other last digits (default: %(default)s)",
    )
    parser.add_argument(
        "--epochs-scale",
        type=_positive_float,
        default=default.epochs_scale,
        metavar="FACTOR",
        help="multiplies all epochs; 0.05 makes a quick trial (default: %(default)s)",
    )
    parser.add_argument(
        "--limit",
        type=_positive_int,
        default=None,
        metavar="N",
        help="use the first N pictures of each part only, for a quick trial",
    )
    parser.add_argument(
        "--json", action="store_true", help="write the report as JSON to standard output"
    )


def run(arguments: argparse.Namespace) -> int:
    """Builds what the parsed arguments ask for and reports it; returns the exit code."""
    try:
        report = _build(arguments)
    except (ArtifactError, StartError) as error:
        sys.stderr.write(f"error: {error}\n")
        return EXIT_FAILED
    except KeyboardInterrupt:
        sys.stderr.write("Stopped. The same command goes on where this one was.\n")
        return EXIT_INTERRUPTED
    sys.stdout.write(report + "\n")
    return 0


@contextmanager
def needs_zoo() -> Iterator[None]:
    """For imports of what builds models.

    Raises:
        StartError: a package of the extra is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ZOO_PACKAGES:
            raise
        raise StartError(f"{INSTALL_ZOO} ({error.name} is missing)") from error


def _build(arguments: argparse.Namespace) -> str:
    with needs_zoo():
        # An extra: an agent has neither PyTorch nor rich.
        from model_zoo.pipeline import build_fashion  # noqa: PLC0415
        from model_zoo.progress import Bars  # noqa: PLC0415
        from model_zoo.report import as_json, summary  # noqa: PLC0415
    options = BuildOptions(
        seed=arguments.seed,
        threads=arguments.threads,
        epochs_scale=arguments.epochs_scale,
        limit=arguments.limit,
        version=arguments.model_version,
    )
    with Bars() as bars:
        report = build_fashion(
            arguments.data, arguments.work, arguments.output, options, display=bars
        )
    return as_json(report) if arguments.json else summary(report)


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def _positive_float(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def main() -> int:
    """Runs ``python -m model_zoo.build``."""
    parser = argparse.ArgumentParser(
        prog="python -m model_zoo.build", description="Build the bundled task from its public data."
    )
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
