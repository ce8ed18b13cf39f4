"""Where model files and their metadata come from, for those who pass them on."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

# Metadata and small targets; a list of ten thousand targets takes less than half of it.
MAX_DOCUMENT_BYTES = 4 << 20


class OpenBlob(Protocol):
    """A file that is open: it stays readable until it is closed."""

    @property
    def size_bytes(self) -> int:
        """Its length."""
        ...

    async def read(self, offset_bytes: int, limit_bytes: int) -> bytes:
        """At most so much from there on.

        Raises:
            StorageError: it cannot be read any more.
        """
        ...


class Repository(Protocol):
    """Files by digest, and documents by path; nothing here says that they are what they should be.

    Both methods raise ``UnavailableError`` (``StorageError``, ``NoRoomError``) where it cannot be
    found out now whether there is such a file, and ``OverloadedError`` with ``retry_after_ms``
    where it is on its way, or others are served first.
    """

    def open(
        self, sha256: str, *, only_here: bool = False
    ) -> AbstractAsyncContextManager[OpenBlob | None]:
        """The file of that digest (64 lower-case hexadecimal digits); None where there is none.

        With ``only_here`` nothing is fetched for it.
        """
        ...

    async def document(self, path: str) -> bytes | None:
        """``metadata/<name>`` or ``targets/<path>`` as it was published; None where there is none.

        Never more than ``MAX_DOCUMENT_BYTES``; the path was checked.
        """
        ...
