"""The commit record of a model store on its disk, and a copy of it.

    state.json        the record: what it says holds
    state-copy.json   the same, for when that one has rotted

Rules of this file:
  * both are written beside their place and synced, then renamed, then the folder is synced: after a
    loss of power there is the record before or the one after, as a whole;
  * the copy is asked only where ``state.json`` is damaged or gone; it is never older than what a
    process has acted on, since whoever opens the store brings it up to date first;
  * what is damaged is never taken for an empty store.
"""

from __future__ import annotations

from typing import NamedTuple

from runtime.adapters.model_blobs import storing
from runtime.core.releases import Record, decode_record, encode_record
from runtime.errors import ArtifactError, StartError, StorageError
from runtime.logs import get_logger
from runtime.ports_files import FileSystem

STATE, COPY = "state.json", "state-copy.json"
MAX_BYTES = 32 * 1024 * 1024


class Found(NamedTuple):
    """A record, and whether both files have it."""

    record: Record
    is_twice: bool


def read_record(files: FileSystem) -> Found | None:
    """The record that holds; None where there never was one. Reads only.

    Raises:
        StartError: the record and its copy are damaged, or of a later version of Tierwise.
    """
    damage, found = list[str](), list[Record | None]()
    for name in (STATE, COPY):
        try:
            found.append(_read(files, name))
        except ArtifactError as error:
            damage.append(str(error))
            found.append(None)
    state, copy = found
    if state is not None:
        return Found(state, state == copy)
    if copy is not None:
        why = damage[0] if damage else f"{STATE} is missing"
        get_logger().error("record.recovered", why=why, commits=copy.commits)
        return Found(copy, is_twice=False)
    if damage:
        raise StartError(
            f"what the model store holds is not known: {'; '.join(damage)}. Move {STATE} and "
            f"{COPY} out of {files.full_path('')}: the model of the package is served then, model "
            "files stay, and releases are assigned anew"
        )
    return None


def write_record(files: FileSystem, record: Record) -> None:
    """Commits a record; when this returns, it outlives a loss of power.

    Raises:
        StorageError: it is not known whether the record before or this one holds.
    """
    contents = encode_record(record)
    if len(contents) > MAX_BYTES:
        raise StorageError(f"a record of {len(contents)} bytes; at most {MAX_BYTES} are read")
    with storing(f"{STATE} cannot be written"):
        for name in (STATE, COPY):
            files.write(f"{name}.tmp", contents)
            files.sync_file(f"{name}.tmp")
        for name in (COPY, STATE):
            files.rename(f"{name}.tmp", name)
        files.sync_folder("")


def _read(files: FileSystem, name: str) -> Record | None:
    source = str(files.full_path(name))
    try:
        if files.size_bytes(name) is None:
            return None
        contents = files.read(name, 0, MAX_BYTES + 1)
    except OSError as error:
        raise ArtifactError(f"{source} cannot be read: {error.strerror or error}") from error
    return decode_record(contents, source)
