"""The key that signs assignments, out of a PEM file."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner, Signer

from cloud_tier.keys import MAX_PEM_BYTES
from runtime.errors import StartError

PASSPHRASE = "TIERWISE_KEY_PASSPHRASE"  # noqa: S105 the name of a variable


def load_signer(path: Path) -> Signer:
    """What signs with the Ed25519 key of a file; its passphrase is in the environment.

    Raises:
        StartError: it cannot be read, others may read it, or it is no such key.
    """
    try:
        with path.open("rb") as file:
            is_private = not os.fstat(file.fileno()).st_mode & 0o077
            contents = file.read(MAX_PEM_BYTES + 1)
    except OSError as error:
        raise StartError(
            f"rollouts.key_file {path} cannot be read: {error.strerror}; it is the key that signs "
            "assignments"
        ) from error
    if not is_private:
        raise StartError(f"others may use the key {path}: chmod 600 {path}")
    if len(contents) > MAX_PEM_BYTES:
        raise StartError(f"{path} has more than {MAX_PEM_BYTES} bytes: it is no key")
    passphrase = os.environ.get(PASSPHRASE, "").encode() if b"ENCRYPTED" in contents else None
    try:
        private = load_pem_private_key(contents, passphrase)
    except (ValueError, TypeError) as error:
        raise StartError(
            f"{path} cannot be opened: it is no private key, or {PASSPHRASE} is not its passphrase"
        ) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise StartError(f"{path} holds no Ed25519 key")
    return CryptoSigner(private)
