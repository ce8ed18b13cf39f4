"""Entries of the catalogue on this disk, by the digest that was signed for."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterable, Iterator

from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import TargetFile

from runtime.adapters.model_blobs import storing
from runtime.adapters.trust_errors import Tampering, tampered, verifying
from runtime.catalogue import MAX_ENTRY_BYTES, CatalogueEntry, decode_entry
from runtime.errors import ArtifactError, FetchError
from runtime.manifest import ModelFile
from runtime.ports_files import FileSystem, Mirror

ENTRIES = "entries"
TARGETS_FOLDER = "targets"
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


class Entries:
    """Implements the part of a catalogue that fetches and keeps entries.

    Raises:
        StorageError: the folder cannot be used.
    """

    def __init__(self, files: FileSystem) -> None:
        self._files = files
        with storing("entries of the catalogue cannot be kept"):
            files.make_folder(ENTRIES)

    def kept(self, target: TargetFile) -> CatalogueEntry | None:
        """The entry, if it is here as a whole."""
        name = f"{ENTRIES}/{_pinned(target).sha256}"
        with storing(f"{target.path} of the catalogue cannot be read"):
            if self._files.size_bytes(name) != target.length:
                return None
            contents = self._files.read(name, 0, target.length)
        with contextlib.suppress(LengthOrHashMismatchError):
            target.verify_length_and_hashes(contents)
            return decode_entry(contents, target.path)
        return None

    def fetch(self, target: TargetFile, mirror: Mirror) -> CatalogueEntry:
        """The entry from a mirror; it is kept.

        Raises:
            SecurityError: it is not what was signed for.
            FetchError: the mirror does not have it, or does not answer.
            ArtifactError: what was signed is no entry that is understood here.
            StorageError: it cannot be kept.
        """
        file = _pinned(target)
        contents = _read(mirror, mirror_path(target.path, file.sha256), target)
        with verifying():
            target.verify_length_and_hashes(contents)
        entry = decode_entry(contents, target.path)
        name = f"{ENTRIES}/{file.sha256}"
        with storing(f"{target.path} of the catalogue cannot be kept"):
            self._files.write(f"{name}.tmp", contents)
            self._files.sync_file(f"{name}.tmp")
            self._files.rename(f"{name}.tmp", name)
            self._files.sync_folder(ENTRIES)
        return entry

    def drop_others(self, targets: Iterable[TargetFile]) -> None:
        """Forgets what is in the catalogue no longer.

        Raises:
            StorageError: the disk failed.
        """
        wanted = {target.hashes.get("sha256") for target in targets}
        with storing("old entries of the catalogue cannot be removed"):
            for name in self._files.names(ENTRIES):
                if name not in wanted:
                    self._files.unlink(f"{ENTRIES}/{name}")


def mirror_path(path: str, sha256: str) -> str:
    """Where a repository has the entry at ``path``: its digest is in the file's name."""
    folder, slash, name = path.rpartition("/")
    return f"{TARGETS_FOLDER}/{folder}{slash}{sha256}.{name}"


def whole_pieces(mirror: Mirror, path: str) -> Iterator[bytes]:
    """What a mirror sends; one that sends nothing for ever is stopped, too.

    Raises:
        FetchError: as the mirror says, or a piece is empty.
    """
    for piece in mirror.read(path):
        if not piece:
            raise FetchError(f"the mirror sends {path} in empty pieces: ask another one")
        yield piece


def _pinned(target: TargetFile) -> ModelFile:
    sha256 = target.hashes.get("sha256", "")
    if not _SHA256.match(sha256):
        raise ArtifactError(f"{target.path} is signed for without a SHA-256: publish it again")
    if not 0 < target.length <= MAX_ENTRY_BYTES:
        raise ArtifactError(
            f"{target.path} has {target.length} bytes; an entry has at most {MAX_ENTRY_BYTES}"
        )
    return ModelFile(sha256, target.length)


def _read(mirror: Mirror, path: str, target: TargetFile) -> bytes:
    contents = io.BytesIO()
    for piece in whole_pieces(mirror, path):
        contents.write(piece)
        if contents.tell() > target.length:
            raise tampered(
                f"{path} has more than the {target.length} bytes that were signed for",
                Tampering.TOO_LONG,
            )
    return contents.getvalue()
