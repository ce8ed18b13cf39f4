"""Reads the signed catalogue that this tier hands out: what may be rolled out at all."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from tuf.api.metadata import Metadata, Snapshot, TargetFile, Timestamp

from runtime.adapters.trust_bundle import ROOT, SNAPSHOT, TIMESTAMP, verify, walk_roots
from runtime.adapters.trust_entries import mirror_path
from runtime.adapters.trust_errors import verifying
from runtime.catalogue import CatalogueEntry, decode_entry, entry_path, parse_path
from runtime.errors import RolloutError, SecurityError, StorageError
from runtime.ports_updates import Repository

_MAX_ROOTS = 1024


class CatalogueReader:
    """What holds in a repository, read and verified whenever it is asked for.

    The anchor is the repository's own first root: devices, which have theirs from elsewhere, do not
    rely on what is found here.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    async def entry(self, model: str, version: int, region: str | None = None) -> CatalogueEntry:
        """A version that is published and not withdrawn; 0 is the newest.

        Raises:
            RolloutError: there is none.
            SecurityError: the repository does not verify.
            ArtifactError: what was signed is no entry.
            UnavailableError: the repository cannot be read.
        """
        paths = await self.paths()
        path = entry_path(model, version or _newest(paths, model, region), region)
        if path not in paths:
            near = sorted(one for one in paths if one.rpartition("/")[0] == path.rpartition("/")[0])
            known = f"published are {', '.join(near[-5:])}" if near else "no version of it is"
            raise RolloutError(
                f"{path} is not in the catalogue: {known}; `tierwise models publish`"
            )
        contents = await self._document(mirror_path(path, paths[path].hashes["sha256"]))
        with verifying():
            paths[path].verify_length_and_hashes(contents)
        return decode_entry(contents, path)

    async def paths(self) -> dict[str, TargetFile]:
        """Everything that is published.

        Raises:
            SecurityError: the repository does not verify.
            UnavailableError: it cannot be read.
        """
        roots = await self._roots()
        raw = {TIMESTAMP: await self._document("metadata/timestamp.json")}
        with verifying():
            timestamp: Metadata[Timestamp] = Metadata.from_bytes(raw[TIMESTAMP])
            number = timestamp.signed.snapshot_meta.version
        raw[SNAPSHOT] = await self._document(f"metadata/{number}.{SNAPSHOT}.json")
        with verifying():
            snapshot: Metadata[Snapshot] = Metadata.from_bytes(raw[SNAPSHOT])
            metas = {name: meta.version for name, meta in snapshot.signed.meta.items()}
        for name, version in metas.items():
            raw[name.removesuffix(".json")] = await self._document(f"metadata/{version}.{name}")
        return await asyncio.to_thread(_targets, roots, raw)

    async def _roots(self) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        for number in range(1, _MAX_ROOTS):
            contents = await self._repository.document(f"metadata/{number}.{ROOT}.json")
            if contents is None:
                break
            found[number] = contents
        if not found:
            raise StorageError("the repository has no metadata/1.root.json: it is none, or damaged")
        return found

    async def _document(self, path: str) -> bytes:
        contents = await self._repository.document(path)
        if contents is None:
            raise StorageError(f"the repository has no {path}: it is being changed, or damaged")
        return contents


def _targets(roots: dict[int, bytes], raw: dict[str, bytes]) -> dict[str, TargetFile]:
    walked = walk_roots(roots[1], roots)
    newest = max(walked)
    try:
        return verify(walked[newest], raw).all_targets()
    except SecurityError:
        # A rotation of keys is on its way: the rest is still signed under the root before.
        if newest - 1 not in walked:
            raise
        return verify(walked[newest - 1], raw).all_targets()


def _newest(paths: Iterable[str], model: str, region: str | None) -> int:
    parts = (parse_path(path) for path in paths)
    same = (one.version for one in parts if (one.model, one.region) == (model, region))
    return max(same, default=1)
