"""What was stopped last, kept on disk, so that a device that starts without a network obeys it.

The file is JSON in one line, with its SHA-256 in the next. Whether a damaged file said ``stop``
nobody can know: it is told from a missing one, and stays in place until there is something better.
What was latched in another region is no longer about this process.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from runtime.adapters.artifacts import write_artifact
from runtime.core.control import Known, is_usable
from runtime.messages import ControlState

FILE_NAME = "control.json"
MAX_BYTES = 16 * 1024 * 1024


class _Latched(msgspec.Struct, frozen=True):
    """The contents of the file; ``region`` is where the process was when it wrote it."""

    region: str
    states: tuple[ControlState, ...]


_DECODER = msgspec.json.Decoder(_Latched)


class ControlLatch:
    """The control states of one process, in its state folder."""

    def __init__(self, folder: Path, region: str) -> None:
        self.path, self._region = folder / FILE_NAME, region

    def read(self) -> Known | None:
        """What was latched, nothing where there never was anything; None when it is damaged."""
        try:
            with self.path.open("rb") as file:
                contents = file.read(MAX_BYTES)
        except FileNotFoundError:
            return {}
        except OSError:
            return None
        text, _, digest = contents.partition(b"\n")
        if digest.strip() != _digest(text):
            return None
        try:
            latched = _DECODER.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        if not all(map(is_usable, latched.states)):
            return None
        is_moved = latched.region != self._region
        return {} if is_moved else {state.region: state for state in latched.states}

    def write(self, known: Known) -> None:
        """Puts what is known in place of what was; after a crash there is one of the two.

        Raises:
            ArtifactError: it could not be written; what was there stays.
        """
        text = msgspec.json.encode(_Latched(self._region, tuple(known.values())))
        write_artifact(self.path, text + b"\n" + _digest(text) + b"\n")


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest().encode()
