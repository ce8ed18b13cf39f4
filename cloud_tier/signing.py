"""Signatures on metadata, and how long each role's are good for."""

from __future__ import annotations

import datetime as dt

from tuf.api.metadata import Metadata, Role, Root, Snapshot, Targets, Timestamp

from cloud_tier.keys import Signers
from runtime.adapters.trust_bundle import ROOT, SNAPSHOT, TARGETS, TIMESTAMP
from runtime.errors import StartError

REGION_DAYS = 90
# The timestamp's is the longest time for which a region installs something new without the cloud.
DAYS = {ROOT: 365, TARGETS: 180, SNAPSHOT: 14, TIMESTAMP: 7}


def expires_in(now: dt.datetime, role: str) -> dt.datetime:
    """When what is signed now expires."""
    return now + dt.timedelta(days=DAYS.get(role, REGION_DAYS))


def sign_with(
    metadata: Metadata[Root] | Metadata[Timestamp] | Metadata[Snapshot] | Metadata[Targets],
    role: Role,
    signers: Signers,
    name: str,
) -> bytes:
    """The metadata with new signatures of all keys of the role that are at hand.

    Raises:
        StartError: they are fewer than the role's threshold.
    """
    usable = [signers[key_id] for key_id in role.keyids if key_id in signers]
    if len(usable) < role.threshold:
        missing = ", ".join(key_id[:16] for key_id in role.keyids if key_id not in signers)
        raise StartError(
            f"{name} takes {role.threshold} of {len(role.keyids)} keys to sign, and {len(usable)} "
            f"are at hand; not found: {missing}. Say where they are: --keys DIR, more than once"
        )
    metadata.signatures.clear()
    for signer in usable:
        metadata.sign(signer, append=True)
    return metadata.to_bytes()
