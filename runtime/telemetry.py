"""What a tier tells of its decisions: rollups, counts of what its decision log holds.

A rollup never holds an input. It tells a few of the decisions that it counts whole, with the id of
the request (``runtime.decision_sample``), and only such as might have reached the cloud themselves.
It is JSON, the body of an outbox item of the kind ``metrics``, and travels as all of these do: kept
until it is acknowledged, applied once.

Rules of this file:
  * a decision is in exactly one rollup. Rows of a decision log are numbered from 1 without gaps,
    and a source says which numbers a rollup covers; so whoever adds up rollups knows to the last
    one how many decisions are missing, whatever was lost on the way.
  * time is told as whole minutes before the rollup was made: clocks of two machines are never
    compared, and the item carries its age.
  * latencies are kept as a sketch of one relative error everywhere (``runtime.core.sketch``), so
    that they can be added up at any tier and at any time.
  * fields are only added, at the end of rows, with defaults; unknown ones are skipped.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import msgspec
from msgspec import Meta

from runtime.decision_sample import (
    MAX_SAMPLE_BYTES,
    MAX_SAMPLES,
    Sample,
    is_request_id,
    place_of,
    size_of,
)
from runtime.errors import MalformedBodyError

VERSION = 1
# Rows of one rollup; what is more goes into rows whose label is OTHER.
MAX_ROWS = 2000
MAX_SOURCES = 2000
OTHER = "(other)"
# By what rows may be told apart, in the order of their fields.
DIMENSIONS = (
    "region", "site", "tier", "model", "version", "policy", "gear", "route", "action", "decided",
    "outcome", "reason", "answered_by", "guarantee", "label", "is_entry",
)  # fmt: skip
AUDIT_DIMENSIONS = ("region", "site", "policy", "gear")

_Text = Annotated[str, Meta(max_length=128)]
_Count = Annotated[int, Meta(ge=0, le=1 << 53)]
_Amount = Annotated[float, Meta(ge=0, le=1e18)]
_Minutes = Annotated[int, Meta(ge=0, le=1 << 24)]
# Of latencies a bucket's number, of confidences one of twenty equal parts.
MAX_BUCKETS = 4096
_Buckets = Annotated[
    dict[Annotated[int, Meta(ge=-2048, le=4096)], _Count], Meta(max_length=MAX_BUCKETS)
]
NUM_CONFIDENCE_BINS = 20


class RollupRow(msgspec.Struct, frozen=True, array_like=True):
    """Decisions of one minute that are alike in every dimension.

    ``minutes_ago``: whole minutes from the decisions to the making of the rollup. ``decided`` is
    why the tier acted as it did (``decided_because``), ``reason`` how it ended, ``label`` the class
    as decimal digits, empty where there is none. ``is_entry``: the tier that the caller asked
    (hop 0); to count requests once, count entries only.

    ``late`` are those whose latency was over their budget. ``confident`` is how many have a
    confidence, ``confidence_sum`` theirs, ``confidences`` how many lie in each twentieth.
    ``latency`` are the latencies in milliseconds as counts of sketch buckets, ``latency_ms_sum``
    their sum. ``cost_sum`` is what the policy reckoned the request would cost.
    """

    minutes_ago: _Minutes
    region: _Text
    site: _Text
    tier: _Text
    model: _Text
    version: _Text
    policy: _Text
    gear: _Text
    route: _Text
    action: _Text
    decided: _Text
    outcome: _Text
    reason: _Text
    answered_by: _Text
    guarantee: _Text
    label: _Text
    is_entry: bool
    count: _Count
    late: _Count
    sent_bytes: _Count
    service_us: _Count
    latency_ms_sum: _Amount
    cost_sum: _Amount
    confident: _Count
    confidence_sum: _Amount
    confidences: _Buckets = {}
    latency: _Buckets = {}


class AuditRow(msgspec.Struct, frozen=True, array_like=True):
    """Audits of one minute: answers that stood below the top, and whether the top says the same.

    ``weighted_agreed`` and ``weighted`` are sums of one over the chance with which each of them was
    drawn, over those that came back: their ratio estimates the agreement of all answers
    (Horvitz and Thompson). ``failed`` did not come back.
    """

    minutes_ago: _Minutes
    region: _Text
    site: _Text
    policy: _Text
    gear: _Text
    agreed: _Count
    disagreed: _Count
    failed: _Count
    weighted_agreed: _Amount
    weighted: _Amount


class Source(msgspec.Struct, frozen=True):
    """Which rows of whose decision log a rollup covers: numbers ``first`` to ``last``, or none.

    ``log`` names the file: another one, after the old was lost, counts from 1 again. ``unread`` of
    them were deleted by the log's quota before they were counted. ``dropped`` is how many decisions
    that log could never take, since it was made.

    ``audits_first`` to ``audits_last`` are the numbers of its audits in the same way: without them
    an audit that comes late, when its decision has long been counted, could not be told from the
    same one by another gateway. Both are 0 where the tier is of a version that does not say.
    """

    region: _Text
    site: _Text
    tier: _Text
    log: Annotated[str, Meta(pattern=r"^[0-9a-f]{1,32}\Z")]
    first: _Count
    last: _Count
    unread: _Count = 0
    dropped: _Count = 0
    audits_first: _Count = 0
    audits_last: _Count = 0


class Rollup(msgspec.Struct, frozen=True):
    """Rows with the sources whose decisions they are; of a gateway, those of many devices.

    ``samples`` are decisions of these sources told whole; tiers of a version without them skip the
    field.
    """

    sources: Annotated[tuple[Source, ...], Meta(max_length=MAX_SOURCES)]
    rows: Annotated[tuple[RollupRow, ...], Meta(max_length=MAX_ROWS)] = ()
    audits: Annotated[tuple[AuditRow, ...], Meta(max_length=MAX_ROWS)] = ()
    v: int = VERSION
    samples: Annotated[tuple[Sample, ...], Meta(max_length=MAX_SAMPLES)] = ()


_DECODER = msgspec.json.Decoder(Rollup)


def decode_rollup(body: bytes) -> Rollup:
    """The rollup of an item.

    Raises:
        MalformedBodyError: it is none, of a later kind, what it counts is not what it covers, or
            a sample is of something else, or too large.
    """
    try:
        rollup = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedBodyError(f"not a rollup: {str(error)[:200]}") from None
    if rollup.v != VERSION:
        raise MalformedBodyError(f"a rollup of version {rollup.v}, which is not known here")
    _check_counts(rollup)
    return rollup


def _check_counts(rollup: Rollup) -> None:
    covered: Counter[tuple[str, str, str]] = Counter()
    for source in rollup.sources:
        num_rows = source.last - source.first + 1
        if source.first < 1 or num_rows < source.unread:
            raise MalformedBodyError(
                f"{source.site[:40]!r} covers rows {source.first} to {source.last}, "
                f"{source.unread} of them unread"
            )
        is_unnumbered = not source.audits_first
        if source.audits_last < source.audits_first - 1 or (is_unnumbered and source.audits_last):
            raise MalformedBodyError(
                f"{source.site[:40]!r} covers audits {source.audits_first} to {source.audits_last}"
            )
        covered[source.region, source.site, source.tier] += num_rows - source.unread
    counted: Counter[tuple[str, str, str]] = Counter()
    for row in rollup.rows:
        counted[row.region, row.site, row.tier] += row.count
    if counted != covered:
        raise MalformedBodyError("a rollup counts other decisions than its sources cover")
    places = {(source.region, source.site) for source in rollup.sources}
    if any((audit.region, audit.site) not in places for audit in rollup.audits):
        raise MalformedBodyError("a rollup tells of audits of a place that is none of its sources")
    _check_samples(rollup, covered)


def _check_samples(rollup: Rollup, covered: Counter[tuple[str, str, str]]) -> None:
    if Counter(map(place_of, rollup.samples)) - covered:
        raise MalformedBodyError("a rollup has samples of decisions that its sources do not cover")
    for one in rollup.samples:
        if not is_request_id(one.request_id):
            raise MalformedBodyError("a sample of a request whose id no caller may choose")
        if size_of(one) > MAX_SAMPLE_BYTES:
            raise MalformedBodyError(f"a sample of more than {MAX_SAMPLE_BYTES} bytes")


def encode_rollup(rollup: Rollup) -> bytes:
    """JSON, the same bytes for the same rollup."""
    return msgspec.json.encode(rollup)
