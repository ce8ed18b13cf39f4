"""A dataset in a folder: what a training reads, and where each example comes from.

    data-00000.npz   inputs by name, ``labels`` (int64), ``weights`` (float32) and ``items``
    manifest.json    counts, what was left out and why, and each example's origin and reason

Rules of this file:
  * the folder appears as a whole or not at all, and nothing is written over;
  * a shard has examples of one shape, so many at most; no pickles;
  * the same examples give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.core.dataset import Chosen
from runtime.errors import StartError
from runtime.messages import Tensors

MAX_SHARD_ITEMS = 512
# Names of ours, and of what numpy takes beside arrays.
RESERVED = ("labels", "weights", "items", "file", "allow_pickle")


@contextmanager
def new_dataset(folder: Path) -> Iterator[DatasetWriter]:
    """A writer; what it has written is ``folder`` once this is left without an error.

    Raises:
        StartError: there is something already, or the disk did not take it.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StartError(f"{folder} is there already: give another --out")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            writer = DatasetWriter(partial)
            yield writer
            writer.flush()
            partial.rename(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    except OSError as error:
        raise StartError(f"{folder} cannot be written: {error.strerror or error}") from error


class DatasetWriter:
    """Takes examples one after another."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: list[tuple[Chosen, dict[str, NDArray[Any]]]] = []
        self.shards: list[dict[str, Any]] = []
        self.places: list[tuple[str, int]] = []

    def add(self, chosen: Chosen, inputs: Tensors) -> int:
        """Takes an example over; returns its bytes.

        Raises:
            ValueError: it is no single example, or an input has a name of ours.
        """
        if not inputs or any(
            array.ndim == 0 or len(array) != 1 or name in RESERVED for name, array in inputs.items()
        ):
            raise ValueError("a dataset takes single examples, by names of their inputs")
        # Text as numpy's own bytes: objects would have to be pickled.
        plain = {
            name: array.astype("S") if array.dtype.kind == "O" else array
            for name, array in sorted(inputs.items())
        }
        if self._waiting and (
            len(self._waiting) >= MAX_SHARD_ITEMS
            or _signature(plain) != _signature(self._waiting[0][1])
        ):
            self.flush()
        self.places.append((self._name, len(self._waiting)))
        self._waiting.append((chosen, plain))
        return sum(array.nbytes for array in plain.values())

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Writes it, with the shards; to be called last."""
        self.flush()
        text = json.dumps(manifest | {"shards": self.shards}, indent=2, sort_keys=True)
        (self._folder / "manifest.json").write_text(text + "\n")

    def flush(self) -> None:
        """Writes the examples that wait as a shard."""
        if not self._waiting:
            return
        chosen = [one for one, _ in self._waiting]
        arrays = {
            name: np.concatenate([inputs[name] for _, inputs in self._waiting])
            for name in self._waiting[0][1]
        }
        arrays["labels"] = np.array([one.label for one in chosen], np.int64)
        arrays["weights"] = np.array([one.weight for one in chosen], np.float32)
        arrays["items"] = np.array([one.candidate.item.encode() for one in chosen])
        path = self._folder / self._name
        with path.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        self.shards.append(
            {
                "file": path.name,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "num_items": len(chosen),
                "inputs": {
                    name: [str(array.dtype), list(array.shape[1:])]
                    for name, array in arrays.items()
                    if name not in RESERVED
                },
            }
        )
        self._waiting.clear()

    @property
    def _name(self) -> str:
        return f"data-{len(self.shards):05}.npz"


def _signature(inputs: dict[str, NDArray[Any]]) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: (array.dtype.kind, array.shape) for name, array in inputs.items()}
