"""What was seen in the field, made ready to be learned from: a part teaches, a part examines."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from model_zoo.idx import NUM_CLASSES, PICTURE_SIDE
from model_zoo.policies.collect import read_examples
from runtime.errors import StartError

Float32s = npt.NDArray[np.float32]
INPUT_NAME, WEIGHTS = "image", "weights"
# Of what was exported; it is never learned from.
HELD_SHARE = 0.2
# However much an example weighs, it is not seen more often in an epoch.
MAX_REPEATS = 10
# A person is sure, and not beyond doubt.
TRUST_IN_LABELS = 0.9
_DIGEST_RANGE = 1 << 32


class Added(NamedTuple):
    """Labelled pictures ``(n, 28, 28)`` float32 in 0..1, labels ``(n,)``, weights ``(n,)``.

    A weight of 1 and more says that a person has named the label; below, it is the chance that an
    answer was right.
    """

    pixels: Float32s
    labels: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]


class Divided(NamedTuple):
    """``taught`` is learned from, ``held`` is not."""

    taught: Added
    held: Added


def read_added(path: Path) -> Added:
    """Labelled examples of an exported folder, or of one ``.npz``; without weights each counts 1.

    Raises:
        StartError: there is nothing, or it is not of this task.
        PolicyError: a file is damaged or has no labels.
    """
    files = [path] if path.is_file() else sorted(path.glob("*.npz"))
    if not files:
        raise StartError(f"{path} has no examples: `tierwise data export` writes them")
    parts = []
    for file in files:
        examples = read_examples(str(file))
        inputs = dict(examples.inputs)
        weights = inputs.pop(WEIGHTS, np.ones(len(examples.labels)))
        pixels = inputs.pop(INPUT_NAME, None)
        if pixels is None:
            raise StartError(f"{file} has no input {INPUT_NAME!r}: it is of another task")
        parts.append((pixels, examples.labels, weights))
    pixels, labels, weights = (np.concatenate(one) for one in zip(*parts, strict=True))
    found = check_added(
        Added(pixels.astype(np.float32), labels.astype(np.int64), weights.astype(np.float64))
    )
    return part_of(found, found.weights > 0)


def check_added(added: Added) -> Added:
    """The same, if it can be learned from.

    Raises:
        StartError: shapes, numbers, classes or weights are not those of this task.
    """
    num = len(added.labels)
    if added.pixels.shape != (num, PICTURE_SIDE, PICTURE_SIDE) or len(added.weights) != num:
        raise StartError(
            f"the dataset has inputs of shape {added.pixels.shape} for {num} labels: this task "
            f"takes ({num}, {PICTURE_SIDE}, {PICTURE_SIDE})"
        )
    if not np.isfinite(added.pixels).all() or not np.isfinite(added.weights).all():
        raise StartError("the dataset holds numbers that are none: export it again")
    if num and not 0 <= added.labels.min() <= added.labels.max() < NUM_CLASSES:
        raise StartError(f"the dataset has labels outside 0 to {NUM_CLASSES - 1}")
    if num and added.weights.min() < 0:
        raise StartError("the dataset has weights below 0")
    return added


def divide(added: Added, held_share: float = HELD_SHARE) -> Divided:
    """Holds a share back, by what is in a picture: the same one never falls on both sides."""
    drawn = np.asarray(
        [
            int.from_bytes(hashlib.sha256(np.ascontiguousarray(one).tobytes()).digest()[:4])
            for one in added.pixels
        ],
        np.float64,
    )
    is_held = drawn < held_share * _DIGEST_RANGE
    return Divided(part_of(added, ~is_held), part_of(added, is_held))


def repeated(added: Added) -> Added:
    """Each example as often as its weight says, once at least and ``MAX_REPEATS`` at most."""
    times = np.clip(np.rint(added.weights), 1, MAX_REPEATS).astype(np.int64)
    return part_of(added, np.repeat(np.arange(len(times)), times))


def taught_logits(labels: npt.NDArray[np.int64]) -> Float32s:
    """``(n, 10)`` logits of a teacher who says what a person has said."""
    others = (1.0 - TRUST_IN_LABELS) / (NUM_CLASSES - 1)
    shares = np.full((len(labels), NUM_CLASSES), others)
    shares[np.arange(len(labels)), labels] = TRUST_IN_LABELS
    logits: Float32s = np.log(shares).astype(np.float32)
    return logits


def is_said(added: Added) -> npt.NDArray[np.bool_]:
    """``(n,)`` whether a person has named the label."""
    return np.asarray(added.weights >= 1)


def part_of(added: Added, chosen: npt.NDArray[np.bool_ | np.int64]) -> Added:
    """Some of the examples, by mask or by number."""
    return Added(added.pixels[chosen], added.labels[chosen], added.weights[chosen])
