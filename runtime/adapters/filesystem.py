"""A folder of the local disk, behind the port that stores use."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from pathlib import Path, PurePosixPath


class LocalFiles:
    """Implements ``runtime.ports_files.FileSystem`` in ``root``, which is made when missing.

    Raises:
        OSError: the folder cannot be made.
    """

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._root = root.resolve()
        self._lock: int | None = None

    def lock(self, path: str) -> bool:
        """See the port; ``flock`` on a file that stays behind."""
        if self._lock is not None:
            return False
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self.full_path(path), flags, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except OSError:
            os.close(descriptor)
            raise
        self._lock = descriptor
        return True

    def unlock(self) -> None:
        """See the port."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def make_folder(self, path: str) -> None:
        """See the port."""
        self.full_path(path).mkdir(exist_ok=True)

    def remove_folder(self, path: str) -> None:
        """See the port."""
        self.full_path(path).rmdir()

    def write(self, path: str, contents: bytes) -> None:
        """See the port."""
        self._put(path, contents, os.O_TRUNC)

    def append(self, path: str, contents: bytes) -> None:
        """See the port."""
        self._put(path, contents, os.O_APPEND)

    def read(self, path: str, offset_bytes: int, limit_bytes: int) -> bytes:
        """See the port."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(self.full_path(path), flags), "rb") as file:
            file.seek(offset_bytes)
            return file.read(limit_bytes)

    def size_bytes(self, path: str) -> int | None:
        """See the port."""
        try:
            found = self.full_path(path).lstat()
        except FileNotFoundError:
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def modified_s(self, path: str) -> float:
        """See the port."""
        return self.full_path(path).lstat().st_mtime

    def names(self, path: str) -> list[str]:
        """See the port."""
        return sorted(os.listdir(self.full_path(path)))  # noqa: PTH208 names are what is asked for

    def rename(self, old: str, new: str) -> None:
        """See the port."""
        self.full_path(old).replace(self.full_path(new))

    def link(self, old: str, new: str) -> None:
        """See the port."""
        self.full_path(new).hardlink_to(self.full_path(old))

    def unlink(self, path: str) -> None:
        """See the port."""
        self.full_path(path).unlink()

    def set_read_only(self, path: str) -> None:
        """See the port."""
        self.full_path(path).chmod(0o444)

    def sync_file(self, path: str) -> None:
        """See the port."""
        # A handle that reads will do: what is synced is the file, not what one handle wrote.
        self._sync(path, os.O_NOFOLLOW)

    def sync_folder(self, path: str) -> None:
        """See the port."""
        # Some network and FUSE file systems know no such thing; there is nothing more to be done.
        with contextlib.suppress(_NotSupportedError):
            self._sync(path, os.O_DIRECTORY)

    def free_bytes(self) -> int:
        """See the port."""
        found = os.statvfs(self._root)
        return found.f_bavail * found.f_frsize

    def full_path(self, path: str) -> Path:
        """See the port."""
        parts = PurePosixPath(path)
        if parts.is_absolute() or ".." in parts.parts or "\0" in path:
            raise ValueError(f"{path!r} does not lie inside the folder")
        return self._root / parts

    def _put(self, path: str, contents: bytes, flag: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | flag
        with os.fdopen(os.open(self.full_path(path), flags, 0o644), "wb") as file:
            file.write(contents)

    def _sync(self, path: str, flag: int) -> None:
        descriptor = os.open(self.full_path(path), os.O_RDONLY | os.O_CLOEXEC | flag)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno in {errno.EINVAL, errno.ENOTSUP}:
                raise _NotSupportedError(error.errno, error.strerror) from error
            raise
        finally:
            os.close(descriptor)


class _NotSupportedError(OSError):
    """This file system cannot sync that."""
