"""The repository side of the signed catalogue: publish, withdraw, sign anew.

Rules of this file:
  * one publisher at a time; what holds changes in one step, when ``timestamp.json`` is replaced;
  * a path is used once: what is published is never changed, and what is withdrawn never comes back;
  * versions of a model only go up, over what was withdrawn, too;
  * a region publishes under its own paths, signed by its own key, which stands for nothing else;
  * private keys are asked for when they sign, and not kept.

Rotation of keys is in ``cloud_tier.rotation``.
"""

from __future__ import annotations

import contextlib
import copy
import datetime as dt
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Self

from msgspec.structs import replace
from tuf.api.metadata import (
    MetaFile,
    TargetFile,
)

from cloud_tier.history import Event, append_history, read_history
from cloud_tier.keys import ONLINE, Signers
from cloud_tier.repository_files import (
    Signed,
    is_repository,
    metadata_path,
    not_published,
    put,
    read_entry,
    read_signed,
)
from cloud_tier.signing import expires_in, sign_with
from runtime.adapters.model_blobs import Blobs, storing
from runtime.adapters.trust_bundle import ROOT, SNAPSHOT, TARGETS, TIMESTAMP
from runtime.adapters.trust_entries import mirror_path
from runtime.adapters.trust_time import SIGNED_AT
from runtime.catalogue import (
    CatalogueEntry,
    encode_entry,
    parse_path,
    role_of,
)
from runtime.errors import ArtifactError, ReleaseError, StartError
from runtime.ports import Clock
from runtime.ports_files import FileSystem

LOCK = "lock"
PUBLISHED, WITHDRAWN = "published", "yanked"


