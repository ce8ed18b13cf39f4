"""The metadata that were verified last, as one file: what is in it, and whether it verifies.

    catalogue.json   all roots since the one of the package, and the metadata of the last refresh

Rules of this file:
  * it is written beside its place, synced and renamed as a whole: after a loss of power there is
    what was verified before, or what was verified last, and no mixture;
  * the only anchor is the root that comes with the package: the file is verified again whenever it
    is read, so that one which has rotted is as good as none;
  * no clock: what has expired still says what was verified.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec
from securesystemslib.signer import Key
from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile, Targets, Timestamp

from runtime.adapters.model_blobs import storing
from runtime.adapters.trust_errors import Tampering, tampered, verifying
from runtime.catalogue import REGION_ROLE, ROLLOUT_ROLE
from runtime.errors import SecurityError
from runtime.ports_files import FileSystem

BUNDLE = "catalogue.json"
MAX_BUNDLE_BYTES = 64 << 20
AnySigned = TypeVar("AnySigned", Timestamp, Snapshot, Targets)
ROOT, TIMESTAMP, SNAPSHOT, TARGETS = "root", "timestamp", "snapshot", "targets"


class Bundle(msgspec.Struct, frozen=True):
    """Metadata as they came: ``roots`` by version, the others by role.

    ``root_version`` is the root that the others were verified under; there may be newer ones.
    """

    roots: dict[int, bytes] = {}
    root_version: int = 0
    metadata: dict[str, bytes] = {}


@dataclass(frozen=True, slots=True)
class Verified:
    """Metadata whose signatures, versions and digests agree; regions are delegated targets."""

    root: Root
    timestamp: Timestamp
    snapshot: Snapshot
    targets: Targets
    regions: dict[str, Targets] = field(default_factory=dict)

    @property
    def versions(self) -> dict[str, int]:
        """By role."""
        return {role: signed.version for role, signed in self.roles.items()}

    @property
    def roles(self) -> dict[str, Root | Timestamp | Snapshot | Targets]:
        """By name."""
        return {
            ROOT: self.root,
            TIMESTAMP: self.timestamp,
            SNAPSHOT: self.snapshot,
            TARGETS: self.targets,
            **self.regions,
        }

    def all_targets(self) -> dict[str, TargetFile]:
        """By path. What a region signs outside of its paths, or what is in conflict, is not there.

        Two delegated roles never share a path; the global role decides what it speaks of.
        """
        delegations = self.targets.delegations
        roles = (delegations.roles if delegations else None) or {}
        found = {
            path: target
            for name, targets in self.regions.items()
            for path, target in targets.targets.items()
            if name in roles and roles[name].is_delegated_path(path)
        }
        return found | self.targets.targets

    def rollout_keys(self) -> dict[str, Key]:
        """Who may sign assignments, by key id; nobody where that is said in no way known here.

        Only the global targets are asked: what a region delegates is its own affair.
        """
        delegations = self.targets.delegations
        role = ((delegations.roles if delegations else None) or {}).get(ROLLOUT_ROLE)
        if delegations is None or role is None or role.threshold != 1:
            return {}
        named = {key_id: key for key_id, key in delegations.keys.items() if key_id in role.keyids}
        return {key_id: key for key_id, key in named.items() if key.scheme == "ed25519"}


def read_bundle(files: FileSystem) -> Bundle | None:
    """The bundle on the disk; None where there is none, or one that has rotted.

    Raises:
        StorageError: it cannot be read.
    """
    with storing(f"{BUNDLE} cannot be read"):
        if files.size_bytes(BUNDLE) is None:
            return None
        contents = files.read(BUNDLE, 0, MAX_BUNDLE_BYTES)
    try:
        return msgspec.json.decode(contents, type=Bundle)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def write_bundle(files: FileSystem, bundle: Bundle) -> None:
    """Puts a bundle in place; when this returns, it outlives a loss of power.

    Raises:
        StorageError: the disk did not take it; what was there before may hold.
    """
    partial = f"{BUNDLE}.tmp"
    with storing(f"{BUNDLE} cannot be written"):
        files.write(partial, msgspec.json.encode(bundle))
        files.sync_file(partial)
        files.rename(partial, BUNDLE)
        files.sync_folder("")


def read_root(contents: bytes) -> Root:
    """A root that is signed by its own keys.

    Raises:
        SecurityError: it is not.
    """
    with verifying():
        return _root(contents, None)


def is_signed_targets(root: Root, contents: bytes) -> bool:
    """Whether the keys of this root still stand for these targets."""
    try:
        with verifying():
            _signed_by(root, Targets, TARGETS, contents)
    except SecurityError:
        return False
    return True


def walk_roots(anchor: bytes, roots: Mapping[int, bytes]) -> dict[int, Root]:
    """The anchor and every root that follows from it, by version, as far as they verify.

    Raises:
        SecurityError: the anchor itself is no root.
    """
    current = read_root(anchor)
    found = {current.version: current}
    while current.version + 1 in roots:
        try:
            with verifying():
                newer = _root(roots[current.version + 1], current)
        except SecurityError:
            break
        if newer.version != current.version + 1:
            break
        found[newer.version] = current = newer
    return found


def verify(root: Root, metadata: Mapping[str, bytes]) -> Verified:
    """All that is in ``metadata``, verified against ``root`` and each other; expiry is not asked.

    Raises:
        SecurityError: something is missing, unsigned, or of another version or digest.
    """
    missing = {TIMESTAMP, SNAPSHOT, TARGETS} - metadata.keys()
    if missing:
        raise tampered(f"{', '.join(sorted(missing))} missing", Tampering.INCONSISTENT)
    with verifying():
        timestamp = _signed_by(root, Timestamp, TIMESTAMP, metadata[TIMESTAMP])
        timestamp.snapshot_meta.verify_length_and_hashes(metadata[SNAPSHOT])
        snapshot = _signed_by(root, Snapshot, SNAPSHOT, metadata[SNAPSHOT])
        _check_version(SNAPSHOT, snapshot.version, timestamp.snapshot_meta.version)
        targets = _targets(root, TARGETS, snapshot, metadata[TARGETS])
        regions = {
            role: _targets(targets, role, snapshot, contents)
            for role, contents in metadata.items()
            if role.startswith(REGION_ROLE)
        }
    return Verified(root, timestamp, snapshot, targets, regions)


def _targets(delegator: Root | Targets, role: str, snapshot: Snapshot, contents: bytes) -> Targets:
    promised = snapshot.meta.get(f"{role}.json")
    if promised is None:
        raise tampered(f"the snapshot does not list {role}", Tampering.INCONSISTENT)
    promised.verify_length_and_hashes(contents)
    targets = _signed_by(delegator, Targets, role, contents)
    _check_version(role, targets.version, promised.version)
    return targets


def _signed_by(
    delegator: Root | Targets, kind: type[AnySigned], role: str, contents: bytes
) -> AnySigned:
    read: Metadata[AnySigned] = Metadata.from_bytes(contents)
    if not isinstance(read.signed, kind):
        raise tampered(f"{role} holds {read.signed.type}", Tampering.INCONSISTENT)
    try:
        delegator.verify_delegate(role, read.signed_bytes, read.signatures)
    except ValueError as error:
        raise tampered(f"nobody may sign for {role}: {error}", Tampering.UNSIGNED) from error
    return read.signed


def _root(contents: bytes, before: Root | None) -> Root:
    read: Metadata[Root] = Metadata.from_bytes(contents)
    if not isinstance(read.signed, Root):
        raise tampered(f"a root holds {read.signed.type}", Tampering.INCONSISTENT)
    for signer in (before, read.signed):
        if signer is not None:
            signer.verify_delegate(ROOT, read.signed_bytes, read.signatures)
    return read.signed


def _check_version(role: str, found: int, promised: int) -> None:
    if found != promised:
        raise tampered(f"{role} has version {found}, {promised} was listed", Tampering.ROLLBACK)
