"""Trains the five networks of the bundled Fashion-MNIST task: the ensemble, then its students.

Every trained network is kept in the work folder, so that a build that was stopped goes on where it
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
    teacher: Float32s | None = None
    for position, name in enumerate((*ENSEMBLE, *STUDENTS)):
        torch.manual_seed(seed + position)
        network = NETWORKS[name]()
        checkpoint = work / f"{name}.pt"
        if checkpoint.is_file():
            network.load_state_dict(torch.load(checkpoint, weights_only=True))
        else:
            if name in STUDENTS and teacher is None:
                teacher = _teacher_logits([networks[member] for member in ENSEMBLE], pixels)
            network = train(
                network,
                pixels,
                data.train.labels,
                recipes[name],
                seed=seed + position,
                teacher_logits=teacher if name in STUDENTS else None,
                progress=progress_for(name),
            )
            partial = checkpoint.with_suffix(".partial")
            torch.save(network.state_dict(), partial)
            partial.replace(checkpoint)
        networks[name] = network.eval()
    return networks


def _teacher_logits(members: list[nn.Module], pixels: Float32s) -> Float32s:
    """Mean logits of the members, each on the picture and on its mirror image."""
    logits = [logits_of(MirrorAverage(member), pixels) for member in members]
    total = sum(logits[1:], start=logits[0])
    return (total / np.float32(len(members))).astype(np.float32)
