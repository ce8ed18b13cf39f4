"""Time in signed metadata: when they were signed, and whether they have expired."""

from __future__ import annotations

from runtime.adapters.trust_bundle import Verified
from runtime.core.releases import MAX_NUMBER, Record
from runtime.core.trusted_time import may_fetch, raise_time_floor, time_floor_s
from runtime.errors import ExpiredError, ReleaseError
from runtime.logs import get_logger

# In the signed part of the timestamp: when it was signed, in whole seconds since 1970.
SIGNED_AT = "x-tierwise-signed-at"


def with_signing_time(record: Record, verified: Verified, clock_s: float, build_s: float) -> Record:
    """The record after the signing time of these metadata; one that cannot be changes nothing."""
    signed_s = verified.timestamp.unrecognized_fields.get(SIGNED_AT)
    if type(signed_s) is not int or not 0 <= signed_s <= MAX_NUMBER:
        return record
    # A clock that may be right is not overtaken by whoever has a key.
    believed_s = min(signed_s, clock_s) if clock_s > time_floor_s(record, build_s) else signed_s
    try:
        return raise_time_floor(record, believed_s, build_s)
    except ReleaseError as error:
        get_logger().warning("time.not_believed", error=str(error))
        return record


def expired_roles(
    verified: Verified, record: Record, clock_s: float, build_s: float
) -> dict[str, ExpiredError]:
    """Roles whose metadata are no longer good for fetching anything, and what to say about it."""
    floor_s = time_floor_s(record, build_s)
    return {
        role: ExpiredError(
            f"{role} of the catalogue has expired on {signed.expires:%Y-%m-%d %H:%M} UTC: sign it "
            "anew, or ask another mirror; if the clock of this machine is wrong, set it. What was "
            "verified before stays usable"
        )
        for role, signed in verified.roles.items()
        if not may_fetch(signed.expires.timestamp(), clock_s, floor_s)
    }
