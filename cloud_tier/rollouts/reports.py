"""What of a device's report is believed: numbers that can be, about itself alone."""

from __future__ import annotations

from cloud_tier.rollouts.assigning import device_id
from runtime.assignments import DeviceReport, decode_report
from runtime.errors import MalformedBodyError, RequestError

# Requests of one window, and the number up to which assignments are believed to have been counted.
_MAX_REQUESTS, _MAX_SEQ = 10**9, 2**52


def checked(body: bytes, origin: str) -> DeviceReport:
    """A report that can be, of the device for whom its sender speaks.

    Raises:
        MalformedBodyError: it is none, or its numbers cannot be.
        RequestError: it is about another device.
    """
    report = decode_report(body)
    named = device_id(report.region, report.device)
    if named != origin:
        raise RequestError(f"{origin[:129]} speaks for {named}: a device reports of itself alone")
    if report.seq > _MAX_SEQ:
        raise MalformedBodyError(f"{named} has heard assignment {report.seq}: nobody counts so far")
    for counted in report.counted:
        parts = (counted.errors, counted.invalid, counted.escalated, counted.slow)
        fits = (
            max(parts) <= counted.requests <= _MAX_REQUESTS
            and counted.disagreed <= counted.shadowed <= _MAX_REQUESTS
            and counted.audited_wrong <= counted.audited <= _MAX_REQUESTS
        )
        if not fits:
            raise MalformedBodyError(f"{named} counts more of {counted.release[:12]} than it had")
    return report
