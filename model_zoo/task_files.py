"""Reads anybody's labelled data: a `.csv` or an `.npz` with documented names.

| kind | `.csv` (first line: names) | `.npz` (arrays) |
|---|---|---|
| `tabular` | `label`, every other column a number | `values` (n, columns), `labels` (n,) |
| `text` | `label`, `text` | `texts` (n,), `labels` (n,) |
| `series` | `label`, `recording`, every other column a channel, a line each step | `series` (n, steps, channels), `labels` (n,) |
| `picture` | - | `pictures` (n, height, width) or (n, height, width, colours), `labels` (n,) |

Labels are texts or whole numbers; their names in order are the classes. The lines of a recording
follow one another in time and have one label; it is cut into windows that share nothing.
"""  # noqa: E501 - a table

from __future__ import annotations

import csv
import zipfile
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from model_zoo.idx import DataInvalidError, DataMissingError
from model_zoo.task_data import INPUT_NAMES, Kind, Labels, Values, windows_of
from model_zoo.text_codes import DEFAULT_LENGTH, codes_of
from runtime.messages import TensorSpec

DEFAULT_WINDOW = 50
_ARRAYS: dict[Kind, str] = {
    "picture": "pictures",
    "series": "series",
    "text": "texts",
    "tabular": "values",
}
_AXES: dict[Kind, tuple[int, ...]] = {
    "picture": (3, 4),
    "series": (3,),
    "text": (1,),
    "tabular": (2,),
}


class Rows(NamedTuple):
    """Examples as the model takes them, class indices, and the names of the classes."""

    inputs: Values
    labels: Labels
    names: tuple[str, ...]

    def spec(self, kind: Kind) -> TensorSpec:
        """The model's input."""
        datatype = "INT32" if self.inputs.dtype == np.int32 else "FP32"
        return TensorSpec(INPUT_NAMES[kind], datatype, (-1, *self.inputs.shape[1:]))


def read_rows(
    path: Path, kind: Kind, *, window: int = DEFAULT_WINDOW, length: int = DEFAULT_LENGTH
) -> Rows:
    """All examples of a file; ``window`` is of series in a `.csv`, ``length`` of texts.

    Raises:
        DataMissingError: there is no such file.
        DataInvalidError: an array or a column is missing, or a value is not what it should be.
    """
    if not path.is_file():
        raise DataMissingError(f"{path} is not there; give a .csv or an .npz of labelled {kind}")
    match path.suffix.lower():
        case ".npz":
            return _from_arrays(path, kind, length)
        case ".csv" if kind != "picture":
            return _from_table(path, kind, window, length)
        case _:
            forms = "an .npz" if kind == "picture" else "a .csv or an .npz"
            raise DataInvalidError(f"{path}: labelled {kind} is read from {forms}")


def rows_of(given: npt.NDArray[np.generic], labels: Sequence[object], kind: Kind) -> Rows:
    """Examples and labels of any kind as a model takes them."""
    said = [str(label) for label in labels]
    try:
        names = tuple(str(name) for name in sorted({int(label) for label in said}))
        known = {name: number for number, name in enumerate(names)}
        classes = [known[str(int(label))] for label in said]
    except ValueError:
        names = tuple(sorted(set(said)))
        known = {name: number for number, name in enumerate(names)}
        classes = [known[label] for label in said]
    values: Values = given.astype(np.int32) if kind == "text" else given.astype(np.float32)
    return Rows(values, np.asarray(classes, np.int64), names)


def _from_arrays(path: Path, kind: Kind, length: int) -> Rows:
    wanted = _ARRAYS[kind]
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataInvalidError(f"{path} cannot be read: {error}") from error
    missing = [name for name in (wanted, "labels") if name not in found]
    if missing:
        raise DataInvalidError(
            f"{path} has the arrays {sorted(found)}, but no {' and no '.join(missing)}"
        )
    values, labels = found[wanted], found["labels"]
    is_text = values.dtype.kind == "U"
    if is_text != (kind == "text") or (not is_text and values.dtype.kind not in "fiu"):
        raise DataInvalidError(f"{path}: `{wanted}` of {kind} cannot be {values.dtype}")
    if values.ndim not in _AXES[kind] or labels.shape != values.shape[:1]:
        raise DataInvalidError(
            f"{path}: `{wanted}` is {values.shape} and `labels` {labels.shape}; {kind} needs "
            f"{' or '.join(map(str, _AXES[kind]))} axes, and a label each"
        )
    if labels.dtype.kind not in "iuU":
        raise DataInvalidError(f"{path}: labels must be whole numbers or texts: {labels.dtype}")
    if kind == "text":
        values = codes_of(values.tolist(), length)
    return rows_of(values, labels.tolist(), kind)


def _from_table(path: Path, kind: Kind, window: int, length: int) -> Rows:
    wanted = {"tabular": [], "text": ["text"], "series": ["recording"]}[kind]
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            head, *lines = [line for line in csv.reader(file) if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataInvalidError(f"{path} cannot be read: {error}") from error
    except ValueError as error:
        raise DataInvalidError(f"{path} is empty; its first line names the columns") from error
    missing = [name for name in ["label", *wanted] if name not in head]
    if missing:
        raise DataInvalidError(
            f"{path} has the columns {', '.join(head)}, but no {' and no '.join(missing)}"
        )
    if len(set(head)) < len(head):
        raise DataInvalidError(f"{path} has a column twice: {', '.join(head)}")
    for number, line in enumerate(lines, 2):
        if len(line) != len(head):
            raise DataInvalidError(f"{path}, line {number}: {len(line)} values, not {len(head)}")
    labels = [line[head.index("label")] for line in lines]
    if kind == "text":
        texts = [line[head.index("text")] for line in lines]
        return rows_of(codes_of(texts, length), labels, kind)
    columns = [at for at, name in enumerate(head) if name not in {"label", *wanted}]
    if not columns:
        raise DataInvalidError(f"{path} has no column of numbers beside {', '.join(head)}")
    values = np.asarray(
        [[_number(line[at], path, number, head[at]) for at in columns]
         for number, line in enumerate(lines, 2)],
        np.float32,
    ).reshape(len(lines), len(columns))  # fmt: skip
    if kind == "tabular":
        return rows_of(values, labels, kind)
    return _cut(path, [line[head.index("recording")] for line in lines], labels, values, window)


def _cut(path: Path, recordings: list[str], labels: list[str], values: Values, window: int) -> Rows:
    parts = [np.zeros((0, window, values.shape[1]), np.float32)]
    said: list[str] = []
    at: Callable[[int], str] = recordings.__getitem__
    for recording, steps in groupby(range(len(recordings)), key=at):
        rows = list(steps)
        found = {labels[row] for row in rows}
        if len(found) > 1:
            raise DataInvalidError(f"{path}: recording {recording!r} has several labels: {found}")
        parts.append(windows_of(values[rows].astype(np.float32), window, window))
        said += [labels[rows[0]]] * len(parts[-1])
    if not said:
        raise DataInvalidError(f"{path}: no recording is as long as a window of {window} steps")
    return rows_of(np.concatenate(parts), said, "series")


def _number(text: str, path: Path, line: int, column: str) -> float:
    try:
        return float(text)
    except ValueError:
        # An empty place is a missing value; `checked` says how many there are, and where.
        if not text.strip():
            return float("nan")
        raise DataInvalidError(f"{path}, line {line}: {column} is {text!r}, no number") from None
