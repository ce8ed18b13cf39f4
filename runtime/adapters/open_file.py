"""A file that is open, as those who pass it on read it."""

from __future__ import annotations

import os

from runtime.adapters.off_loop import in_thread
from runtime.errors import StorageError


class OpenFile:
    """An open file; one that is deleted meanwhile stays readable."""

    def __init__(self, descriptor: int, size_bytes: int) -> None:
        self._descriptor, self._size_bytes = descriptor, size_bytes

    @property
    def size_bytes(self) -> int:
        """Its length."""
        return self._size_bytes

    async def read(self, offset_bytes: int, limit_bytes: int) -> bytes:
        """See ``OpenBlob``."""
        try:
            return await in_thread(os.pread, self._descriptor, limit_bytes, offset_bytes)
        except OSError as error:
            raise StorageError(f"a file cannot be read: {error.strerror}") from error
