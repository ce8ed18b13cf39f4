"""What a mirror keeps: one folder, one process, a byte quota.

    lock                  held by the process
    blobs/, partial/      files by digest (runtime.adapters.model_blobs)
    documents/<name>      metadata and targets as published; ``%`` stands for ``/``

Rules of this file:
  * files and what has arrived of others stay within the quota, and the disk keeps its reserve; room
    is made by giving up the least recently used, never what is pinned, served or arriving;
  * a file is verified when it arrives, and once more before it is served for the first time in the
    life of a process;
  * documents are replaced whole; they have a bound of their own.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator
from pathlib import Path

from runtime.adapters.filesystem import LocalFiles
from runtime.adapters.model_blobs import BLOBS, PARTIAL, Blobs, storing
from runtime.adapters.model_garbage import RESERVE_BYTES
from runtime.core.eviction import to_evict
from runtime.core.update_paths import is_immutable, is_root
from runtime.errors import NoRoomError, StartError, StorageError
from runtime.logs import get_logger
from runtime.manifest import ModelFile
from runtime.ports_files import FileSystem

DOCUMENTS, LOCK = "documents", "lock"
MAX_DOCUMENTS_BYTES = 64 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


class MirrorStore:
    """To be closed; methods that touch the disk are for threads, the others for the event loop.

    Raises:
        StartError: another process has the folder.
        StorageError: it cannot be used.
    """

    def __init__(
        self, files: FileSystem, *, max_bytes: int, reserve_bytes: int = RESERVE_BYTES
    ) -> None:
        self._files, self._max_bytes, self._reserve_bytes = files, max_bytes, reserve_bytes
        self.blobs = Blobs(files)
        self._pins: dict[str, frozenset[str]] = {}
        self._served = Counter[str]()
        self._arriving: dict[str, int] = {}
        self._verified: set[str] = set()
        self._documents_lock = threading.Lock()
        self._log = get_logger(mirror=str(files.full_path("")))
        with storing("the mirror's folder cannot be used"):
            if not files.lock(LOCK):
                raise StartError(
                    f"another process has the mirror {files.full_path('')}: stop it first, or set "
                    "updates.folder to another one"
                )
            try:
                for folder in (BLOBS, PARTIAL, DOCUMENTS):
                    files.make_folder(folder)
                self._sizes = self._found(BLOBS)
                self._partial = self._found(PARTIAL)
            except BaseException:
                files.unlock()
                raise

    @classmethod
    def at(cls, folder: Path, *, max_bytes: int) -> MirrorStore:
        """The one in a folder of the local disk, which is made when missing."""
        with storing(f"{folder} cannot be used"):
            files = LocalFiles(folder)
        return cls(files, max_bytes=max_bytes)

    @property
    def used_bytes(self) -> int:
        """Whole files, and others at their full length while they arrive."""
        idle = {one: size for one, size in self._partial.items() if one not in self._arriving}
        return sum(self._sizes.values()) + sum(idle.values()) + sum(self._arriving.values())

    def pin(self, owner: str, digests: Collection[str]) -> None:
        """Keeps these for ``owner``, in place of those that it has named before."""
        self._pins[owner] = frozenset(digests)

    def file(self, sha256: str) -> ModelFile | None:
        """What is here in whole under that digest; it counts as used now."""
        size = self._sizes.get(sha256)
        if size is None:
            return None
        self._sizes.move_to_end(sha256)
        return ModelFile(sha256, size)

    @contextlib.contextmanager
    def serving(self, sha256: str) -> Iterator[None]:
        """Keeps a file for so long."""
        self._served[sha256] += 1
        try:
            yield
        finally:
            self._served[sha256] -= 1
            if not self._served[sha256]:
                del self._served[sha256]

    @contextlib.contextmanager
    def arriving(self, file: ModelFile) -> Iterator[None]:
        """Makes room for a file, and keeps it until that is over.

        Raises:
            NoRoomError: what may be given up is not enough; nothing was.
            StorageError: the disk failed.
        """
        self._make_room(file)
        self._arriving[file.sha256] = file.size_bytes
        try:
            yield
        finally:
            del self._arriving[file.sha256]
            arrived_bytes = self.blobs.offset_bytes(file)
            self._partial.pop(file.sha256, None)
            if arrived_bytes:
                self._partial[file.sha256] = arrived_bytes
            if self.blobs.has(file):
                self._sizes[file.sha256] = file.size_bytes
                self._verified.add(file.sha256)

    def is_intact(self, file: ModelFile) -> bool:
        """Whether it is what it should be; it is removed if not. Read once in a process's life."""
        if file.sha256 in self._verified:
            return True
        if self.blobs.is_intact(file):
            self._verified.add(file.sha256)
            return True
        return False

    def forget(self, file: ModelFile) -> None:
        """It is not here any more."""
        self._sizes.pop(file.sha256, None)
        self._verified.discard(file.sha256)

    def document(self, path: str) -> bytes | None:
        """As it was kept last.

        Raises:
            StorageError: it cannot be read.
        """
        name = _document_name(path)
        with storing("a document cannot be read"):
            size = self._files.size_bytes(name)
            return None if size is None else self._files.read(name, 0, size)

    def keep_document(self, path: str, contents: bytes, needed: Collection[str] = ()) -> None:
        """Keeps it durably, in place of what was there; all but ``needed`` may go for it.

        Raises:
            NoRoomError: it does not fit.
            StorageError: the disk failed.
        """
        name = _document_name(path)
        # Several threads may bring the same one.
        with self._documents_lock, storing("a document cannot be kept"):
            sizes = self._found(DOCUMENTS)
            keep = {_quoted(one) for one in (*needed, path)}
            keep |= {one for one in sizes if is_root(one.replace("%", "/"))}
            excess = sum(sizes.values()) + len(contents) - MAX_DOCUMENTS_BYTES
            gone = to_evict(sizes, keep=keep, excess_bytes=excess)
            if gone is None:
                raise NoRoomError(f"documents take more than {MAX_DOCUMENTS_BYTES} bytes")
            for one in gone:
                self._files.unlink(f"{DOCUMENTS}/{one}")
            part = f"{LOCK}.part-{hashlib.sha256(path.encode()).hexdigest()[:16]}"
            self._files.write(part, contents)
            self._files.sync_file(part)
            self._files.rename(part, name)
            self._files.sync_folder(DOCUMENTS)

    def has_for_good(self, path: str) -> bool:
        """Whether it is here and never changes."""
        with storing("a document cannot be found"):
            return is_immutable(path) and self._files.size_bytes(_document_name(path)) is not None

    def close(self) -> None:
        """Gives the folder back."""
        self._files.unlock()

    def _make_room(self, file: ModelFile) -> None:
        partial = self.blobs.offset_bytes(file)
        with storing("what is free cannot be found out"):
            free = self._files.free_bytes()
        over_quota = self.used_bytes - self._partial.get(file.sha256, 0) + file.size_bytes
        excess = max(
            over_quota - self._max_bytes,
            file.size_bytes - partial + self._reserve_bytes - free,
        )
        idle = {one: size for one, size in self._partial.items() if one not in self._arriving}
        idle.pop(file.sha256, None)
        names = {f"{PARTIAL}/{one}": size for one, size in idle.items()}
        names |= {f"{BLOBS}/{one}": size for one, size in self._sizes.items()}
        kept = {f"{BLOBS}/{one}" for one in (*self._served, *self._pinned())}
        gone = to_evict(names, keep=kept, excess_bytes=excess)
        if gone is None:
            raise NoRoomError(
                f"{file.size_bytes} bytes of {file.sha256} do not fit into the mirror: "
                f"{self.used_bytes} of {self._max_bytes} are used, {free} are free on the disk; "
                "what is pinned or served stays. Raise updates.max_bytes or free disk space"
            )
        for path in gone:
            with storing("a file cannot be given up"):
                self._files.unlink(path)
            folder, _, name = path.partition("/")
            (self._sizes if folder == BLOBS else self._partial).pop(name)
            self._verified.discard(name)
            self._log.info("mirror.evicted", path=path)

    def _pinned(self) -> frozenset[str]:
        return frozenset().union(*self._pins.values())

    def _found(self, folder: str) -> OrderedDict[str, int]:
        """Sizes by name, what was written first is first."""
        names = [
            (self._files.modified_s(f"{folder}/{name}"), name)
            for name in self._files.names(folder)
            if folder == DOCUMENTS or _DIGEST.match(name)
        ]
        return OrderedDict(
            (name, self._files.size_bytes(f"{folder}/{name}") or 0) for _, name in sorted(names)
        )


class MirroredFile:
    """A file of the store that is being served."""

    def __init__(self, blobs: Blobs, file: ModelFile) -> None:
        self._blobs, self._file = blobs, file

    @property
    def size_bytes(self) -> int:
        """Its length."""
        return self._file.size_bytes

    def read_now(self, offset_bytes: int, limit_bytes: int) -> bytes:
        """A part of it, from the disk.

        Raises:
            StorageError: it cannot be read, or has become shorter.
        """
        part = self._blobs.read(self._file, offset_bytes, limit_bytes)
        if len(part) != min(limit_bytes, self.size_bytes - offset_bytes):
            raise StorageError(f"{self._file.sha256} has become shorter on the disk")
        return part


def _quoted(path: str) -> str:
    return path.replace("/", "%")


def _document_name(path: str) -> str:
    return f"{DOCUMENTS}/{_quoted(path)}"
