"""What ``tierwise retrain`` does: one tier anew, compared with what serves, published if better."""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from contextlib import redirect_stdout

import msgspec

from model_zoo.build import needs_zoo
from model_zoo.catalog import bundled_task
from model_zoo.options import RetrainOptions
from model_zoo.retrain_data import read_added
from model_zoo.retrain_schedule import Schedule
from runtime.errors import StartError
from tierwise.cli.output import note, say, say_json, say_table

NOT_BETTER = 1


def run(arguments: argparse.Namespace) -> int:
    """Trains, and publishes where that was asked for and it is better.

    Raises:
        StartError: a package is missing, or data cannot be used.
        ArtifactError: a model cannot be read or written.
        PolicyError: no policy can be fitted.
    """
    added = read_added(arguments.dataset)
    with needs_zoo():
        # An extra: an agent has neither PyTorch nor rich.
        from model_zoo.progress import Bars  # noqa: PLC0415
        from model_zoo.retraining import retrain  # noqa: PLC0415
    options = RetrainOptions(
        tier=arguments.tier,
        seed=arguments.seed,
        threads=arguments.threads,
        epochs_scale=arguments.epochs_scale,
        limit=arguments.limit,
        version=arguments.model_version,
        dataset=str(arguments.dataset),
    )
    models = arguments.models or bundled_task()
    with Bars() as bars:
        report = retrain(arguments.data, added, models, arguments.output, options, display=bars)
    published = _publish(arguments) if arguments.publish and report.is_better else ""
    if arguments.json:
        say_json({**msgspec.to_builtins(report), "published": published})
    else:
        for what, figures in (("test pictures", report.test), ("field, held back", report.field)):
            if figures.before is not None and figures.after is not None:
                say(f"{what:16} {figures.num:6}  {figures.before:.4f} -> {figures.after:.4f}")
        say(f"learned from {report.num_taught} examples of the field; accept_at {report.accept_at}")
        say(f"{'better' if report.is_better else 'not better'}: {report.why}")
    if not report.is_better:
        note(f"tierwise: {report.folder} is kept, and nothing is published")
        return NOT_BETTER
    if not published:
        note(
            f"tierwise: publish it with `tierwise models publish {report.folder}/{report.tier} "
            f"--model fashion-{report.tier}`"
        )
    return 0


def run_schedule(arguments: argparse.Namespace) -> int:
    """Shows whose turn is when.

    Raises:
        StartError: the turns do not fit into the period.
    """
    schedule = Schedule(
        arguments.model, arguments.region, every_s=arguments.every, apart_s=arguments.apart
    )
    turns = list(itertools.islice(schedule.after(time.time()), max(0, arguments.count)))
    if arguments.json:
        say_json({"turns": [turn._asdict() for turn in turns]})
        return 0
    rows = [
        (time.strftime("%Y-%m-%d %H:%MZ", time.gmtime(turn.at_s)), turn.model, turn.region)
        for turn in turns
    ]
    say_table(("BEGINS", "MODEL", "REGION"), rows)
    return 0


def _publish(arguments: argparse.Namespace) -> str:
    """Publishes the new model as ``tierwise models publish`` does; returns what it is called.

    Raises:
        StartError: it was refused; the text says why.
    """
    from tierwise.cli.parser import build_parser  # noqa: PLC0415 - it imports this module's parser

    name = f"fashion-{arguments.tier}"
    words = ["models", "publish", str(arguments.output / arguments.tier), "--model", name]
    words += ["--repository", str(arguments.repository)]
    words += [word for folder in arguments.keys or () for word in ("--keys", str(folder))]
    if not (arguments.output / arguments.tier / "policy.json").is_file():
        words.append("--without-policy")
    parsed = build_parser().parse_args(words)
    # What it says is no part of our result.
    with redirect_stdout(sys.stderr):
        code = parsed.run(parsed)
    if code != 0:
        raise StartError(f"{name} was not published")
    return name
