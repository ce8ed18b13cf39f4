"""Which files an entry of the catalogue names, as a gateway finds out from its own mirror.

Rules of this file:
  * with the root of the catalogue at hand all is verified, as on a device; without it digests are
    all that holds: whoever is above could have other files fetched, and no device would take them;
  * what is here is enough: nothing of this needs the tier above to answer now.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Iterator
from typing import Annotated, Protocol

import msgspec

from runtime.adapters.off_loop import in_thread
from runtime.adapters.trust import TrustedCatalogue
from runtime.adapters.trust_bundle import SNAPSHOT, TARGETS
from runtime.adapters.trust_entries import mirror_path
from runtime.catalogue import CatalogueEntry, decode_entry, parse_path, role_of
from runtime.errors import (
    ArtifactError,
    FetchError,
    MissingFileError,
    OverloadedError,
    ReleaseError,
    UnavailableError,
)
from runtime.manifest import Digest
from runtime.ports_updates import Repository

TIMESTAMP_PATH = "metadata/timestamp.json"
PATIENCE_S = 60.0
_Version = Annotated[int, msgspec.Meta(ge=1, le=2**53)]


class Entries(Protocol):
    """Looks entries up by their paths."""

    async def refresh(self) -> None:
        """Takes over what the mirror has now.

        Raises:
            SecurityError: it does not verify; what was known before stays.
            UnavailableError: it has expired, or is not here.
        """
        ...

    async def digests(self, path: str) -> frozenset[str]:
        """All files of all variants.

        Raises:
            ReleaseError: there is no such entry.
            ArtifactError: what is there is no entry.
            SecurityError: it is not what was signed for.
            UnavailableError: it is not here, or the disk failed.
            OverloadedError: it is on its way.
        """
        ...


def digests_of(entry: CatalogueEntry) -> frozenset[str]:
    """All files of all variants."""
    variants = entry.variants.values()
    return frozenset(file.sha256 for variant in variants for file in variant.files.values())


class VerifiedEntries:
    """Entries of a catalogue that is verified from its root on."""

    def __init__(self, catalogue: TrustedCatalogue) -> None:
        self._catalogue = catalogue

    async def refresh(self) -> None:
        """See the protocol."""
        await in_thread(self._catalogue.refresh)

    async def digests(self, path: str) -> frozenset[str]:
        """See the protocol."""
        return digests_of(await in_thread(self._catalogue.entry, path))


class LocalMirror:
    """A repository of the event loop as a ``Mirror`` of threads; not to be read on the loop."""

    def __init__(self, repository: Repository, loop: asyncio.AbstractEventLoop) -> None:
        self._repository, self._loop = repository, loop

    def read(self, path: str) -> Iterator[bytes]:
        """See the port."""
        asked = asyncio.run_coroutine_threadsafe(self._repository.document(path), self._loop)
        try:
            contents = asked.result(PATIENCE_S)
        except (UnavailableError, OverloadedError) as error:
            raise FetchError(f"the mirror of this gateway has no {path}: {error}") from error
        except (concurrent.futures.CancelledError, TimeoutError) as error:
            asked.cancel()
            raise FetchError(f"the mirror of this gateway did not give {path} in time") from error
        if contents is None:
            raise MissingFileError(f"the mirror of this gateway has no {path}")
        if contents:
            yield contents


class _Meta(msgspec.Struct):
    version: _Version


class _Listing(msgspec.Struct):
    meta: dict[str, _Meta]


class _Hashes(msgspec.Struct):
    sha256: Digest


class _Target(msgspec.Struct):
    hashes: _Hashes


class _Targets(msgspec.Struct):
    targets: dict[str, _Target]


class _SignedListing(msgspec.Struct):
    signed: _Listing


class _SignedTargets(msgspec.Struct):
    signed: _Targets


_LISTING = msgspec.json.Decoder(_SignedListing)
_TARGETS = msgspec.json.Decoder(_SignedTargets)


class UnverifiedEntries:
    """Entries as the mirror's documents name them; nobody has checked who has signed that."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    async def refresh(self) -> None:
        """See the protocol; documents are read when they are needed."""

    async def digests(self, path: str) -> frozenset[str]:
        """See the protocol."""
        place = parse_path(path)
        role = role_of(place.region) if place.region else TARGETS
        listing = await self._listing(TIMESTAMP_PATH)
        listing = await self._listing(_versioned(listing, SNAPSHOT))
        contents = await self._document(_versioned(listing, role))
        try:
            target = _TARGETS.decode(contents).signed.targets.get(path)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ArtifactError(f"the targets of {role} cannot be read: {error}") from error
        if target is None:
            raise _not_there(path)
        entry = await self._document(mirror_path(path, target.hashes.sha256))
        return digests_of(decode_entry(entry, path))

    async def _listing(self, path: str) -> _Listing:
        try:
            return _LISTING.decode(await self._document(path)).signed
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ArtifactError(f"{path} cannot be read: {error}") from error

    async def _document(self, path: str) -> bytes:
        contents = await self._repository.document(path)
        if contents is None:
            raise _not_there(path)
        return contents


def _versioned(listing: _Listing, role: str) -> str:
    meta = listing.meta.get(f"{role}.json")
    if meta is None:
        raise _not_there(role)
    return f"metadata/{meta.version}.{role}.json"


def _not_there(what: str) -> ReleaseError:
    return ReleaseError(
        f"the mirror's catalogue has no {what}: it is not published, or not here yet",
        because="not_in_catalogue",
    )
