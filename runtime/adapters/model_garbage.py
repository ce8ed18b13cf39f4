"""What a model store no longer needs, and whether something new would fit.

Rules of this file:
  * only what the committed record does not name is deleted, and nothing is deleted to make room for
    something new: where that does not fit, it is refused with the figures;
  * partial files that nobody wants stay for a week: the same release is often assigned again;
  * files whose names no store has written are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from runtime.adapters.model_blobs import BLOBS, PARTIAL
from runtime.adapters.model_folders import FOLDERS
from runtime.errors import NoRoomError
from runtime.ports_files import FileSystem

RESERVE_BYTES = 64 * 1024 * 1024
PARTIAL_MAX_AGE_S = 7 * 86_400.0
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class Collected:
    """What was deleted."""

    num_blobs: int = 0
    num_partials: int = 0
    num_folders: int = 0
    num_bytes: int = 0


def collect(
    files: FileSystem,
    *,
    blobs: Collection[str],
    releases: Collection[str],
    now_s: float,
) -> Collected:
    """Deletes all blobs but these, folders of all releases but these, and old partial files.

    Raises:
        OSError: something could not be deleted; what is left is garbage next time, too.
    """
    num_bytes = 0
    folders = [name for name in _digests(files, FOLDERS) if name not in releases]
    for folder in folders:
        for name in files.names(f"{FOLDERS}/{folder}"):
            files.unlink(f"{FOLDERS}/{folder}/{name}")
        files.remove_folder(f"{FOLDERS}/{folder}")
    old_blobs = [f"{BLOBS}/{name}" for name in _digests(files, BLOBS) if name not in blobs]
    old_partials = [
        path
        for name in _digests(files, PARTIAL)
        if name not in blobs
        and now_s - files.modified_s(path := f"{PARTIAL}/{name}") > PARTIAL_MAX_AGE_S
    ]
    for path in (*old_blobs, *old_partials):
        num_bytes += files.size_bytes(path) or 0
        files.unlink(path)
    return Collected(len(old_blobs), len(old_partials), len(folders), num_bytes)


def used_bytes(files: FileSystem) -> int:
    """What whole and partial files take; folders of releases are further names of the same.

    Raises:
        OSError: a folder cannot be read.
    """
    return sum(
        files.size_bytes(f"{folder}/{name}") or 0
        for folder in (BLOBS, PARTIAL)
        for name in files.names(folder)
    )


def check_room(
    files: FileSystem, new_bytes: int, *, quota_bytes: int | None, reserve_bytes: int
) -> None:
    """Says nothing where so much more fits.

    Raises:
        NoRoomError: it does not fit on the disk, or not into the quota; the text has the figures.
        OSError: how much is free cannot be found out.
    """
    free = files.free_bytes()
    if free < new_bytes + reserve_bytes:
        raise NoRoomError(
            f"{new_bytes} bytes more and a reserve of {reserve_bytes} do not fit on the disk: "
            f"{free} are free. Free {new_bytes + reserve_bytes - free} more; what serves and what "
            "can be gone back to is not deleted for it"
        )
    used = used_bytes(files)
    if quota_bytes is not None and used + new_bytes > quota_bytes:
        raise NoRoomError(
            f"{new_bytes} bytes more do not fit into the store's quota of {quota_bytes}: {used} "
            f"are used. Raise it by {used + new_bytes - quota_bytes} or assign a smaller release"
        )


def _digests(files: FileSystem, folder: str) -> list[str]:
    return [name for name in files.names(folder) if _DIGEST.match(name)]
