"""Files by their digest: read-only once they are whole, verified when written and when used.

    partial/<sha256>   what has arrived so far
    blobs/<sha256>     the whole file, verified

Rules of this file:
  * whatever ``append`` has returned for outlives a loss of power, so that a download goes on there;
  * a file is renamed into ``blobs`` only after all of it was read back, verified and synced;
  * what arrives and is not what was promised is thrown away at once, and the caller is told.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
from collections.abc import Iterator

from runtime.errors import ArtifactError, NoRoomError, StorageError
from runtime.logs import get_logger
from runtime.manifest import ModelFile
from runtime.ports_files import FileSystem

BLOBS, PARTIAL = "blobs", "partial"
CHUNK_BYTES = 1 << 20


@contextlib.contextmanager
def storing(what: str) -> Iterator[None]:
    """Turns ``OSError`` into what the rest of the program knows.

    Raises:
        NoRoomError: the disk or its quota is full.
        StorageError: anything else that the disk did not do.
    """
    try:
        yield
    except OSError as error:
        kind = NoRoomError if error.errno in {errno.ENOSPC, errno.EDQUOT} else StorageError
        raise kind(f"{what}: {error.strerror or error}") from error


class Blobs:
    """The files of one store. All methods raise ``StorageError`` where the disk fails."""

    def __init__(self, files: FileSystem) -> None:
        self._files = files
        self._entered: set[str] = set()
        self._log = get_logger()

    def has(self, file: ModelFile) -> bool:
        """Whether a file of that digest and size is there; its contents are not looked at."""
        with storing("a model file cannot be found"):
            return self._files.size_bytes(blob_path(file)) == file.size_bytes

    def is_intact(self, file: ModelFile) -> bool:
        """Whether it is there and is what it should be; reads all of it.

        One that is not is removed, so that it can be fetched anew; one that cannot be read stays.
        """
        path = blob_path(file)
        with storing("a damaged model file cannot be removed"):
            if self._files.size_bytes(path) is None:
                return False
            try:
                if holds(self._files, path, file):
                    return True
            except OSError as error:
                self._log.error("blob.unreadable", sha256=file.sha256, error=str(error))
                return False
            self._files.unlink(path)
        self._log.error("blob.rotten", sha256=file.sha256)
        return False

    def read(self, file: ModelFile, offset_bytes: int, limit_bytes: int) -> bytes:
        """At most so much of a whole file from there on; it is not verified here."""
        with storing("a model file cannot be read"):
            return self._files.read(blob_path(file), offset_bytes, limit_bytes)

    def offset_bytes(self, file: ModelFile) -> int:
        """How much of it has arrived: where to go on."""
        with storing("a partial model file cannot be found"):
            size = self._files.size_bytes(_partial_path(file)) or 0
        if size > file.size_bytes:
            self.discard(file)
            return 0
        return size

    def append(self, file: ModelFile, offset_bytes: int, chunk: bytes) -> int:
        """Keeps the next piece, durably; returns how much there is now.

        Raises:
            ValueError: the piece does not begin where the last one ended.
            ArtifactError: there is more of it than was promised; all of it was thrown away.
        """
        size = self.offset_bytes(file)
        if offset_bytes != size:
            raise ValueError(f"{file.sha256} goes on at {size} bytes, not at {offset_bytes}")
        if size + len(chunk) > file.size_bytes:
            self.discard(file)
            raise ArtifactError(
                f"more than the {file.size_bytes} bytes of {file.sha256} arrived; all of it was "
                "thrown away: fetch it from another mirror"
            )
        path = _partial_path(file)
        with storing("a model file cannot be written"):
            self._files.append(path, chunk)
            self._files.sync_file(path)
            if file.sha256 not in self._entered:
                self._files.sync_folder(PARTIAL)
                self._entered.add(file.sha256)
        return size + len(chunk)

    def finish(self, file: ModelFile) -> None:
        """Verifies what has arrived and puts it among the whole files.

        Raises:
            ArtifactError: some of it is missing (what there is stays), or it is another file (and
                was thrown away).
        """
        path = _partial_path(file)
        if self.has(file) and self.is_intact(file):
            self.discard(file)
            return
        size = self.offset_bytes(file)
        if size < file.size_bytes:
            raise ArtifactError(
                f"{size} of the {file.size_bytes} bytes of {file.sha256} have arrived: go on there"
            )
        with storing("a model file cannot be put in its place"):
            if not holds(self._files, path, file):
                self.discard(file)
                raise ArtifactError(
                    f"what arrived is not {file.sha256}; all of it was thrown away: fetch it again "
                    "once, and from another mirror if it happens again"
                )
            self._files.set_read_only(path)
            self._files.sync_file(path)
            self._files.rename(path, blob_path(file))
            self._files.sync_folder(BLOBS)
        self._entered.discard(file.sha256)

    def put(self, file: ModelFile, contents: bytes) -> None:
        """Keeps a file that is at hand as a whole.

        Raises:
            ArtifactError: these are other contents.
        """
        if self.has(file) and self.is_intact(file):
            return
        self.discard(file)
        for start in range(0, len(contents), CHUNK_BYTES):
            self.append(file, start, contents[start : start + CHUNK_BYTES])
        self.finish(file)

    def discard(self, file: ModelFile) -> None:
        """Throws away what has arrived of it, if anything has."""
        path = _partial_path(file)
        self._entered.discard(file.sha256)
        with storing("a partial model file cannot be removed"):
            if self._files.size_bytes(path) is not None:
                self._files.unlink(path)


def blob_path(file: ModelFile) -> str:
    """Where the whole file is."""
    return f"{BLOBS}/{file.sha256}"


def _partial_path(file: ModelFile) -> str:
    return f"{PARTIAL}/{file.sha256}"


def holds(files: FileSystem, path: str, file: ModelFile) -> bool:
    """Whether the file at ``path`` has that length and digest; reads it piece by piece.

    Raises:
        OSError: it cannot be read.
    """
    if files.size_bytes(path) != file.size_bytes:
        return False
    digest = hashlib.sha256()
    for offset in range(0, file.size_bytes, CHUNK_BYTES):
        digest.update(files.read(path, offset, CHUNK_BYTES))
    return digest.hexdigest() == file.sha256
