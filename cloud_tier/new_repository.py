"""An empty repository in a folder, signed by targets and online keys."""

from __future__ import annotations

from securesystemslib.signer import Key
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from cloud_tier.history import Event
from cloud_tier.keys import Signers
from cloud_tier.repository import Repository
from cloud_tier.repository_files import Signed, metadata_path, put
from cloud_tier.rotation import name_rollout_key
from runtime.adapters.model_blobs import BLOBS, PARTIAL, storing
from runtime.adapters.trust_bundle import ROOT, TARGETS
from runtime.adapters.trust_errors import verifying
from runtime.ports import Clock
from runtime.ports_files import FileSystem


def create_repository(
    files: FileSystem,
    root: bytes,
    signers: Signers,
    *,
    clock: Clock,
    by: str,
    rollout: Key | None = None,
) -> None:
    """Makes an empty repository in a folder; ``rollout`` is the key that may sign assignments.

    Raises:
        StartError: there is one already, or too few keys.
        StorageError: the disk did not take it.
    """
    with verifying():
        parsed: Metadata[Root] = Metadata.from_bytes(root)
    signed = Signed(parsed, Metadata(Timestamp()), Metadata(Snapshot()), Metadata(Targets()))
    for metadata in (signed.timestamp, signed.snapshot, signed.targets):
        metadata.signed.version = 0
    if rollout is not None:
        name_rollout_key(signed.targets.signed, rollout)
    with Repository(files, root, clock=clock, by=by, new=signed) as repository:
        changed = repository.sign_targets(TARGETS, signers)
        put(files, metadata_path(ROOT, parsed.signed.version), root)
        with storing("the repository cannot be made"):
            for name in (BLOBS, PARTIAL):
                files.make_folder(name)
        repository.write(changed, Event("", "", "created"))
