"""The key that signs assignments, for a process that nobody types a passphrase into."""

from __future__ import annotations

import os
from pathlib import Path

from securesystemslib.signer import Signer

from cloud_tier.keys import load_rollout_signer
from runtime.errors import StartError

PASSPHRASE = "TIERWISE_KEY_PASSPHRASE"  # noqa: S105 the name of a variable


def load_signer(path: Path) -> Signer:
    """What signs with the key of a file; its passphrase is in the environment.

    Raises:
        StartError: it cannot be read, others may read it, or it is no such key.
    """
    try:
        is_private = not path.stat().st_mode & 0o077
    except OSError as error:
        raise StartError(f"rollouts.key_file {path} cannot be read: {error.strerror}") from error
    if not is_private:
        raise StartError(f"others may use the key {path}: chmod 600 {path}")
    passphrase = os.environ.get(PASSPHRASE, "")
    try:
        return load_rollout_signer(path, passphrase.encode() or None)
    except StartError as error:
        raise StartError(
            f"rollouts.key_file: {error}; the passphrase of an encrypted one is in the environment "
            f"as {PASSPHRASE}"
        ) from error
