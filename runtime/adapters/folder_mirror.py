"""A repository of signed models in a folder of this machine, as a mirror."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from runtime.adapters.filesystem import LocalFiles
from runtime.errors import FetchError, MissingFileError, StartError

PIECE_BYTES = 1 << 16


class FolderMirror:
    """Implements ``runtime.ports_files.Mirror``.

    Raises:
        StartError: there is no such folder.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise StartError(f"{folder} is not a folder; a repository was expected there")
        self._files = LocalFiles(folder)

    def read(self, path: str) -> Iterator[bytes]:
        """See the port."""
        at = 0
        while True:
            try:
                if at == 0 and self._files.size_bytes(path) is None:
                    raise MissingFileError(f"{self._files.full_path(path)} is not there")
                piece = self._files.read(path, at, PIECE_BYTES)
            except ValueError as error:
                raise MissingFileError(str(error)) from error
            except OSError as error:
                raise FetchError(
                    f"{self._files.full_path(path)} cannot be read: {error.strerror or error}"
                ) from error
            if not piece:
                return
            at += len(piece)
            yield piece
