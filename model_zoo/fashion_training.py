"""Trains the networks of the bundled Fashion-MNIST task: teachers, students, and a stronger cloud.

Three networks learn from the labels; as an ensemble they teach the smaller ones, and the next
generation of larger ones (after Furlanello et al., "Born-Again Neural Networks", ICML 2018). Every
trained network is kept in the work folder, so that a build that was stopped goes on where it was.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from model_zoo.architectures import NETWORKS, MirrorAverage
from model_zoo.idx import Split, read_split, to_pixels
from model_zoo.train import Float32s, Progress, Recipe, logits_of, train

NUM_CALIBRATION = 5_000


class Lesson(NamedTuple):
    """One network learns: afresh or on from where it is, from labels alone or from teachers too.

    ``seed_offset`` is added to the build's seed, for the weights and for the order of pictures.
    ``teachers`` are earlier lessons' checkpoints.
    """

    network: str
    recipe: Recipe
    seed_offset: int
    goes_on: bool = False
    teachers: tuple[str, ...] = ()

    @property
    def checkpoint(self) -> str:
        """What it is called in the work folder."""
        return f"{self.network}-again" if self.goes_on else self.network


FIRST_TEACHERS = ("cloud-plain", "cloud-residual", "cloud-inception")
LESSONS = (
    Lesson("cloud-plain", Recipe(epochs=18, peak_rate=0.2), 0),
    Lesson("cloud-residual", Recipe(epochs=18, peak_rate=0.2), 1),
    Lesson("cloud-inception", Recipe(epochs=16, peak_rate=0.2), 2),
    Lesson(
        "regional",
        Recipe(epochs=16, peak_rate=0.2, erase_chance=0.25, distil_weight=0.9),
        3,
        teachers=FIRST_TEACHERS,
    ),
    Lesson(
        "edge",
        Recipe(epochs=45, peak_rate=0.3, weight_decay=5e-5, erase_chance=0.0, distil_weight=0.9),
        4,
        teachers=FIRST_TEACHERS,
    ),
    Lesson(
        "cloud-residual",
        Recipe(epochs=14, peak_rate=0.1, erase_chance=0.15, distil_weight=0.7),
        101,
        goes_on=True,
        teachers=FIRST_TEACHERS,
    ),
    Lesson(
        "cloud-wide",
        Recipe(epochs=14, peak_rate=0.2, erase_chance=0.25, distil_weight=0.7),
        5,
        teachers=FIRST_TEACHERS,
    ),
    Lesson(
        "cloud-wide",
        Recipe(epochs=8, peak_rate=0.1, erase_chance=0.1, distil_weight=0.7),
        105,
        goes_on=True,
        teachers=("cloud-residual-again", "cloud-wide"),
    ),
)


class TaskData(NamedTuple):
    """The three disjoint parts of the task's data; pixels are float32 in 0..1."""

    train: Split
    calibration: Split
    test: Split


def load_task(folder: Path, seed: int) -> TaskData:
    """Reads the idx files; sets a seeded 5,000 of the training pictures aside for calibration."""
    whole = read_split(folder, "train")
    order = np.random.default_rng(seed).permutation(len(whole.labels))
    held, used = order[:NUM_CALIBRATION], order[NUM_CALIBRATION:]
    return TaskData(
        train=Split(whole.pictures[used], whole.labels[used]),
        calibration=Split(whole.pictures[held], whole.labels[held]),
        test=read_split(folder, "t10k"),
    )


def train_task(
    data: TaskData,
    work: Path,
    *,
    seed: int,
    progress_for: Callable[[str], Progress],
    lessons: tuple[Lesson, ...] = LESSONS,
) -> dict[str, nn.Module]:
    """Returns the trained networks by name, reusing what ``work`` already holds."""
    work.mkdir(parents=True, exist_ok=True)
    pixels = to_pixels(data.train.pictures)
    networks: dict[str, nn.Module] = {}
    learned: dict[str, nn.Module] = {}
    taught: dict[tuple[str, ...], Float32s] = {}
    for lesson in lessons:
        name, lesson_seed = lesson.network, seed + lesson.seed_offset
        if not lesson.goes_on:
            torch.manual_seed(lesson_seed)
            networks[name] = NETWORKS[name]()
        checkpoint = work / f"{lesson.checkpoint}.pt"
        if checkpoint.is_file():
            networks[name].load_state_dict(torch.load(checkpoint, weights_only=True))
        else:
            teachers = lesson.teachers
            if teachers and teachers not in taught:
                taught[teachers] = _teacher_logits([learned[one] for one in teachers], pixels)
            networks[name] = train(
                networks[name],
                pixels,
                data.train.labels,
                lesson.recipe,
                seed=lesson_seed,
                teacher_logits=taught.get(teachers),
                progress=progress_for(lesson.checkpoint),
            )
            partial = checkpoint.with_suffix(".partial")
            torch.save(networks[name].state_dict(), partial)
            partial.replace(checkpoint)
        learned[lesson.checkpoint] = copy.deepcopy(networks[name].eval())
    return networks


def _teacher_logits(members: list[nn.Module], pixels: Float32s) -> Float32s:
    """Mean logits of the members, each on the picture and on its mirror image."""
    logits = [logits_of(MirrorAverage(member), pixels) for member in members]
    total = sum(logits[1:], start=logits[0])
    return (total / np.float32(len(members))).astype(np.float32)
