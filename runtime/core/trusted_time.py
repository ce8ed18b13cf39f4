"""What time it is at least, on devices whose clock forgets.

Rules of this file:
  * the floor is the latest of the package's build date and of the signing times that were verified;
    a clock below it (without a battery it wakes up in 1970) is not believed, and the floor is;
  * a verified signing time raises the floor, but not by more than 400 days at once: one wrong
    statement may not end all that come after it;
  * time says whether something new may be fetched. It never stops what was verified before from
    being activated, rolled back to, or served.
"""

from __future__ import annotations

import math

from msgspec.structs import replace

from runtime.core.activation import Refusal
from runtime.core.releases import Record
from runtime.errors import ReleaseError

MAX_AHEAD_S = 400 * 86_400.0


def time_floor_s(record: Record, build_s: float) -> float:
    """What it is at least, in seconds since 1970; ``build_s`` is the package's build date."""
    return max(build_s, record.verified_time_s)


def trusted_now_s(clock_s: float, floor_s: float) -> float:
    """The clock's time, or the floor where the clock is below it or says nothing."""
    return clock_s if math.isfinite(clock_s) and clock_s > floor_s else floor_s


def raise_time_floor(record: Record, signed_s: float, build_s: float) -> Record:
    """Something that was signed at ``signed_s`` has been verified; an earlier time changes nothing.

    Raises:
        ReleaseError: it is no time, or too far ahead of the floor. A newer package of Tierwise
            brings a newer build date to a device that was in store for longer than that.
    """
    floor_s = time_floor_s(record, build_s)
    if not signed_s <= floor_s + MAX_AHEAD_S:
        raise ReleaseError(
            f"a signing time of {signed_s:.0f} s is more than {MAX_AHEAD_S / 86_400:.0f} days "
            f"ahead of {floor_s:.0f} s, the latest time known here; a newer version of Tierwise "
            "has a later one",
            because=Refusal.TOO_FAR_AHEAD,
        )
    if signed_s <= floor_s:
        return record
    return replace(record, verified_time_s=signed_s)


def may_fetch(expires_s: float, clock_s: float, floor_s: float) -> bool:
    """Whether what expires then may still be acted on by fetching something new."""
    return trusted_now_s(clock_s, floor_s) < expires_s
