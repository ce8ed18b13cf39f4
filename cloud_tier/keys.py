"""Keys of the signed catalogue: Ed25519 in PEM files, found by their key id.

    root-<key id>.pem      says who the others are; a threshold of several, offline
    targets-<key id>.pem   signs for models; offline
    online-<key id>.pem    signs snapshot and timestamp; on the machine that renews them
    rollout-<key id>.pem   signs assignments of models to devices; on the controller's machine
    root.json              the first root: what publishers and devices are given

Rules of this file:
  * a key is made for one role, and its file says which and whose: the first characters of its key
    id, so that a file is opened only when that key is to sign;
  * files are readable by their owner only, and encrypted unless that is declined in so many words;
  * the folder does not matter: keys may lie on several sticks.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner

from runtime.catalogue import ROLLOUT_ROLE
from runtime.errors import StartError

ROOT_FILE = "root.json"
ONLINE = "online"
MAX_PEM_BYTES = 16 * 1024
_ID_CHARACTERS = 16
_NAME = re.compile(r"(?P<role>[A-Za-z0-9][A-Za-z0-9._-]*)-(?P<id>[0-9a-f]{16})\.pem\Z")

# Asked for the passphrase of a file; None where it is to be taken for unencrypted.
Passphrase = Callable[[Path], bytes | None]
Signers = dict[str, CryptoSigner]


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A key on a disk; ``id_start`` are the first characters of its key id."""

    path: Path
    role: str
    id_start: str

    @property
    def others_may(self) -> str:
        """What somebody else than the owner may do with it; empty: nothing."""
        mode = self.path.stat().st_mode
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            return f"{stat.filemode(mode)}: others may use it; chmod 600 {self.path}"
        return ""

    def is_of(self, key_id: str) -> bool:
        """Whether that key is in it, by its name."""
        return key_id.startswith(self.id_start)


def new_key() -> tuple[Ed25519PrivateKey, CryptoSigner]:
    """A key, and what signs with it."""
    private = Ed25519PrivateKey.generate()
    return private, CryptoSigner(private)


def write_key(
    folder: Path, role: str, key: tuple[Ed25519PrivateKey, CryptoSigner], passphrase: bytes | None
) -> KeyFile:
    """Puts a key into a folder, which is made when missing; None leaves it unencrypted.

    Raises:
        StartError: the file is there, or cannot be written.
    """
    private, signer = key
    encryption: KeySerializationEncryption = NoEncryption()
    if passphrase is not None:
        encryption = BestAvailableEncryption(passphrase)
    contents = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    start = signer.public_key.keyid[:_ID_CHARACTERS]
    path = folder / f"{role}-{start}.pem"
    write_new(path, contents, 0o600)
    return KeyFile(path, role, start)


def write_new(path: Path, contents: bytes, mode: int) -> None:
    """A new file, on the disk when this returns.

    Raises:
        StartError: it is there already, or cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, mode), "wb") as file:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except FileExistsError as error:
        raise StartError(f"{path} is there already; it is not written over") from error
    except OSError as error:
        raise StartError(f"{path} cannot be written: {error.strerror or error}") from error


def keys_in(folders: Sequence[Path]) -> list[KeyFile]:
    """All key files of these folders.

    Raises:
        StartError: a folder cannot be read.
    """
    return [key for folder in folders for key in _keys_in(folder)]


def find_root(folders: Sequence[Path]) -> bytes:
    """The root that the keys were made with: what a repository has to follow from.

    Raises:
        StartError: none of the folders has it.
    """
    for folder in folders:
        path = folder / ROOT_FILE
        if path.is_file():
            return _contents(path, 1 << 20)
    raise StartError(
        f"there is no {ROOT_FILE} in {', '.join(map(str, folders))}: copy it there from where "
        "`tierwise keys init` has written it"
    )


def load_signers(
    folders: Sequence[Path], key_ids: Collection[str], passphrase: Passphrase
) -> Signers:
    """Those of the keys that are in these folders, by key id.

    Raises:
        StartError: a file cannot be read, the passphrase is wrong, or another key is in it.
    """
    found: Signers = {}
    for file in keys_in(folders):
        for key_id in key_ids:
            if file.is_of(key_id) and key_id not in found:
                found[key_id] = _signer(file, key_id, passphrase)
    return found


def load_rollout_signer(path: Path, passphrase: bytes | None = None) -> CryptoSigner:
    """What signs assignments, from its file; ``passphrase`` where that is encrypted.

    Whether the catalogue names this key is for others to say (``TrustedCatalogue.rollout_keys``).

    Raises:
        StartError: the file is another role's, cannot be read, or the passphrase is wrong.
    """
    match = _NAME.match(path.name)
    if match is None or match["role"] != ROLLOUT_ROLE:
        raise StartError(
            f"{path} is no key for assignments: those are called {ROLLOUT_ROLE}-<key id>.pem, and "
            "`tierwise keys init` or `tierwise keys add-rollout` makes them"
        )
    signer = _opened(path, lambda _path: passphrase)
    if not signer.public_key.keyid.startswith(match["id"]):
        raise StartError(f"{path} holds the key {signer.public_key.keyid}, not {match['id']}...")
    return signer


def _keys_in(folder: Path) -> Iterator[KeyFile]:
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise StartError(
            f"no keys can be read in {folder}: {error.strerror}; `tierwise keys init` makes them, "
            "--keys says where they are"
        ) from error
    for path in paths:
        match = _NAME.match(path.name)
        if match:
            yield KeyFile(path, match["role"], match["id"])


def _signer(file: KeyFile, key_id: str, passphrase: Passphrase) -> CryptoSigner:
    signer = _opened(file.path, passphrase)
    if signer.public_key.keyid != key_id:
        raise StartError(f"{file.path} holds the key {signer.public_key.keyid}, not {key_id}")
    return signer


def _opened(path: Path, passphrase: Passphrase) -> CryptoSigner:
    contents = _contents(path, MAX_PEM_BYTES)
    is_encrypted = b"ENCRYPTED" in contents
    try:
        private = load_pem_private_key(contents, passphrase(path) if is_encrypted else None)
    except (ValueError, TypeError) as error:
        what = "the passphrase is wrong" if is_encrypted else "it is no private key"
        raise StartError(f"{path} cannot be opened: {what}") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise StartError(f"{path} holds no Ed25519 key")
    return CryptoSigner(private)


def _contents(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            contents = file.read(limit + 1)
    except OSError as error:
        raise StartError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(contents) > limit:
        raise StartError(f"{path} has more than {limit} bytes: not what it should be")
    return contents
