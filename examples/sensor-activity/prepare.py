"""From the recordings of a smartwatch to windows of one second: python prepare.py.

The recordings come in the wheel of `seglearn` 1.2.5 (BSD-3-Clause), which pip fetches and nothing
runs: 10 people, 7 shoulder exercises, both arms, 6 channels at 50 Hz.

Networks learn from the recordings of people 1 to 6, in windows that overlap. Those of people 7 to
10 are cut into windows that share nothing and are dealt by chance to the parts that choose, certify
and judge, so that the certificate is about windows like those that are asked about: other windows
of these people. It says nothing about a person whom nobody has recorded.
"""

from __future__ import annotations

import argparse
import io
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model_zoo.idx import DataInvalidError
from model_zoo.package_files import fetch_wheel, read_members
from model_zoo.task_data import Part, Task, checked, divided, windows_of, write_task
from runtime.errors import TierwiseError
from runtime.messages import TensorSpec

WHEEL = "seglearn-1.2.5-py3-none-any.whl"
SHA256 = "ec6b952c85c9627050102854b372d85951563d3b990df677d7c55547e87413dd"
LABELS = (
    "pendulum",
    "abduction",
    "forward elevation",
    "internal rotation",
    "external rotation",
    "trapezius extension",
    "upright row",
)
CODES = ["PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW"]
CHANNELS = 6
WINDOW_STEPS = 50
TRAIN_STEP = 10
LEARNED_FROM = 6
# Of the windows of people 7 to 10: to choose on, to certify, to judge.
HELD_OUT = (0.24, 0.52, 0.24)
# All that numpy's own pickles of arrays of numbers and texts name.
_RECONSTRUCT = np.zeros(0).__reduce__()[0]
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _Reader(pickle.Unpickler):
    """Reads arrays, lists and dictionaries, and refuses to call anything else."""

    def find_class(self, module: str, name: str) -> object:
        """Only what arrays are made of."""
        if (module, name) == ("_codecs", "encode"):
            return _encoded
        if (module, name) not in _ALLOWED:
            raise DataInvalidError(f"the recordings name {module}.{name}, which is no array")
        return _ALLOWED[module, name]


def _encoded(text: str, encoding: str) -> bytes:
    """Bytes as Python 2's pickles have them."""
    return text.encode(encoding)


def read_recordings(contents: bytes) -> Mapping[str, Any]:
    """The dictionary in the file: `X` (steps, 6) each, `y`, `subject`, `y_labels`.

    Raises:
        DataInvalidError: it is none, or it lacks one of them.
    """
    file = io.BytesIO(contents)
    try:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        found: dict[str, Any] = _Reader(file).load().item()
        missing = {"X", "y", "subject", "y_labels"} - set(found)
    except (ValueError, EOFError, AttributeError, TypeError, pickle.UnpicklingError) as error:
        raise DataInvalidError(f"the recordings cannot be read: {error}") from error
    if missing:
        raise DataInvalidError(f"the recordings lack {', '.join(sorted(missing))}")
    if list(found["y_labels"]) != CODES:
        raise DataInvalidError(f"the recordings are of {list(found['y_labels'])}, not of {CODES}")
    return found


def windows(recordings: Mapping[str, Any], people: set[int], step: int) -> Part:
    """All windows of these people, with their exercise."""
    found: list[npt.NDArray[np.float32]] = [np.zeros((0, WINDOW_STEPS, CHANNELS), np.float32)]
    labels: list[int] = []
    for number, (series, label, person) in enumerate(
        zip(recordings["X"], recordings["y"], recordings["subject"], strict=True)
    ):
        if series.ndim != 2 or series.shape[1] != CHANNELS:  # noqa: PLR2004 - steps, channels
            raise DataInvalidError(f"recording {number + 1} is {series.shape}, not (steps, 6)")
        if int(person) in people:
            found.append(windows_of(series, WINDOW_STEPS, step))
            labels += [int(label)] * len(found[-1])
    return checked(
        np.concatenate(found), np.asarray(labels, np.int64), LABELS, f"people {sorted(people)}"
    )


def main(arguments: list[str]) -> int:
    """Writes build/data; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--wheel", type=Path, help=f"folder with {WHEEL} (default: pip fetches it)")
    parser.add_argument("--file", type=Path, help="recordings of the same form, for a trial")
    parser.add_argument("--output", type=Path, default=Path("build/data"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--reduced", action="store_true", help="a third of the train part")
    options = parser.parse_args(arguments)
    if options.file is not None:
        contents = options.file.read_bytes()
    else:
        folder = options.wheel or options.output.parent / "packages"
        wheel = fetch_wheel("seglearn==1.2.5", WHEEL, SHA256, folder)
        (contents,) = read_members(wheel, "watch_dataset.npy").values()
    recordings = read_recordings(contents)
    people = {int(person) for person in recordings["subject"]}
    known = {person for person in people if person <= LEARNED_FROM}
    train = windows(recordings, known, TRAIN_STEP * (3 if options.reduced else 1))
    held = windows(recordings, people - known, WINDOW_STEPS)
    parts = {"train": train} | divided(
        held, options.seed, HELD_OUT, ("calibration", "certify", "test")
    )
    task = Task(
        name="activity",
        kind="series",
        labels=LABELS,
        input=TensorSpec("series", "FP32", (-1, WINDOW_STEPS, CHANNELS)),
        data_set="smartwatch recordings of shoulder exercises (arXiv:1802.01489) in seglearn 1.2.5",
        licence="BSD-3-Clause",
        seed=options.seed,
    )
    write_task(options.output, task, parts)
    for name, part in parts.items():
        print(f"{name:<12}{len(part.labels):>6} windows")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (TierwiseError, OSError) as error:
        sys.exit(f"prepare: {error}")
