"""Trains the networks of all tiers and writes their model folders: python train.py."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from model_zoo.baselines import cnn
from model_zoo.report import summary
from model_zoo.small_layers import Array
from model_zoo.small_nets import Lesson
from model_zoo.task_build import Recipe, Student, build_task
from model_zoo.task_data import Part, Task
from runtime.errors import TierwiseError
from runtime.messages import Tier

REDUCED_EPOCHS = 0.25


def worn_otherwise(series: Array, random: np.random.Generator) -> Array:
    """The same movement with the watch turned a little, by a stronger or weaker arm, noisier.

    One rotation (Rodrigues) for accelerometer and gyroscope, as they sit in one case.
    """
    num = len(series)
    axis = random.normal(size=(num, 3))
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    angle = random.normal(0, 0.3, (num, 1, 1))
    cross = np.zeros((num, 3, 3))
    cross[:, 0, 1], cross[:, 0, 2], cross[:, 1, 2] = -axis[:, 2], axis[:, 1], -axis[:, 0]
    cross -= cross.transpose(0, 2, 1)
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    strength = random.normal(1, 0.1, (num, 1, 1))
    turned = np.concatenate([series[:, :, :3] @ turn, series[:, :, 3:] @ turn], axis=2) * strength
    return (turned + random.normal(0, 0.02, turned.shape)).astype(np.float32)


def recipe(task: Task, part: Part) -> Recipe:
    """Who learns what on which tier."""
    classes = len(task.labels)

    def student(
        filters: tuple[int, ...], width: int, stride: int, epochs: int, trust: float = 0.0
    ) -> Student:
        make = cnn(part, classes, filters, width=width, stride=stride)
        return Student(make, Lesson(epochs, batch=64, rate=3e-3), trust, worn_otherwise)

    return {
        Tier.EDGE: {"edge": student((16, 24, 32), 5, 2, 20, 0.6)},
        Tier.REGIONAL: {"regional": student((40, 56, 56), 5, 2, 15, 0.6)},
        Tier.CLOUD: {
            "narrow": student((48, 64, 64), 3, 1, 10),
            "middle": student((48, 64, 64), 5, 1, 10),
            "wide": student((48, 64, 64), 9, 1, 10),
        },
    }


def main(arguments: list[str]) -> int:
    """Writes build/models; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("build/data"))
    parser.add_argument("--output", type=Path, default=Path("build/models"))
    parser.add_argument("--reduced", action="store_true", help="a quarter of the epochs")
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
