"""Trains the networks of all tiers and writes their model folders: python train.py."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from model_zoo.baselines import ngrams
from model_zoo.report import summary
from model_zoo.small_nets import Lesson
from model_zoo.task_build import Recipe, Student, build_task
from model_zoo.task_data import Part, Task
from runtime.errors import TierwiseError
from runtime.messages import Tier

REDUCED_EPOCHS = 0.5


def recipe(task: Task, part: Part) -> Recipe:
    """Who learns what on which tier."""
    del part
    classes = len(task.labels)
    short = Lesson(8, batch=128, rate=2e-2, decay=0.0)
    middle = Lesson(10, batch=128, rate=1e-2, decay=1e-3)
    long = Lesson(8, batch=128, rate=5e-3, decay=1e-3)
    return {
        Tier.EDGE: {"edge": Student(ngrams(classes, (1, 2, 3), 1024), short, 0.5)},
        Tier.REGIONAL: {
            "regional": Student(ngrams(classes, (1, 2, 3), 8192, hidden=48), middle, 0.5)
        },
        Tier.CLOUD: {
            "short": Student(ngrams(classes, (1, 2, 3), 8192, hidden=64), long),
            "middle": Student(ngrams(classes, (2, 3, 4), 8192, hidden=64), long),
            "long": Student(ngrams(classes, (3, 4, 5), 8192, hidden=64), long),
        },
    }


def main(arguments: list[str]) -> int:
    """Writes build/models; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("build/data"))
    parser.add_argument("--output", type=Path, default=Path("build/models"))
    parser.add_argument("--reduced", action="store_true", help="half of the epochs")
    options = parser.parse_args(arguments)
    report = build_task(
        options.data,
        options.output,
        recipe,
        command="python train.py" + (" --reduced" if options.reduced else ""),
        epochs_scale=REDUCED_EPOCHS if options.reduced else 1.0,
        say=lambda text: print(text, flush=True),
    )
    print(summary(report))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except TierwiseError as error:
        sys.exit(f"train: {error}")
