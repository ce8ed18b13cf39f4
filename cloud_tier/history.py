"""What was done to a repository, by whom, when and why: a line of JSON each, never changed.

A line is written before what it tells of is signed for, with the versions of the metadata that will
say so: where a repository never came to have these, the power failed in between.
"""

from __future__ import annotations

import msgspec

from runtime.adapters.model_blobs import storing
from runtime.ports_files import FileSystem

HISTORY = "history.jsonl"
MAX_BYTES = 256 << 20


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line; ``at`` is the time of the publisher's clock, ``by`` what they call themselves."""

    at: str
    by: str
    action: str
    path: str = ""
    sha256: str = ""
    role: str = ""
    reason: str = ""
    versions: dict[str, int] = {}


_DECODER = msgspec.json.Decoder(Event)


def read_history(files: FileSystem) -> list[Event]:
    """All lines, the oldest first; one that was torn by a loss of power is left out.

    Raises:
        StorageError: it cannot be read.
    """
    events: list[Event] = []
    for line in _read(files).splitlines():
        try:
            events.append(_DECODER.decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
    return events


def append_history(files: FileSystem, event: Event) -> None:
    """Adds a line, durably.

    Raises:
        StorageError: the disk did not take it.
    """
    before = _read(files)
    # After a line that was torn, a new one has to begin.
    start = b"\n" if before and not before.endswith(b"\n") else b""
    with storing(f"{HISTORY} cannot be written"):
        files.append(HISTORY, start + msgspec.json.encode(event) + b"\n")
        files.sync_file(HISTORY)
        files.sync_folder("")


def _read(files: FileSystem) -> bytes:
    with storing(f"{HISTORY} cannot be read"):
        if files.size_bytes(HISTORY) is None:
            return b""
        return files.read(HISTORY, 0, MAX_BYTES)
