"""The latest assignment on disk, so that a device without a network goes on with it."""

from __future__ import annotations

from pathlib import Path

from runtime.adapters.artifacts import write_artifact
from runtime.assignments import MAX_ASSIGNMENT_BYTES
from runtime.errors import ArtifactError
from runtime.logs import get_logger

NAME = "assignment"
# One byte more than is taken for an assignment.
MAX_BYTES = 2 * MAX_ASSIGNMENT_BYTES + 1


class OrderFile:
    """One file in the state folder; both methods block."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME

    def read(self) -> bytes | None:
        """The latest one of an earlier life; as untrusted as one that is heard."""
        try:
            with self._path.open("rb") as file:
                return file.read(MAX_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            get_logger().error("assignment.not_read", error=str(error))
            return None

    def write(self, payload: bytes) -> None:
        """Keeps one; where the disk does not take it, it is heard again, because it is retained."""
        try:
            write_artifact(self._path, payload)
        except ArtifactError as error:
            get_logger().error("assignment.not_kept", error=str(error))
