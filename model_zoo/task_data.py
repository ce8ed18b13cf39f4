"""Labelled data of anybody's task: checked, divided, and written as the commands take them.

A data folder holds ``task.json`` (``Task``) and one ``.npz`` for each part, with ``labels`` and the
model's input by name, as ``tierwise policy collect --data`` reads it:

    train         networks learn from it
    calibration   quantization, temperatures and thresholds are chosen, the policy is learned
    certify       the policy's certificate, and nothing else, ever
    test          the figures, and what a trial asks about
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from model_zoo.idx import DataInvalidError, DataMissingError
from runtime.adapters.artifacts import write_artifact
from runtime.manifest import Name
from runtime.messages import TensorSpec

Kind = Literal["picture", "series", "text", "tabular"]
KINDS: tuple[Kind, ...] = ("picture", "series", "text", "tabular")
PARTS = ("train", "calibration", "certify", "test")
# Shares of the rows, where a task has no better reason.
SHARES = (0.5, 0.15, 0.25, 0.1)
INPUT_NAMES: dict[Kind, str] = {
    "picture": "image",
    "series": "series",
    "text": "codes",
    "tabular": "values",
}
MIN_ROWS_EACH = 8
TASK_FILE = "task.json"
Values = npt.NDArray[np.float32] | npt.NDArray[np.int32]
Labels = npt.NDArray[np.int64]


class Part(NamedTuple):
    """Examples ``(n, ...)`` and their class indices ``(n,)``."""

    inputs: Values
    labels: Labels


class Task(msgspec.Struct, frozen=True):
    """What is asked: the classes, the one input, and where the data come from."""

    name: Name
    kind: Kind
    labels: tuple[str, ...]
    input: TensorSpec
    data_set: str
    licence: str
    seed: int


def checked(inputs: Values, labels: Labels, names: tuple[str, ...], source: str) -> Part:
    """The examples, when networks can learn something from them.

    Raises:
        DataInvalidError: other numbers of labels than of examples, a value that is not finite, a
            label that is no class, one class only, or too few examples of a class.
    """
    if len(inputs) != len(labels):
        raise DataInvalidError(f"{source}: {len(inputs)} examples, but {len(labels)} labels")
    finite = np.isfinite(inputs).all(axis=tuple(range(1, inputs.ndim)))
    if not finite.all():
        first = int(np.argmin(finite))
        raise DataInvalidError(
            f"{source}: {int(np.sum(~finite))} examples have a missing or infinite "
            f"value, the first is number {first + 1}; fill them in or leave these examples out"
        )
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(names):
        raise DataInvalidError(f"{source}: labels must be 0 .. {len(names) - 1}")
    counts = np.bincount(labels, minlength=len(names))
    if np.count_nonzero(counts) < 2:  # noqa: PLR2004 - fewer is nothing to tell apart
        raise DataInvalidError(f"{source}: a task needs two classes at least, there is one")
    if counts.min() < MIN_ROWS_EACH:
        raise DataInvalidError(
            f"{source}: {counts.min()} examples of {names[int(counts.argmin())]!r}; every class "
            f"needs {MIN_ROWS_EACH}, and a policy some hundred in all"
        )
    return Part(inputs, labels)


def divided(
    part: Part, seed: int, shares: tuple[float, ...] = SHARES, parts: tuple[str, ...] = PARTS
) -> dict[str, Part]:
    """Disjoint parts by name, dealt by ``seed``, each with about its share of every class.

    Of examples with equal inputs only the first is taken: in two parts, one would be judged on what
    it was chosen on.
    """
    part = without_repeats(part)
    random = np.random.default_rng(seed)
    order = random.permutation(len(part.labels))
    order = order[np.argsort(part.labels[order], kind="stable")]
    # Each class is dealt on its own, from a random place on, so that small ones get everywhere.
    bounds = np.cumsum(shares) / np.sum(shares)
    place = np.empty(len(order), np.int64)
    for label in range(int(part.labels.max()) + 1):
        rows = order[part.labels[order] == label]
        dealt = np.searchsorted(bounds, (np.arange(len(rows)) + random.random()) / len(rows) % 1)
        place[rows] = np.minimum(dealt, len(parts) - 1)
    found = {}
    for number, name in enumerate(parts):
        rows = random.permutation(np.flatnonzero(place == number))
        found[name] = Part(part.inputs[rows], part.labels[rows])
    return found


def without_repeats(part: Part) -> Part:
    """The first of all examples with the same inputs."""
    flat = np.ascontiguousarray(part.inputs.reshape(len(part.inputs), -1))
    first = {row.tobytes(): at for at, row in reversed(list(enumerate(flat)))}
    rows = np.asarray(sorted(first.values()), np.int64)
    return Part(part.inputs[rows], part.labels[rows])


def windows_of(series: npt.NDArray[np.floating], width: int, step: int) -> npt.NDArray[np.float32]:
    """``(n, width, channels)`` windows of ``(steps, channels)``; what is left at the end goes."""
    if width < 1 or step < 1:
        raise DataInvalidError(f"windows have a width and a step of at least 1: {width}, {step}")
    starts = range(0, len(series) - width + 1, step)
    found = [series[start : start + width] for start in starts]
    return np.asarray(found, np.float32).reshape(-1, width, series.shape[1])


def write_task(folder: Path, task: Task, parts: Mapping[str, Part]) -> None:
    """Writes the data folder.

    Raises:
        ArtifactError: a file could not be written.
    """
    for name, part in parts.items():
        buffer = io.BytesIO()
        arrays: dict[str, npt.NDArray[np.generic]] = {
            task.input.name: part.inputs,
            "labels": part.labels,
        }
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        write_artifact(folder / f"{name}.npz", buffer.getvalue())
    contents = msgspec.json.format(msgspec.json.encode(task), indent=2)
    write_artifact(folder / TASK_FILE, contents + b"\n")


def read_task(folder: Path) -> Task:
    """What ``write_task`` has written about the task.

    Raises:
        DataMissingError: it is not there.
        DataInvalidError: it is no description of a task.
    """
    path = folder / TASK_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Task)
    except OSError as error:
        raise DataMissingError(f"{path} is not there: run prepare.py first") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataInvalidError(f"{path} describes no task: {error}") from error


def read_part(folder: Path, task: Task, name: str) -> Part:
    """One part of the data.

    Raises:
        DataMissingError: it is not there.
        DataInvalidError: it is damaged, or not of this task.
    """
    path = folder / f"{name}.npz"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            inputs, labels = arrays[task.input.name], arrays["labels"].astype(np.int64)
    except FileNotFoundError as error:
        raise DataMissingError(f"{path} is not there: run prepare.py first") from error
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataInvalidError(f"{path} cannot be read: {error}; run prepare.py again") from error
    if inputs.shape[1:] != task.input.shape[1:]:
        raise DataInvalidError(
            f"{path} has examples of {inputs.shape[1:]}, the task of {task.input.shape[1:]}"
        )
    return Part(inputs, labels)
