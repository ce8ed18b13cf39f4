"""Which mirror to ask next, and how often: the decisions of a download, without the bytes.

Rules of this file:
  * mirrors are asked in their order; one that cannot have the file, or says it is something else,
    is left at once; one that only fails gets a few tries;
  * a download that gets on does not use up tries; how far it has to get on for that is stated, so
    that a byte a time does not count;
  * bytes that turn out to be another file are thrown away once and fetched again from the same
    mirror, because an earlier one may have spoilt them; the second time that mirror is left;
  * a mirror that is busy says when to come again; how often is bounded, and it is no failure;
  * all mirrors get a further round, until the rounds are over.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Trouble(enum.StrEnum):
    """What went wrong with one attempt at one mirror."""

    UNREACHABLE = "unreachable"
    CUT = "cut"
    STALLED = "stalled"
    BUSY = "busy"
    SERVER_FAILED = "server_failed"
    WITHHELD = "withheld"
    FORBIDDEN = "forbidden"
    REDIRECTED = "redirected"
    PAGE = "page"
    WRONG_RANGE = "wrong_range"
    WRONG_LENGTH = "wrong_length"
    TOO_LONG = "too_long"
    OTHER_FILE = "other_file"
    DIGEST_MISMATCH = "digest_mismatch"
    BAD_DELTA = "bad_delta"
    UNEXPECTED = "unexpected"


# Nobody is asked to wait for longer, whatever they say.
MAX_RETRY_AFTER_S = 3600.0
# What another try at the same mirror may mend.
PASSING = frozenset({Trouble.UNREACHABLE, Trouble.CUT, Trouble.STALLED, Trouble.SERVER_FAILED})


def trouble_of_status(status: int) -> Trouble | None:
    """What a reply's status says; None where it brings what was asked for (200, 206)."""
    if status in {200, 206}:
        return None
    named = {
        401: Trouble.FORBIDDEN,
        403: Trouble.FORBIDDEN,
        404: Trouble.WITHHELD,
        407: Trouble.FORBIDDEN,
        410: Trouble.WITHHELD,
        412: Trouble.OTHER_FILE,
        416: Trouble.WRONG_RANGE,
        429: Trouble.BUSY,
        451: Trouble.FORBIDDEN,
        503: Trouble.BUSY,
    }
    if status in named:
        return named[status]
    if status // 100 == 3:  # noqa: PLR2004 the class of redirections
        return Trouble.REDIRECTED
    return Trouble.SERVER_FAILED if status // 100 == 5 else Trouble.UNEXPECTED  # noqa: PLR2004


def retry_after_s(text: str) -> float:
    """Seconds of a ``Retry-After``; a date is 0, because clocks differ, and so is anything else."""
    is_number = text.isascii() and text.isdigit() and len(text) < 10  # noqa: PLR2004 no longer wait
    return min(MAX_RETRY_AFTER_S, float(text)) if is_number else 0.0


@dataclass(frozen=True, slots=True)
class Patience:
    """``tries`` of a mirror a round, ``rounds`` of all mirrors, ``busy_waits`` in the whole."""

    tries: int = 3
    rounds: int = 2
    busy_waits: int = 60
    progress_bytes: int = 1 << 20


@dataclass(frozen=True, slots=True)
class Try:
    """Ask this mirror next; wait before that, unless it is a new one in the same round."""

    mirror: int
    waits: bool = False


class Mirrors:
    """The mirrors of one file's download.

    Raises:
        ValueError: no mirror, or a patience for nothing.
    """

    def __init__(self, num_mirrors: int, patience: Patience | None = None) -> None:
        self._patience = patience or Patience()
        if num_mirrors < 1 or self._patience.tries < 1 or self._patience.rounds < 1:
            raise ValueError("a download needs a mirror, a try and a round")
        self._num_mirrors = num_mirrors
        self._mirror = self._round = self._failures = self._mismatches = self._busy = 0

    @property
    def first(self) -> Try:
        """Where to begin."""
        return Try(0)

    def after(self, trouble: Trouble, num_bytes: int) -> Try | None:
        """What to do after an attempt that ended so, and got so far on; None: give up."""
        if trouble is Trouble.BUSY:
            self._busy += 1
            if self._busy <= self._patience.busy_waits:
                return Try(self._mirror, waits=True)
            return self._leave()
        if trouble is Trouble.DIGEST_MISMATCH:
            self._mismatches += 1
            return Try(self._mirror) if self._mismatches == 1 else self._leave()
        if trouble not in PASSING:
            return self._leave()
        if num_bytes < self._patience.progress_bytes:
            self._failures += 1
        if self._failures < self._patience.tries:
            return Try(self._mirror, waits=True)
        return self._leave()

    def _leave(self) -> Try | None:
        self._failures = self._mismatches = 0
        self._mirror += 1
        if self._mirror < self._num_mirrors:
            return Try(self._mirror)
        self._mirror = 0
        self._round += 1
        return Try(0, waits=True) if self._round < self._patience.rounds else None
