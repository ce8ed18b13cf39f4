"""What the commands about keys and the catalogue share: passphrases, repositories, names."""

from __future__ import annotations

import argparse
import getpass
import os
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.errors import StartError, StorageError

if TYPE_CHECKING:
    from cloud_tier.keys import Signers
    from cloud_tier.repository import Repository
    from runtime.adapters.filesystem import LocalFiles

PASSPHRASE = "TIERWISE_KEY_PASSPHRASE"  # noqa: S105 the name of a variable


def publisher() -> str:
    """Who does it, for the history; what they say, not what anybody has checked."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def passphrase_of(path: Path) -> bytes:
    """The passphrase of a key file, from the environment or the terminal.

    Raises:
        StartError: there is neither.
    """
    given = os.environ.get(PASSPHRASE)
    if given:
        return given.encode()
    if not sys.stdin.isatty():
        raise StartError(f"{path} is encrypted: set {PASSPHRASE}, or run this on a terminal")
    return getpass.getpass(f"Passphrase of {path}: ").encode()


def new_passphrase(*, unencrypted: bool) -> bytes | None:
    """A passphrase for new keys; None where they are to have none.

    Raises:
        StartError: it is empty, was not typed the same twice, or cannot be asked for.
    """
    if unencrypted:
        return None
    given = os.environ.get(PASSPHRASE)
    if given is None:
        if not sys.stdin.isatty():
            raise StartError(
                f"new keys need a passphrase: set {PASSPHRASE}, run this on a terminal, or say "
                "--unencrypted"
            )
        given = getpass.getpass("Passphrase for the new keys: ")
        if given != getpass.getpass("Once more: "):
            raise StartError("these were two different passphrases; nothing was written")
    if not given.strip():
        raise StartError("the passphrase is empty: choose one, or say --unencrypted")
    return given.encode()


def open_files(folder: Path, *, make: bool = False) -> LocalFiles:
    """The folder of a repository.

    Raises:
        StartError: there is none.
        StorageError: it cannot be made.
    """
    from runtime.adapters.filesystem import LocalFiles  # noqa: PLC0415 - keeps --help quick

    if not make and not folder.is_dir():
        raise StartError(
            f"{folder} is not there: `tierwise keys init --repository DIR` makes a repository"
        )
    try:
        return LocalFiles(folder)
    except OSError as error:
        raise StorageError(f"{folder} cannot be used: {error.strerror or error}") from error


def open_repository(arguments: argparse.Namespace) -> Repository:
    """The repository of the command line, to change it; a context manager."""
    from cloud_tier.keys import find_root  # noqa: PLC0415 - keeps --help quick
    from cloud_tier.repository import Repository  # noqa: PLC0415
    from runtime.adapters.clock import SystemClock  # noqa: PLC0415

    files = open_files(arguments.repository)
    return Repository(files, find_root(arguments.keys), clock=SystemClock(), by=publisher())


def signers_for(
    repository: Repository, roles: Iterable[str], arguments: argparse.Namespace
) -> Signers:
    """The keys of these roles that are in the folders of the command line."""
    from cloud_tier.keys import load_signers  # noqa: PLC0415 - keeps --help quick
    from cloud_tier.rotation import key_ids  # noqa: PLC0415

    wanted = [key for role in roles for key in key_ids(repository, role)[0]]
    return load_signers(arguments.keys, wanted, passphrase_of)
