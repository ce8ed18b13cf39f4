"""Metadata and targets of a mirror: as published, byte for byte; in an outage the last good ones.

Rules of this file:
  * what never changes under its name is fetched once;
  * ``timestamp.json`` comes on the mirror's own schedule, and takes its place only after all that
    it names is here: whoever sees it can follow it, also without the tier above;
  * nothing here is believed: what is read in metadata says only what to fetch next. Whoever uses a
    document verifies its signature.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated

import msgspec

from regional_gateway.mirror_store import MirrorStore
from runtime.adapters.artifacts import sha256_of
from runtime.adapters.blob_transfer import Transfer, TransferError
from runtime.adapters.off_loop import in_thread
from runtime.core.mirrors import Trouble
from runtime.core.update_paths import is_document_path, is_immutable, is_root, named_digest
from runtime.errors import StorageError, UnavailableError
from runtime.logs import get_logger
from runtime.ports_updates import MAX_DOCUMENT_BYTES

TIMESTAMP, SNAPSHOT = "metadata/timestamp.json", "snapshot.json"
MAX_ROLES = 256
MAX_NEW_ROOTS = 64


class _Meta(msgspec.Struct):
    version: Annotated[int, msgspec.Meta(ge=1, le=2**53)]
    hashes: dict[str, str] = {}
    length: int | None = None

    def fits(self, contents: bytes) -> bool:
        """Whether what is said of the document beside its version holds; it need not be said."""
        if self.length not in {None, len(contents)}:
            return False
        return self.hashes.get("sha256", "") in {"", sha256_of(contents)}


class _Signed(msgspec.Struct):
    meta: Annotated[dict[str, _Meta], msgspec.Meta(max_length=MAX_ROLES)]


class _Metadata(msgspec.Struct):
    signed: _Signed


_DECODER = msgspec.json.Decoder(_Metadata)


class MirrorDocuments:
    """Documents of one upstream; ``base`` is its URL with ``/updates``."""

    def __init__(self, store: MirrorStore, transfer: Callable[[], Transfer], base: str) -> None:
        self._store, self._transfer, self._base = store, transfer, base
        self._needed: frozenset[str] = frozenset()
        self._refreshing = asyncio.Lock()
        self._log = get_logger()

    async def document(self, path: str) -> bytes | None:
        """The document; what is here where the tier above cannot be asked.

        Raises:
            UnavailableError: it is not here, and the tier above cannot be asked.
        """
        here = await in_thread(self._store.document, path)
        # What changes is refreshed on a schedule: a thousand devices are no thousand questions.
        if here is not None and (is_immutable(path) or path == TIMESTAMP):
            return here
        try:
            found = await self._fetched(path)
        except UnavailableError as error:
            if here is None and not is_root(path):
                raise
            self._log.info("document.not_refreshed", path=path, error=str(error))
            return here
        if found is None:
            return None
        try:
            await in_thread(self._store.keep_document, path, found, self._needed)
        except StorageError as error:
            self._log.error("document.not_kept", path=path, error=str(error))
        return found

    async def refresh(self) -> None:
        """Fetches the newest timestamp and all that it names.

        Raises:
            UnavailableError: not all of it is to be had; what was here stays in force.
        """
        async with self._refreshing:
            await self._refresh()

    async def _refresh(self) -> None:
        await self._new_roots()
        timestamp = await self._sure(TIMESTAMP)
        needed = {TIMESTAMP}
        for name, meta in _named(timestamp, TIMESTAMP).items():
            contents = await self._kept(name, meta, needed)
            if name == SNAPSHOT:
                for role, of in _named(contents, name).items():
                    await self._kept(role, of, needed)
        self._needed = frozenset(needed)
        if await in_thread(self._store.document, TIMESTAMP) != timestamp:
            await in_thread(self._store.keep_document, TIMESTAMP, timestamp, self._needed)
            self._log.info("metadata.refreshed", num_documents=len(needed))

    async def _kept(self, name: str, meta: _Meta, needed: set[str]) -> bytes:
        """A version of a role, which is here from now on; what is here and wrong is replaced."""
        path = f"metadata/{meta.version}.{name}"
        if not is_document_path(path):
            raise UnavailableError(f"metadata names {path!r}, which is no document")
        needed.add(path)
        here = await in_thread(self._store.document, path)
        if here is not None and _is_sound(name, meta, here):
            return here
        contents = await self._sure(path)
        if not _is_sound(name, meta, contents):
            raise UnavailableError(f"the tier above has sent something else as {path}")
        await in_thread(self._store.keep_document, path, contents, needed)
        return contents

    async def _new_roots(self) -> None:
        version = 1
        while await in_thread(self._store.has_for_good, f"metadata/{version}.root.json"):
            version += 1
        for number in range(version, version + MAX_NEW_ROOTS):
            path = f"metadata/{number}.root.json"
            contents = await self._fetched(path)
            if contents is None:
                return
            await in_thread(self._store.keep_document, path, contents, self._needed)

    async def _sure(self, path: str) -> bytes:
        contents = await self._fetched(path)
        if contents is None:
            raise UnavailableError(f"the tier above has no {path}")
        return contents

    async def _fetched(self, path: str) -> bytes | None:
        try:
            contents = await self._transfer().whole(f"{self._base}/{path}", MAX_DOCUMENT_BYTES)
        except TransferError as error:
            if error.trouble is Trouble.WITHHELD:
                return None
            raise
        promised = named_digest(path)
        if promised and sha256_of(contents) != promised:
            raise UnavailableError(f"the tier above has sent something else as {path}")
        return contents


def _is_sound(name: str, meta: _Meta, contents: bytes) -> bool:
    """Whether it is worth keeping: a document that never changes is not asked for again."""
    if not meta.fits(contents):
        return False
    if name == SNAPSHOT:
        try:
            _named(contents, name)
        except UnavailableError:
            return False
    return True


def _named(contents: bytes, source: str) -> dict[str, _Meta]:
    try:
        return _DECODER.decode(contents).signed.meta
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnavailableError(f"{source} is no metadata that names versions: {error}") from error
