"""What a trial is compared with, on disk, so that it goes on as it began after a restart."""

from __future__ import annotations

from pathlib import Path

import msgspec

from runtime.adapters.artifacts import write_artifact
from runtime.core.trial import Window
from runtime.errors import ArtifactError
from runtime.logs import get_logger

NAME = "trial.json"
_MAX_BYTES = 4096


class Compared(msgspec.Struct, frozen=True):
    """Of one trial: what the model before it did, and what it did in shadow itself."""

    generation: int
    before: Window | None = None
    seen: Window | None = None


class TrialFile:
    """One file in the state folder; both methods block. Without it a trial has only its limits."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME

    def read(self, generation: int) -> Compared:
        """That of a trial; nothing to compare with where it is not known."""
        try:
            with self._path.open("rb") as file:
                found = msgspec.json.decode(file.read(_MAX_BYTES), type=Compared)
        except FileNotFoundError:
            return Compared(generation)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            get_logger().error("trial.not_read", error=str(error))
            return Compared(generation)
        return found if found.generation == generation else Compared(generation)

    def write(self, compared: Compared) -> None:
        """Keeps it; where the disk does not take it, a restart knows less."""
        try:
            write_artifact(self._path, msgspec.json.encode(compared))
        except ArtifactError as error:
            get_logger().error("trial.not_kept", error=str(error))
