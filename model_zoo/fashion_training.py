"""Trains the five networks of the bundled Fashion-MNIST task: the ensemble, then its students.

The members learn twice: from the labels, then on from there taught by their own ensemble as well
(after Furlanello et al., "Born-Again Neural Networks", ICML 2018, which starts afresh). Every trained network is kept in the work folder, so that a build that was stopped goes on where it
was.
"""

from __future__ import annotations

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
ENSEMBLE = ("cloud-plain", "cloud-residual", "cloud-inception")
STUDENTS = ("regional", "edge")
RECIPES = {
    "cloud-plain": Recipe(epochs=18, peak_rate=0.2),
    "cloud-residual": Recipe(epochs=18, peak_rate=0.2),
    "cloud-inception": Recipe(epochs=16, peak_rate=0.2),
    "regional": Recipe(epochs=16, peak_rate=0.2, erase_chance=0.25, distil_weight=0.9),
    "edge": Recipe(
        epochs=45, peak_rate=0.3, weight_decay=5e-5, erase_chance=0.0, distil_weight=0.9
    ),
}
# The members' second round goes by the name of its checkpoint.
RECIPES |= {
    f"{member}-again": Recipe(epochs=14, peak_rate=0.1, erase_chance=0.15, distil_weight=0.7)
    for member in ENSEMBLE
}


class Round(NamedTuple):
    """Networks that learn next; where ``taught``, from the ensemble as it is before the round."""

    names: tuple[str, ...]
    suffix: str
    taught: bool
    seed_offset: int


ROUNDS = (
    Round(ENSEMBLE, suffix="", taught=False, seed_offset=0),
    Round(ENSEMBLE, suffix="-again", taught=True, seed_offset=100),
    Round(STUDENTS, suffix="", taught=True, seed_offset=0),
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
    recipes: dict[str, Recipe] | None = None,
) -> dict[str, nn.Module]:
    """Returns the five trained networks by name, reusing what ``work`` already holds."""
    recipes = RECIPES if recipes is None else recipes
    work.mkdir(parents=True, exist_ok=True)
    pixels = to_pixels(data.train.pictures)
    networks: dict[str, nn.Module] = {}
    seeds: dict[str, int] = {}
    for position, name in enumerate((*ENSEMBLE, *STUDENTS)):
        seeds[name] = seed + position
        torch.manual_seed(seeds[name])
        networks[name] = NETWORKS[name]()
    for names, suffix, taught, seed_offset in ROUNDS:
        teacher: Float32s | None = None
        if taught and not all((work / f"{name}{suffix}.pt").is_file() for name in names):
            teacher = _teacher_logits([networks[member] for member in ENSEMBLE], pixels)
        for name in names:
            step = f"{name}{suffix}"
            checkpoint = work / f"{step}.pt"
            if checkpoint.is_file():
                networks[name].load_state_dict(torch.load(checkpoint, weights_only=True))
                networks[name].eval()
                continue
            networks[name] = train(
                networks[name],
                pixels,
                data.train.labels,
                recipes[step],
                seed=seeds[name] + seed_offset,
                teacher_logits=teacher,
                progress=progress_for(step),
            )
            partial = checkpoint.with_suffix(".partial")
            torch.save(networks[name].state_dict(), partial)
            partial.replace(checkpoint)
    return networks


def _teacher_logits(members: list[nn.Module], pixels: Float32s) -> Float32s:
    """Mean logits of the members, each on the picture and on its mirror image."""
    logits = [logits_of(MirrorAverage(member), pixels) for member in members]
    total = sum(logits[1:], start=logits[0])
    return (total / np.float32(len(members))).astype(np.float32)
