"""Files as a store needs them, in single steps: a test can cut the power between any two.

What survives a loss of power: contents that were synced (``sync_file``), under names whose folder
was synced afterwards (``sync_folder``). Everything else may be there, be gone, or be half there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol


class FileSystem(Protocol):
    """One folder and what is in it; paths are relative to it, with ``/``; ``""`` is the folder.

    Paths lead nowhere else: one that is absolute or has ``..`` in it is a ``ValueError``. A file
    that is a symbolic link is neither read nor written. All methods raise ``OSError``: the disk is
    full, broken or read-only, or there is no such file.
    """

    def lock(self, path: str) -> bool:
        """Takes the folder for this process; False when another one has it.

        Held until ``unlock``, or the end of the process however it ends.
        """
        ...

    def unlock(self) -> None:
        """Gives the folder back; does nothing when it is not held."""
        ...

    def make_folder(self, path: str) -> None:
        """Makes a folder where none is; the one above it has to be there."""
        ...

    def remove_folder(self, path: str) -> None:
        """Removes an empty folder."""
        ...

    def write(self, path: str, contents: bytes) -> None:
        """Makes a file of these contents, in place of one that is there."""
        ...

    def append(self, path: str, contents: bytes) -> None:
        """Adds to the end of a file, and makes it where there is none."""
        ...

    def read(self, path: str, offset_bytes: int, limit_bytes: int) -> bytes:
        """At most ``limit_bytes`` from there on; nothing past the end."""
        ...

    def size_bytes(self, path: str) -> int | None:
        """The length of a regular file; None where there is no such file."""
        ...

    def modified_s(self, path: str) -> float:
        """When it was written last, by the clock of this machine."""
        ...

    def names(self, path: str) -> list[str]:
        """What is in a folder, sorted."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Gives a file another name, in place of one that is there: at once, or not at all."""
        ...

    def link(self, old: str, new: str) -> None:
        """Gives a file one more name; not every file system can."""
        ...

    def unlink(self, path: str) -> None:
        """Removes a name of a file."""
        ...

    def set_read_only(self, path: str) -> None:
        """Takes everybody's permission to write to a file."""
        ...

    def sync_file(self, path: str) -> None:
        """Returns when the contents of a file are on the disk."""
        ...

    def sync_folder(self, path: str) -> None:
        """Returns when the names in a folder are on the disk."""
        ...

    def free_bytes(self) -> int:
        """What this process may still write to the disk."""
        ...

    def full_path(self, path: str) -> Path:
        """Where that is, for those who read it by other means."""
        ...


class Mirror(Protocol):
    """Whoever serves a repository of signed models; what it says is believed of no file."""

    def read(self, path: str) -> Iterator[bytes]:
        """A file piece by piece, by its path in the repository; no piece is empty.

        Both errors are raised here or between two pieces. An answer that takes too long is one.

        Raises:
            MissingFileError: there is no such file.
            FetchError: the mirror does not answer, or not to the end.
        """
        ...
