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
from runtime.core.overrides import Heard
from runtime.messages import ControlState

FILE_NAME = "control.json"
MAX_BYTES = 16 * 1024 * 1024


class _Latched(msgspec.Struct, frozen=True, omit_defaults=True):
    """The contents of the file; ``region`` is where the process was when it wrote it.

    ``heard``: region, id and instant of an override, and when it was heard of here first.
    """

    region: str
    states: tuple[ControlState, ...]
    heard: tuple[tuple[str, str, float, float], ...] = ()


_DECODER = msgspec.json.Decoder(_Latched)


class ControlLatch:
    """The control states of one process, in its state folder."""

    def __init__(self, folder: Path, region: str) -> None:
        self.path, self._region = folder / FILE_NAME, region

    def read(self) -> Known | None:
        """What was latched, nothing where there never was anything; None when it is damaged."""
        latched = self._read()
        return None if latched is None else {state.region: state for state in latched.states}

    def read_heard(self) -> Heard:
        """When what was latched had been heard of first, in the wall clock of this machine."""
        latched = self._read()
        if latched is None:
            return {}
        return {(region, one, wall_s): at_s for region, one, wall_s, at_s in latched.heard}

    def _read(self) -> _Latched | None:
        nothing = _Latched(self._region, ())
        try:
            with self.path.open("rb") as file:
                contents = file.read(MAX_BYTES)
        except FileNotFoundError:
            return nothing
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
        return latched if latched.region == self._region else nothing

    def write(self, known: Known, heard: Heard | None = None) -> None:
        """Puts what is known in place of what was; after a crash there is one of the two.

        Raises:
            ArtifactError: it could not be written; what was there stays.
        """
        rows = tuple((*key, at_s) for key, at_s in (heard or {}).items())
        text = msgspec.json.encode(_Latched(self._region, tuple(known.values()), rows))
        write_artifact(self.path, text + b"\n" + _digest(text) + b"\n")


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest().encode()
