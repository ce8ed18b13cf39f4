"""Reports of reviews as rows: what is kept of an answer that somebody is to look at. Pure.

Rules of this file:
  * a payload that may not be here is not kept, whoever has sent it;
  * times are those of this machine: the report says how long was promised, the item how old it is;
  * numbers that cannot be are cut to what can.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from cloud_tier.telemetry.series import clean
from runtime.core.reviewing import State, value_of
from runtime.messages import Outcome, Reason, Residency, Said
from runtime.ports import OutboxItem
from runtime.review_report import ReviewReport, Source

MIN_SPAN_S, MAX_SPAN_S = 1.0, 31_536_000.0
MAX_PAST_S = 35 * 86_400.0
# A row beside its inputs: names, numbers, answers.
ROW_BYTES = 1024
_SOURCES = frozenset(one.value for one in Source) - {Source.CALLER.value}


def row_of(report: ReviewReport, item: OutboxItem, *, now_s: float, wanted: int) -> dict[str, Any]:
    """The row of an item that is new."""
    span_s = report.due_s - report.wall_s
    span_s = min(max(span_s, MIN_SPAN_S), MAX_SPAN_S) if math.isfinite(span_s) else MAX_SPAN_S
    at_s = min(max(item.created_s, now_s - MAX_PAST_S), now_s)
    may_be_here = report.residency == Residency.CLOUD
    body = report.body if may_be_here and report.header_length <= len(report.body) else b""
    label = report.label if not report.labels or report.label < len(report.labels) else -1
    return {
        "item": report.item,
        "state": State.WAITING.value,
        "source": report.source if report.source in _SOURCES else Source.POLICY.value,
        "request_id": clean(report.request_id)[:256],
        "region": clean(report.region),
        "site": clean(report.site),
        "tier": clean(report.tier),
        "model": clean(report.model),
        "version": clean(report.model_version),
        "policy": clean(report.policy),
        "gear": clean(report.gear),
        "origin": item.origin,
        "sender": item.sender,
        "at_s": at_s,
        "due_s": at_s + span_s,
        "label": label,
        "label_name": clean(report.label_name),
        "confidence": _share(report.confidence),
        "chance": _share(report.chance),
        "value": value_of(report.chance, label),
        "answers": report.answers,
        "labels": msgspec.json.encode(report.labels).decode(),
        "wanted": wanted,
        "num_labels": 0,
        "winner": None,
        "done_s": 0.0,
        "told": 0,
        "header_length": report.header_length if body else 0,
        "body": body,
        "num_bytes": len(body) + len(report.answers) + ROW_BYTES,
    }


def caller_of(report: ReviewReport, item: OutboxItem, now_s: float) -> dict[str, Any]:
    """The row of somebody who waits for what people say of a request."""
    return {
        "request_id": clean(report.request_id)[:256],
        "origin": item.origin,
        "sender": item.sender,
        "was": was_of(report),
        "at_s": now_s,
        "told": 0,
    }


def was_of(report: ReviewReport) -> str:
    """What the caller has been answered, as a correction tells it."""
    try:
        outcome = Outcome(report.outcome)
    except ValueError:
        outcome = Outcome.ANSWERED if report.label >= 0 else Outcome.ABSTAINED
    said = Said(
        outcome=outcome,
        reason=Reason.REVIEW,
        label=report.label if report.label >= 0 else None,
        label_name=report.label_name,
        model_name=report.model,
        model_version=report.model_version,
    )
    return msgspec.json.encode(said).decode()


def _share(said: float) -> float:
    return min(max(said, 0.0), 1.0) if math.isfinite(said) else 0.0
