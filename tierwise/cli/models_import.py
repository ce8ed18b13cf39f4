"""``tierwise models import``: the command line of it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tierwise.cli.types import add_json, positive, share

if TYPE_CHECKING:
    from tierwise.cli.types import Subparsers

TIERS = ("edge", "regional", "regional-2", "regional-3", "regional-4", "cloud")


def add_import(group: Subparsers) -> None:
    """Adds the command."""
    text = "make a model folder of an .onnx or .tflite file of another project"
    parser = group.add_parser("import", help=text, description=f"{text.capitalize()}.")
    parser.add_argument("file", type=Path, metavar="FILE", help="the .onnx or .tflite file")
    parser.add_argument("--tier", choices=TIERS, help="where it is to run")
    parser.add_argument("--name", help="of the model, the same on all tiers")
    parser.add_argument("--version", default="1", metavar="V", help="(default: %(default)s)")
    parser.add_argument(
        "--labels",
        metavar="FILE|A,B,C",
        help="the classes in the order of the scores: a file with a line each, or with commas "
        "between them; `numbers` calls them 0, 1, ... (default: as the data say)",
    )
    parser.add_argument(
        "--data", type=Path, metavar="FILE", help="labelled examples, an .npz: finds out the rest"
    )
    parser.add_argument(
        "--part",
        metavar="FROM:TO",
        help="only these examples, such as 0:1000; certify a policy on others",
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="(default: models/NAME-TIER in this folder)"
    )
    _add_scores(parser)
    _add_inputs(parser)
    _add_tasks(parser)
    parser.add_argument("--licence", default="unknown", metavar="TEXT", help="of the model")
    add_json(parser)
    parser.set_defaults(run=_run)


def _add_scores(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--scores", choices=("auto", "logits", "probabilities"), default="auto",
        help="what the file gives (default: seen from the numbers)",
    )  # fmt: skip
    parser.add_argument(
        "--scores-output", default="", metavar="NAME", help="the output with the class scores"
    )
    parser.add_argument(
        "--accept-at", type=share, metavar="SHARE",
        help="confidence at which its answer stands (default: by the rule of the bundled models)",
    )  # fmt: skip
    parser.add_argument(
        "--above", type=Path, metavar="DIR", help="the tier above, imported before, for that rule"
    )


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input-name", default="input", metavar="NAME",
        help="what callers call a single input, the same on all tiers (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--input-shape", type=sizes, default=(), metavar="N,N,N",
        help="of one example as callers send it, where no data show it",
    )  # fmt: skip
    parser.add_argument(
        "--input-type", choices=("UINT8", "INT16", "FP32"), default="",
        help="of the numbers that callers send, where no data show it",
    )  # fmt: skip
    parser.add_argument(
        "--input-layout", choices=("auto", "nchw", "nhwc"), default="auto",
        help="where the file has the channels of pictures (default: tried)",
    )  # fmt: skip
    parser.add_argument("--resize", type=size_of_picture, metavar="HxW", help="what the file gets")
    parser.add_argument(
        "--scale", type=positive, metavar="NUMBER", help="divide the callers' numbers by this"
    )
    parser.add_argument(
        "--steps", type=Path, metavar="FILE.json",
        help="what is done to each example, a list of steps as in the manifest",
    )  # fmt: skip
    parser.add_argument(
        "--log-mel", default="", metavar="KEY=VALUE,...",
        help="make log-mel features of recordings: rate=16000,frame=400,hop=160,bands=40",
    )  # fmt: skip
    parser.add_argument(
        "--normalise", type=mean_and_std, metavar="MEAN,STD",
        help="then subtract and divide; of channels with colons: .485:.456:.406,.229:.224:.225",
    )  # fmt: skip


TASKS = ("classification", "multilabel", "regression", "detection", "anomaly", "embedding")


def _add_tasks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--task", choices=TASKS, default="classification",
        help="what the model answers (default: %(default)s)",
    )  # fmt: skip
    boxes = parser.add_argument_group("models of detection")
    boxes.add_argument(
        "--box-accept", type=between, default=0.5, metavar="SCORE",
        help="from this score on a box is one (default: %(default)g)",
    )  # fmt: skip
    boxes.add_argument(
        "--box-overlap", type=between, default=0.5, metavar="SHARE",
        help="of boxes of one label that overlap by more, the best stays (default: %(default)g)",
    )  # fmt: skip
    boxes.add_argument(
        "--max-boxes", type=int, default=100, metavar="N", help="(default: %(default)d)"
    )
    boxes.add_argument(
        "--box-format", choices=("corners", "corners_yx", "centres"),
        help="x1 y1 x2 y2, y1 x1 y2 x2, or centre, width and height (default: by the layout)",
    )  # fmt: skip
    boxes.add_argument(
        "--box-layout",
        choices=("auto", "apart", "columns", "rows", "objectness", "classes"),
        default="auto",
        help="of a file that gives all in one tensor: (4 + labels, n), (n, 4 + labels), "
        "(n, 5 + labels) or (n, 6) (default: seen from its shape)",
    )
    boxes.add_argument(
        "--box-outputs", default="", metavar="BOXES,SCORES[,CLASSES[,COUNT]]",
        help="the file's outputs (default: by their shapes and names)",
    )  # fmt: skip
    boxes.add_argument(
        "--box-size", type=size_of_boxes, metavar="WxH",
        help="width and height in the unit of the boxes; 1x1: they are shares of the picture "
        "(default: seen from the data)",
    )  # fmt: skip
    others = parser.add_argument_group("models of other tasks")
    others.add_argument(
        "--threshold", type=_number, metavar="SCORE",
        help="of anomaly: from this score on (default: fitted to the data)",
    )  # fmt: skip
    others.add_argument(
        "--anomaly-scale", type=positive, metavar="NUMBER",
        help="how far from it a score is sure (default: fitted to the data)",
    )  # fmt: skip
    others.add_argument(
        "--tolerance", type=positive, default=0.0, metavar="NUMBER",
        help="of regression: what a number may be off, in its unit",
    )  # fmt: skip
    others.add_argument(
        "--prototypes", type=Path, metavar="FILE.npy",
        help="of embeddings: a row for each label (default: the means of the data)",
    )  # fmt: skip


def between(text: str) -> float:
    """A number between 0 and 1, both excluded.

    Raises:
        ArgumentTypeError: it is none.
    """
    value = _number(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} does not lie between 0 and 1")
    return value


def size_of_boxes(text: str) -> tuple[float, float]:
    """Width and height of ``640x480``.

    Raises:
        ArgumentTypeError: it is not of that form.
    """
    parts = [_number(part) for part in text.split("x")]
    if len(parts) != 2 or min(parts) <= 0:  # noqa: PLR2004 - a picture
        raise argparse.ArgumentTypeError(f"{text!r} is no WIDTHxHEIGHT such as 640x480")
    return parts[0], parts[1]


def sizes(text: str) -> tuple[int, ...]:
    """Sizes of axes with commas or ``x`` between them.

    Raises:
        ArgumentTypeError: one is none.
    """
    parts = text.replace("x", ",").split(",")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is no shape of an example such as 28,28")
    return tuple(int(part) for part in parts)


def size_of_picture(text: str) -> tuple[int, int]:
    """Height and width of ``224x224``.

    Raises:
        ArgumentTypeError: it is not of that form.
    """
    found = sizes(text)
    if len(found) != 2:  # noqa: PLR2004 - a picture
        raise argparse.ArgumentTypeError(f"{text!r} is no HEIGHTxWIDTH such as 224x224")
    return found[0], found[1]


def mean_and_std(text: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Means and standard deviations, with colons between those of channels.

    Raises:
        ArgumentTypeError: not of that form, or a standard deviation is 0.
    """
    sides = [tuple(_number(one) for one in side.split(":")) for side in text.split(",")]
    if len(sides) != 2 or len(sides[0]) != len(sides[1]) or 0.0 in sides[1]:  # noqa: PLR2004
        raise argparse.ArgumentTypeError(
            f"{text!r} is no MEAN,STD such as 0.5,0.5 or .485:.456:.406,.229:.224:.225"
        )
    return sides[0], sides[1]


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number")
    return value


def _run(arguments: argparse.Namespace) -> int:
    from tierwise.import_command import run_import  # noqa: PLC0415 - keeps --help quick

    return run_import(arguments)
