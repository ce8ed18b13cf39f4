"""A published repository: a folder of this machine, or any place that fsspec can read.

    blobs/<sha256>      files of models
    metadata/<name>     signed metadata
    targets/<path>      small signed files

Rules of this file:
  * only paths whose names were checked are opened, and only files;
  * ``fsspec`` and what it needs for a scheme are extras, imported when a URL asks for them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from runtime.adapters.off_loop import in_thread
from runtime.adapters.open_file import OpenFile
from runtime.core.update_paths import is_document_path
from runtime.errors import StartError, StorageError
from runtime.ports_updates import MAX_DOCUMENT_BYTES, OpenBlob, Repository

# What file systems of fsspec raise; timeouts are OSErrors.
_FOREIGN = (OSError, aiohttp.ClientError)
_BLOCK_BYTES = 4 << 20


def open_repository(where: str) -> Repository:
    """The repository in a folder, or at a URL with ``://`` in it.

    Raises:
        StartError: there is no such folder, or a package for the URL is missing; it is named.
    """
    if "://" in where:
        return FsspecRepository(where)
    folder = Path(where)
    if not folder.is_dir():
        raise StartError(f"no folder {where}: make it, or set updates.repository to another one")
    return FolderRepository(folder)


class FolderRepository:
    """Implements ``Repository`` with a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @asynccontextmanager
    async def open(self, sha256: str, *, only_here: bool = False) -> AsyncIterator[OpenBlob | None]:
        """See the port."""
        del only_here
        # On the loop: a descriptor that a thread opened would be lost if this is cancelled.
        found = _opened(self._folder / "blobs" / sha256)
        if found is None:
            yield None
            return
        descriptor, size_bytes = found
        try:
            yield OpenFile(descriptor, size_bytes)
        finally:
            os.close(descriptor)

    async def document(self, path: str) -> bytes | None:
        """See the port."""
        if not is_document_path(path):
            return None
        found = _opened(self._folder / path)
        if found is None:
            return None
        descriptor, size_bytes = found
        try:
            if size_bytes > MAX_DOCUMENT_BYTES:
                raise StorageError(_too_large(path, size_bytes))
            return await OpenFile(descriptor, size_bytes).read(0, size_bytes)
        finally:
            os.close(descriptor)


class FsspecRepository:
    """Implements ``Repository`` with what fsspec reads: ``s3://``, ``gs://``, ``memory://``.

    Raises:
        StartError: a package is missing, or the URL cannot be understood.
    """

    def __init__(self, url: str) -> None:
        scheme = url.partition("://")[0]
        try:
            import fsspec.core  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise StartError(
                f"reading {scheme}:// needs fsspec: pip install 'tierwise[fsspec]'"
            ) from error
        try:
            self._files, self._root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except ImportError as error:
            extra = "s3" if scheme in {"s3", "s3a"} else "fsspec"
            raise StartError(
                f"reading {scheme}:// needs a further package ({error}): "
                f"pip install 'tierwise[{extra}]', and what fsspec asks for"
            ) from error
        except ValueError as error:
            raise StartError(f"updates.repository {url!r} cannot be read: {error}") from error

    @asynccontextmanager
    async def open(self, sha256: str, *, only_here: bool = False) -> AsyncIterator[OpenBlob | None]:
        """See the port."""
        del only_here
        path = f"{self._root}/blobs/{sha256}"
        size_bytes = await in_thread(self._size_bytes, path)
        yield None if size_bytes is None else _Remote(self._files, path, size_bytes)

    async def document(self, path: str) -> bytes | None:
        """See the port."""
        if not is_document_path(path):
            return None
        full = f"{self._root}/{path}"
        size_bytes = await in_thread(self._size_bytes, full)
        if size_bytes is None:
            return None
        if size_bytes > MAX_DOCUMENT_BYTES:
            raise StorageError(_too_large(path, size_bytes))
        return await _Remote(self._files, full, size_bytes).read(0, size_bytes)

    def _size_bytes(self, path: str) -> int | None:
        try:
            found = self._files.info(path)
        except FileNotFoundError:
            return None
        except _FOREIGN as error:
            raise StorageError(f"{path} cannot be found: {error}") from error
        return int(found["size"]) if found["type"] == "file" else None


class _Remote:
    """A file elsewhere, read in large blocks: each is a request of its own."""

    def __init__(self, files: Any, path: str, size_bytes: int) -> None:  # noqa: ANN401 - no types
        self._files, self._path, self._size_bytes = files, path, size_bytes
        self._start, self._block = 0, b""

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    async def read(self, offset_bytes: int, limit_bytes: int) -> bytes:
        begin = offset_bytes - self._start
        if not 0 <= begin < len(self._block) or begin + limit_bytes > len(self._block):
            end = min(self._size_bytes, offset_bytes + max(limit_bytes, _BLOCK_BYTES))
            self._block = await in_thread(self._read, offset_bytes, end)
            self._start, begin = offset_bytes, 0
        return self._block[begin : begin + limit_bytes]

    def _read(self, start: int, end: int) -> bytes:
        try:
            return bytes(self._files.cat_file(self._path, start=start, end=end))
        except _FOREIGN as error:
            raise StorageError(f"{self._path} cannot be read: {error}") from error


def _opened(path: Path) -> tuple[int, int] | None:
    """Descriptor and length of a regular file."""
    try:
        # Not to block on what is no file at all, such as a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        raise StorageError(f"{path} cannot be opened: {error.strerror}") from error
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode):
        return descriptor, found.st_size
    os.close(descriptor)
    return None


def _too_large(path: str, size_bytes: int) -> str:
    return f"{path} has {size_bytes} bytes, more than the {MAX_DOCUMENT_BYTES} of a document"
