"""What goes wrong with signed metadata, in words of this project.

An attack is not an outage: what does not verify is a ``SecurityError``, which is to be reported;
a mirror that does not answer is a ``FetchError``, which is to be tried again.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from contextlib import contextmanager

from tuf.api import exceptions
from tuf.api.serialization import DeserializationError

from runtime.errors import ExpiredError, FetchError, MissingFileError, SecurityError, StorageError


class Tampering(enum.StrEnum):
    """Which rule was broken: ``SecurityError.because``."""

    ROLLBACK = "rollback"
    UNSIGNED = "unsigned"
    MISMATCH = "mismatch"
    TOO_LONG = "too_long"
    MALFORMED = "malformed"
    INCONSISTENT = "inconsistent"


# The first that fits counts: some are subclasses of later ones.
_KINDS: tuple[tuple[type[Exception], Tampering], ...] = (
    (exceptions.DownloadLengthMismatchError, Tampering.TOO_LONG),
    (exceptions.BadVersionNumberError, Tampering.ROLLBACK),
    (exceptions.UnsignedMetadataError, Tampering.UNSIGNED),
    (exceptions.LengthOrHashMismatchError, Tampering.MISMATCH),
    (DeserializationError, Tampering.MALFORMED),
)


def describe(error: Exception) -> Exception:
    """The error of this project that an error of python-tuf is."""
    for kind, because in _KINDS:
        if isinstance(error, kind):
            return tampered(str(error), because)
    if isinstance(error, exceptions.ExpiredMetadataError):
        return ExpiredError(
            f"{error}: sign it anew, or ask another mirror; if the clock of this machine is wrong, "
            "set it. What was verified before stays usable"
        )
    if isinstance(error, exceptions.DownloadHTTPError):
        return MissingFileError(f"the mirror keeps back a file of the catalogue: {error}")
    if isinstance(error, exceptions.DownloadError):
        return FetchError(f"the catalogue cannot be fetched: {error}; try again, or another mirror")
    if isinstance(error, OSError):
        return StorageError(f"the catalogue cannot be kept: {error.strerror or error}")
    return tampered(str(error), Tampering.INCONSISTENT)


def tampered(what: str, because: Tampering) -> SecurityError:
    """Something signed is not what it must be."""
    return SecurityError(
        f"the catalogue did not verify ({because}): {what}. Nothing of it was taken over: report "
        "it, and ask another mirror",
        because=because,
    )


@contextmanager
def verifying() -> Iterator[None]:
    """Turns errors of python-tuf into those of this project.

    Raises:
        SecurityError: something is not what its signatures and digests say.
        ExpiredError: it is, but no longer.
        FetchError: the mirror does not have it, or does not answer.
        StorageError: the disk failed.
    """
    try:
        yield
    except (exceptions.RepositoryError, exceptions.DownloadError, OSError) as error:
        raise describe(error) from error
