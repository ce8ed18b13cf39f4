"""Other keys for a role, keys for a region or for rollouts: what the offline keys decide.

Rules of this file:
  * a new root is signed by a threshold of the keys before and of those after it, and verified as a
    device would before it is written;
  * the new root is written just before the new timestamp: in between devices have to wait;
  * keys for rollouts are named in the targets, as a role that may sign for no path at all;
  * the keys of before are worth nothing afterwards; where they were stolen that is the way out,
    also after a thief has published a huge version (the floors of such roles begin anew).
"""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import Collection, Sequence

from securesystemslib.signer import CryptoSigner, Key
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Role, Root, Targets

from cloud_tier.history import Event
from cloud_tier.keys import ONLINE, Signers
from cloud_tier.repository import Repository
from cloud_tier.repository_files import metadata_path
from cloud_tier.signing import expires_in, sign_with
from runtime.adapters.trust_bundle import ROOT, SNAPSHOT, TARGETS, TIMESTAMP
from runtime.adapters.trust_errors import verifying
from runtime.catalogue import ROLLOUT_ROLE, role_of, role_pattern
from runtime.errors import StartError

_ROLES = {ROOT: (ROOT,), TARGETS: (TARGETS,), ONLINE: (SNAPSHOT, TIMESTAMP)}


def make_root(
    roots: Sequence[CryptoSigner],
    targets: CryptoSigner,
    online: CryptoSigner,
    *,
    threshold: int,
    now: dt.datetime,
) -> bytes:
    """The first root, signed by all its keys; ``threshold`` of them make the next one.

    Raises:
        StartError: the threshold cannot be reached, or is 0.
    """
    if not 1 <= threshold <= len(roots):
        raise StartError(f"{threshold} of {len(roots)} root keys can never sign: see --threshold")
    root = Root(expires=expires_in(now, ROOT))
    for signer in roots:
        root.add_key(signer.public_key, ROOT)
    root.roles[ROOT].threshold = threshold
    root.add_key(targets.public_key, TARGETS)
    for role in (SNAPSHOT, TIMESTAMP):
        root.add_key(online.public_key, role)
    signers = {one.public_key.keyid: one for one in roots}
    return sign_with(Metadata(root), root.roles[ROOT], signers, ROOT)


def key_ids(repository: Repository, role: str) -> tuple[list[str], int]:
    """The key ids of a role, as ``rotate`` calls them, and their threshold.

    Raises:
        StartError: there is no such role.
    """
    root = repository.signed.root.signed
    if role in _ROLES:
        found = root.roles[_ROLES[role][0]]
        return list(found.keyids), found.threshold
    if role == ROLLOUT_ROLE:
        _check_named(repository)
    else:
        repository.signed.targets_of(role)
    delegated = repository.signed.targets.signed.get_delegated_role(role)
    return list(delegated.keyids), delegated.threshold


def rotate(
    repository: Repository,
    role: str,
    *,
    added: Sequence[CryptoSigner],
    removed: Collection[str],
    signers: Signers,
) -> None:
    """Exchanges keys of a role.

    Args:
        repository: open.
        role: ``root``, ``targets``, ``online``, ``rollout`` or ``region-<name>``.
        added: new keys.
        removed: key ids that stand for nothing any more.
        signers: of root (before, for a new root), of targets and online, as far as they stay.

    Raises:
        StartError: too few keys to sign, or too few left.
        StorageError: the disk did not take it.
    """
    signers = signers | {one.public_key.keyid: one for one in added}
    event = Event("", "", "rotated", role=role)
    with repository.changing():
        if role not in _ROLES:
            key_ids(repository, role)
            _exchange(repository.signed.targets.signed, role, added, removed)
            if role == ROLLOUT_ROLE:
                changed = repository.sign_targets(TARGETS, signers)
            else:
                changed = _sign_region(repository, role, signers)
        else:
            before = copy.deepcopy(repository.signed.root.signed)
            for name in _ROLES[role]:
                _exchange(repository.signed.root.signed, name, added, removed)
            root = _sign_root(repository, before, signers)
            changed = root if role == ROOT else _with_root(repository, role, root, signers)
        repository.write(changed, event)


def renew_root(repository: Repository, signers: Signers) -> None:
    """The same root with a new expiry date.

    Raises:
        StartError: too few keys to sign.
        StorageError: the disk did not take it.
    """
    with repository.changing():
        before = copy.deepcopy(repository.signed.root.signed)
        changed = _sign_root(repository, before, signers)
        repository.write(changed, Event("", "", "renewed", role=ROOT))


