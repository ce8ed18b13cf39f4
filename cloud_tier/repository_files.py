"""The files of a repository of signed models: where they are, what they say, how they are written.

    metadata/N.root.json, N.snapshot.json, N.targets.json, N.region-R.json, timestamp.json
    targets/<model>/<sha256>.<version>.json    entries (runtime.catalogue)
    blobs/<sha256>                             files of models
    history.jsonl                              who did what (cloud_tier.history)

Rules of this file:
  * every file but ``timestamp.json`` is written once; that one says which of them hold, so that
    its replacement is the moment in which anything is published;
  * nothing is signed on top of what does not verify, beginning with the root of the publisher:
    whoever can write here could otherwise have their own models signed with the next one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile, Targets, Timestamp

from runtime.adapters.model_blobs import storing
from runtime.adapters.trust_bundle import (
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    Verified,
    verify,
    walk_roots,
)
from runtime.adapters.trust_entries import mirror_path
from runtime.adapters.trust_errors import verifying
from runtime.catalogue import REGION_ROLE, CatalogueEntry, decode_entry
from runtime.errors import ReleaseError, SecurityError, StartError
from runtime.ports_files import FileSystem

METADATA_FOLDER = "metadata"
TIMESTAMP_FILE = f"{METADATA_FOLDER}/{TIMESTAMP}.json"
MAX_METADATA_BYTES = 32 << 20
_ROOT_NAME = re.compile(r"([1-9][0-9]{0,15})\.root\.json\Z")


@dataclass(slots=True)
class Signed:
    """The metadata that hold; ``regions`` are delegated targets by role.

    ``is_interrupted`` says that they follow from the root before the newest one: a rotation of keys
    was broken off, and devices wait for new signatures.
    """

    root: Metadata[Root]
    timestamp: Metadata[Timestamp]
    snapshot: Metadata[Snapshot]
    targets: Metadata[Targets]
    regions: dict[str, Metadata[Targets]] = field(default_factory=dict)
    is_interrupted: bool = False

    def paths(self) -> dict[str, TargetFile]:
        """What is published and not withdrawn, by path."""
        regions = {role: one.signed for role, one in self.regions.items()}
        parts = (self.root.signed, self.timestamp.signed, self.snapshot.signed)
        return Verified(*parts, self.targets.signed, regions).all_targets()

    def targets_of(self, role: str) -> Metadata[Targets]:
        """Those of one role.

        Raises:
            StartError: there is no such role.
        """
        if role == TARGETS:
            return self.targets
        if not role.startswith(REGION_ROLE):
            raise StartError(
                f"{role} signs no metadata; those who do: root, targets, online and region-NAME"
            )
        if role not in self.regions:
            region = role.removeprefix(REGION_ROLE)
            raise StartError(
                f"nobody may publish for the region {region} yet: `tierwise keys add-region "
                f"{region}`"
            )
        return self.regions[role]


def is_repository(files: FileSystem) -> bool:
    """Whether there is one in the folder."""
    with storing("the repository cannot be read"):
        return files.size_bytes(TIMESTAMP_FILE) is not None


def read_signed(files: FileSystem, anchor: bytes) -> Signed:
    """The metadata that hold, verified from the publisher's root on.

    Raises:
        StartError: there is no repository, or one of another root.
        SecurityError: something does not verify: somebody has changed it.
        StorageError: it cannot be read.
    """
    if not is_repository(files):
        raise _no_repository(files)
    roots, root = _roots(files, anchor)
    raw = {TIMESTAMP: _read(files, TIMESTAMP_FILE)}
    with verifying():
        timestamp: Metadata[Timestamp] = Metadata.from_bytes(raw[TIMESTAMP])
        raw[SNAPSHOT] = _read(files, _path(SNAPSHOT, timestamp.signed.snapshot_meta.version))
        snapshot: Metadata[Snapshot] = Metadata.from_bytes(raw[SNAPSHOT])
        for name, meta in snapshot.signed.meta.items():
            role = name.removesuffix(".json")
            raw[role] = _read(files, _path(role, meta.version))
        roles: dict[str, Metadata[Targets]] = {
            role: Metadata.from_bytes(raw[role])
            for role in raw
            if role not in {TIMESTAMP, SNAPSHOT}
        }
    is_interrupted = _is_interrupted(roots, raw)
    targets = roles.pop(TARGETS)
    return Signed(root, timestamp, snapshot, targets, roles, is_interrupted)


def read_entry(files: FileSystem, paths: Mapping[str, TargetFile], path: str) -> CatalogueEntry:
    """A published entry; ``paths`` are all.

    Raises:
        ReleaseError: there is none.
        SecurityError: it is not what was signed for.
        StorageError: it cannot be read.
        ArtifactError: it is no entry.
    """
    if path not in paths:
        raise not_published(path)
    contents = _read(files, mirror_path(path, paths[path].hashes["sha256"]))
    with verifying():
        paths[path].verify_length_and_hashes(contents)
    return decode_entry(contents, path)


def not_published(path: str) -> ReleaseError:
    """The error about a path that is not in the catalogue."""
    return ReleaseError(
        f"{path} is not published; `tierwise models list --repository DIR` has what is",
        because="not_in_catalogue",
    )


def first_root(files: FileSystem) -> bytes:
    """The root that a repository begins with: for those who only look at it.

    Raises:
        StartError: it is no repository.
        StorageError: it cannot be read.
    """
    if not is_repository(files):
        raise _no_repository(files)
    with storing("the repository cannot be read"):
        numbers = [
            int(one[1]) for one in map(_ROOT_NAME.match, files.names(METADATA_FOLDER)) if one
        ]
    return _read(files, _path(ROOT, min(numbers, default=1)))


def put(files: FileSystem, path: str, contents: bytes) -> None:
    """A whole file in its place, or none; folders above it are made.

    Raises:
        NoRoomError: the disk is full.
        StorageError: it did not take it.
    """
    parts = path.split("/")[:-1]
    partial = f"{path}.tmp"
    with storing(f"{path} cannot be written"):
        for depth in range(len(parts)):
            files.make_folder("/".join(parts[: depth + 1]))
            files.sync_folder("/".join(parts[:depth]))
        files.write(partial, contents)
        files.sync_file(partial)
        files.rename(partial, path)
        files.sync_folder("/".join(parts))


def metadata_path(role: str, version: int) -> str:
    """Where metadata of a role are; those of the timestamp have no version in their name."""
    return TIMESTAMP_FILE if role == TIMESTAMP else _path(role, version)


def _no_repository(files: FileSystem) -> StartError:
    return StartError(
        f"{files.full_path('')} is no repository: `tierwise keys init --repository DIR` makes one"
    )


def _path(role: str, version: int) -> str:
    return f"{METADATA_FOLDER}/{version}.{role}.json"


def _roots(files: FileSystem, anchor: bytes) -> tuple[dict[int, Root], Metadata[Root]]:
    """All roots from the publisher's on, and the newest with its signatures."""
    with storing("the repository cannot be read"):
        names = files.names(METADATA_FOLDER)
    matches = filter(None, map(_ROOT_NAME.match, names))
    raw = {int(one[1]): _read(files, f"{METADATA_FOLDER}/{one[0]}") for one in matches}
    walked = walk_roots(anchor, raw)
    first, newest = min(walked), max(walked)
    if raw.get(first) != anchor or newest != max(raw):
        raise StartError(
            f"the roots in {files.full_path('')} do not follow from the root.json beside the keys: "
            "it is a repository of other keys, or somebody has changed it"
        )
    with verifying():
        found: Metadata[Root] = Metadata.from_bytes(raw[newest])
    return walked, found


def _is_interrupted(roots: dict[int, Root], raw: dict[str, bytes]) -> bool:
    newest = max(roots)
    try:
        verify(roots[newest], raw)
    except SecurityError:
        if newest - 1 not in roots:
            raise
        verify(roots[newest - 1], raw)
        return True
    return False


def _read(files: FileSystem, path: str) -> bytes:
    with storing(f"{path} cannot be read"):
        return files.read(path, 0, MAX_METADATA_BYTES)
