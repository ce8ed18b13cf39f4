"""Made-up tasks of each kind, to try the commands before there are data of one's own.

Nothing here is measured or real. Classes overlap, so that larger networks have something to gain.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from model_zoo.task_data import Kind
from model_zoo.task_files import Rows, rows_of
from model_zoo.text_codes import codes_of

NUM_CLASSES = 3
_STEPS, _SIDE, _COLUMNS = 40, 10, 4
_SYLLABLES = ("ka to ri mu sa ne", "ka lo ri ma sa ni", "be lo di ma fu ni")
Names = ("one", "two", "three")


def made_up_rows(kind: Kind, num: int = 4400, seed: int = 1) -> Rows:
    """``num`` examples of three classes, the same for the same seed."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, NUM_CLASSES, num)
    said = [Names[label] for label in labels]
    match kind:
        case "tabular":
            found: npt.NDArray[np.generic] = _table(random, labels)
        case "series":
            found = _series(random, labels)
        case "picture":
            found = _pictures(random, labels)
        case "text":
            found = codes_of([_text(random, label) for label in labels])
    return rows_of(found, said, kind)


def _table(random: np.random.Generator, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Rings: how far from the middle the first two columns are says most."""
    angle = random.random(len(labels)) * 2 * np.pi
    radius = 1 + labels + random.normal(0, 0.35, len(labels))
    columns = random.normal(size=(len(labels), _COLUMNS))
    columns[:, 0], columns[:, 1] = radius * np.cos(angle), radius * np.sin(angle)
    return columns


def _series(random: np.random.Generator, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Oscillations of about the frequency of their class, in two noisy channels."""
    frequency = 0.12 + 0.05 * labels + random.normal(0, 0.012, len(labels))
    phase = random.random(len(labels)) * 2 * np.pi
    angle = 2 * np.pi * frequency[:, None] * np.arange(_STEPS) + phase[:, None]
    noise = random.normal(0, 0.7, (len(labels), _STEPS, 2))
    return np.stack([np.sin(angle), np.cos(angle)], axis=2) + noise


def _pictures(
    random: np.random.Generator, labels: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """A bright bar: upright, level or slanted, somewhere in a noisy picture."""
    rows, columns = np.mgrid[:_SIDE, :_SIDE]
    place = random.integers(3, _SIDE - 3, len(labels))[:, None, None]
    distance = np.select(
        [labels[:, None, None] == 0, labels[:, None, None] == 1],
        [np.abs(columns - place), np.abs(rows - place)],
        np.abs(rows - columns + place - _SIDE // 2),
    )
    bright = 120.0 * (distance < 1) + random.normal(70, 60, distance.shape)
    found: npt.NDArray[np.float64] = np.clip(bright, 0, 255)
    return found


def _text(random: np.random.Generator, label: int) -> str:
    """Words of the class's syllables; two classes share half of them."""
    syllables = _SYLLABLES[label].split()
    words = [
        "".join(random.choice(syllables, int(random.integers(2, 4))))
        for _ in range(int(random.integers(2, 4)))
    ]
    return " ".join(words)