def add_region(repository: Repository, region: str, key: CryptoSigner, signers: Signers) -> None:
    """Lets a key publish for one region: ``region/<region>/*/*``, and nothing else.

    Raises:
        StartError: the region has one, or too few keys to sign.
        StorageError: the disk did not take it.
    """
    role = role_of(region)
    with repository.changing():
        targets = repository.signed.targets.signed
        if role in repository.signed.regions:
            raise StartError(f"{role} is there already; `tierwise keys rotate {role}` exchanges it")
        _delegate(targets, role, [role_pattern(region)], key.public_key)
        metadata = Metadata(Targets())
        metadata.signed.version = 0
        repository.signed.regions[role] = metadata
        changed = _sign_region(repository, role, signers | {key.public_key.keyid: key})
        repository.write(changed, Event("", "", "region_added", role=role))


def add_rollout(repository: Repository, key: Key, signers: Signers) -> None:
    """Lets a key sign assignments (``runtime.assignments``); it signs for no path of the catalogue.

    Raises:
        StartError: there is one, or too few keys to sign.
        StorageError: the disk did not take it.
    """
    with repository.changing():
        targets = repository.signed.targets.signed
        if targets.delegations and ROLLOUT_ROLE in (targets.delegations.roles or {}):
            raise StartError("there is one already; `tierwise keys rotate rollout` exchanges it")
        name_rollout_key(targets, key)
        changed = repository.sign_targets(TARGETS, signers)
        repository.write(changed, Event("", "", "rollout_added", role=ROLLOUT_ROLE))


def name_rollout_key(targets: Targets, key: Key) -> None:
    """Names the first key for assignments; ``targets`` are to be signed after that.

    Raises:
        StartError: the targets delegate in a way that is not known here.
    """
    _delegate(targets, ROLLOUT_ROLE, [], key)


def _delegate(targets: Targets, role: str, paths: list[str], key: Key) -> None:
    delegations = targets.delegations or Delegations({}, {})
    targets.delegations = delegations
    if delegations.roles is None:
        raise StartError("these targets delegate in another way; nothing was changed")
    delegations.roles[role] = DelegatedRole(role, [], 1, terminating=True, paths=paths)
    targets.add_key(key, role)


def _check_named(repository: Repository) -> None:
    delegations = repository.signed.targets.signed.delegations
    if delegations is None or ROLLOUT_ROLE not in (delegations.roles or {}):
        raise StartError("nobody may assign models to devices yet: `tierwise keys add-rollout`")


def _exchange(
    signed: Root | Targets, role: str, added: Sequence[CryptoSigner], removed: Collection[str]
) -> None:
    for key_id in removed:
        try:
            signed.revoke_key(key_id, role)
        except ValueError as error:
            raise StartError(f"{key_id} is no key of {role}") from error
    for signer in added:
        signed.add_key(signer.public_key, role)
    found = signed.get_delegated_role(role)
    if len(found.keyids) < found.threshold:
        raise StartError(
            f"{role} would have {len(found.keyids)} keys, and {found.threshold} have to sign"
        )


def _sign_root(repository: Repository, before: Root, signers: Signers) -> dict[str, bytes]:
    metadata = repository.signed.root
    root = metadata.signed
    root.version += 1
    root.expires = expires_in(repository.now, ROOT)
    both = Role([*root.roles[ROOT].keyids], root.roles[ROOT].threshold)
    sign_with(metadata, both, signers, ROOT)
    old = [one for one in before.roles[ROOT].keyids if one not in both.keyids and one in signers]
    for key_id in old:
        metadata.sign(signers[key_id], append=True)
    contents = metadata.to_bytes()
    with verifying():
        for signer in (before, root):
            signer.verify_delegate(ROOT, metadata.signed_bytes, metadata.signatures)
    return {metadata_path(ROOT, root.version): contents}


def _with_root(
    repository: Repository, role: str, root: dict[str, bytes], signers: Signers
) -> dict[str, bytes]:
    """All that has to be signed under the new root; the root goes just before the timestamp."""
    if role == TARGETS:
        changed = repository.sign_targets(TARGETS, signers)
    else:
        changed = repository.sign_online({}, signers)
    timestamp = metadata_path(TIMESTAMP, 0)
    last = changed.pop(timestamp)
    return changed | root | {timestamp: last}


def _sign_region(repository: Repository, role: str, signers: Signers) -> dict[str, bytes]:
    """Targets that delegate, and the region's own."""
    signed = repository.signed
    region = signed.targets_of(role)
    region.signed.version += 1
    region.signed.expires = expires_in(repository.now, role)
    delegated = signed.targets.signed.get_delegated_role(role)
    contents = sign_with(region, delegated, signers, role)
    return repository.sign_targets(TARGETS, signers, also={role: contents})