class Repository:
    """A context manager; holds the lock of the folder until it ends.

    Args:
        files: the folder.
        anchor: the publisher's own root, from beside the keys.
        clock: for expiry dates and the history.
        by: who does it, for the history.
        new: what a folder that is no repository yet begins with.

    Raises:
        StartError: it is no repository of this root, or another publisher has it.
        SecurityError: what is there does not verify.
        StorageError: it cannot be read.
    """

    def __init__(
        self,
        files: FileSystem,
        anchor: bytes,
        *,
        clock: Clock,
        by: str,
        new: Signed | None = None,
    ) -> None:
        self.files, self._clock, self._by = files, clock, by
        with storing("the repository cannot be locked"):
            if not files.lock(LOCK):
                raise StartError(
                    f"somebody else is changing {files.full_path('')}: try again when they are done"
                )
        try:
            self.signed = _checked_new(files, new) if new else read_signed(files, anchor)
        except BaseException:
            files.unlock()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.files.unlock()

    @property
    def now(self) -> dt.datetime:
        """By the publisher's clock, in whole seconds."""
        now_s = int(self._clock.wall_s())
        return dt.datetime.fromtimestamp(now_s, dt.UTC)

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """What fails has changed nothing: neither on the disk nor in ``signed``."""
        before = copy.deepcopy(self.signed)
        try:
            yield
        except BaseException:
            self.signed = before
            raise

    def paths(self) -> dict[str, TargetFile]:
        """What is published and not withdrawn, by path."""
        return self.signed.paths()

    def entry(self, path: str) -> CatalogueEntry:
        """A published entry.

        Raises:
            ReleaseError: there is none.
            SecurityError: it is not what was signed for.
            ArtifactError: it is missing.
        """
        return read_entry(self.files, self.paths(), path)

    def next_version(self, model: str, region: str | None = None) -> int:
        """One more than the highest that was ever published."""
        paths = {*self.paths(), *(one.path for one in read_history(self.files) if one.path)}
        versions = [parse_path(path) for path in paths]
        same = [one.version for one in versions if (one.model, one.region) == (model, region)]
        return max(same, default=0) + 1

    def add(self, entry: CatalogueEntry, files: Mapping[str, bytes], signers: Signers) -> None:
        """Publishes an entry and its files.

        Args:
            entry: what to sign for.
            files: contents by digest; those that are in the repository may be left out.
            signers: of targets, or of the region, and the online ones.

        Raises:
            ReleaseError: its version is not above all that were published.
            ArtifactError: a file is missing or another one.
            StartError: too few keys, or nobody may publish for the region.
            StorageError: the disk did not take it; nothing was published.
        """
        version = self.next_version(entry.model, entry.region)
        if entry.version < version:
            raise ReleaseError(
                f"version {entry.version} of {entry.model} cannot be published: versions only go "
                f"up, and the next one is {version}",
                because="not_above",
            )
        role = role_of(entry.region) if entry.region else TARGETS
        contents = encode_entry(entry)
        target = TargetFile.from_data(entry.path, contents, ["sha256"])
        event = Event("", "", PUBLISHED, entry.path, target.hashes["sha256"], role, entry.notes)
        with self.changing():
            self.signed.targets_of(role).signed.targets[entry.path] = target
            # Before anything is written: with too few keys nothing is.
            changed = self.sign_targets(role, signers)
            self._keep_blobs(entry, files)
            put(self.files, mirror_path(entry.path, target.hashes["sha256"]), contents)
            self.write(changed, event)

    def withdraw(self, path: str, reason: str, signers: Signers) -> None:
        """Takes an entry out of the catalogue; its files stay, and so does what devices have.

        Raises:
            ReleaseError: it is not published.
            StartError: too few keys, or no reason is given.
            StorageError: the disk did not take it.
        """
        if not reason.strip():
            raise StartError("say why, for those who come after: --reason TEXT")
        place = parse_path(path)
        role = role_of(place.region) if place.region else TARGETS
        if path not in self.paths() or path not in self.signed.targets_of(role).signed.targets:
            raise not_published(path)
        with self.changing():
            del self.signed.targets_of(role).signed.targets[path]
            changed = self.sign_targets(role, signers)
            self.write(changed, Event("", "", WITHDRAWN, path, role=role, reason=reason))

    def renew(self, role: str, signers: Signers) -> None:
        """Signs anew what is there, with new expiry dates; of ``online``: snapshot and timestamp.

        Raises:
            StartError: too few keys.
            StorageError: the disk did not take it.
        """
        with self.changing():
            if self.signed.is_interrupted:
                changed = self.sign_targets(TARGETS, signers)
            elif role == ONLINE:
                changed = self.sign_online({}, signers)
            else:
                changed = self.sign_targets(role, signers)
            self.write(changed, Event("", "", "renewed", role=role))

    def sign_targets(
        self, role: str, signers: Signers, also: Mapping[str, bytes] | None = None
    ) -> dict[str, bytes]:
        """Next versions of a role's targets and of what lists them, by path; writes nothing.

        ``also`` are other targets that were signed before, by role.
        """
        if self.signed.is_interrupted and role != TARGETS:
            raise StartError(
                "a rotation of keys was broken off: finish it with `tierwise keys renew targets`"
            )
        metadata = self.signed.targets_of(role)
        metadata.signed.version += 1
        metadata.signed.expires = expires_in(self.now, role)
        delegator = self.signed.root if role == TARGETS else self.signed.targets
        contents = sign_with(metadata, delegator.signed.get_delegated_role(role), signers, role)
        return self.sign_online({**(also or {}), role: contents}, signers)

    def sign_online(self, changed: Mapping[str, bytes], signers: Signers) -> dict[str, bytes]:
        """Next snapshot and timestamp, after ``changed`` targets by role; writes nothing."""
        signed, root = self.signed, self.signed.root.signed
        files: dict[str, bytes] = {}
        snapshot = signed.snapshot.signed
        for role, contents in changed.items():
            version = signed.targets_of(role).signed.version
            files[metadata_path(role, version)] = contents
            snapshot.meta[f"{role}.json"] = MetaFile.from_data(version, contents, ["sha256"])
        snapshot.version += 1
        snapshot.expires = expires_in(self.now, SNAPSHOT)
        contents = sign_with(signed.snapshot, root.roles[SNAPSHOT], signers, SNAPSHOT)
        files[metadata_path(SNAPSHOT, snapshot.version)] = contents
        timestamp = signed.timestamp.signed
        timestamp.version += 1
        timestamp.expires = expires_in(self.now, TIMESTAMP)
        timestamp.snapshot_meta = MetaFile.from_data(snapshot.version, contents, ["sha256"])
        timestamp.unrecognized_fields[SIGNED_AT] = int(self.now.timestamp())
        contents = sign_with(signed.timestamp, root.roles[TIMESTAMP], signers, TIMESTAMP)
        files[metadata_path(TIMESTAMP, timestamp.version)] = contents
        return files

    def write(self, files: Mapping[str, bytes], event: Event) -> None:
        """Puts signed metadata in place, in this order: the timestamp is the last.

        Raises:
            StorageError: the disk did not take it; what held before holds, or this.
        """
        versions = {
            ROOT: self.signed.root.signed.version,
            SNAPSHOT: self.signed.snapshot.signed.version,
            TIMESTAMP: self.signed.timestamp.signed.version,
        }
        event = replace(event, at=self.now.isoformat(), by=self._by, versions=versions)
        append_history(self.files, event)
        for path, contents in files.items():
            put(self.files, path, contents)
        self.signed.is_interrupted = False

    def _keep_blobs(self, entry: CatalogueEntry, contents: Mapping[str, bytes]) -> None:
        blobs = Blobs(self.files)
        for name in entry.variants:
            for file in entry.release(name).blobs.values():
                if file.sha256 in contents:
                    blobs.put(file, contents[file.sha256])
                elif not blobs.has(file):
                    raise ArtifactError(
                        f"{file.sha256} of variant {name} is neither given nor in the repository"
                    )


def _checked_new(files: FileSystem, new: Signed) -> Signed:
    if is_repository(files):
        raise StartError(f"{files.full_path('')} is a repository already; nothing was changed")
    return new
