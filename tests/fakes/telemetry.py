"""Rollups of made-up decisions, and the items that carry them."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

from runtime.core.sketch import bucket_of
from runtime.messages import ItemKind
from runtime.ports import OutboxItem
from runtime.telemetry import AuditRow, Rollup, RollupRow, Source, encode_rollup

# A time in the middle of an hour of the middle of a day.
NOW_S = 1_790_000_000 // 86_400 * 86_400 + 43_200 + 1800.0


def row(count: int = 1, *, latency_ms: float = 10.0, **more: Any) -> RollupRow:
    values: dict[str, Any] = {
        "minutes_ago": 0, "region": "eu", "site": "cam-1", "tier": "edge", "model": "fashion",
        "version": "1", "policy": "p1", "gear": "g1", "route": "", "action": "answer",
        "decided": "confident", "outcome": "answered", "reason": "confident",
        "answered_by": "edge", "guarantee": "certified", "label": "3", "is_entry": True,
        "count": count, "late": 0, "sent_bytes": 0, "service_us": 100 * count,
        "latency_ms_sum": latency_ms * count, "cost_sum": 0.5 * count, "confident": count,
        "confidence_sum": 0.75 * count, "confidences": {15: count} if count else {},
        "latency": {bucket_of(latency_ms): count} if count else {},
    }  # fmt: skip
    return RollupRow(**{**values, **more})


def escalated(count: int = 1, *, answered_by: str = "cloud", **more: Any) -> RollupRow:
    values: dict[str, Any] = {
        "action": "escalate", "decided": "unsure", "reason": "confident",
        "answered_by": answered_by, "sent_bytes": 1000 * count, "latency_ms": 40.0,
    }  # fmt: skip
    return row(count, **{**values, **more})


def audit(agreed: int = 9, disagreed: int = 1, chance: float = 0.1, **more: Any) -> AuditRow:
    values: dict[str, Any] = {
        "minutes_ago": 0, "region": "eu", "site": "cam-1", "policy": "p1", "gear": "g1",
        "agreed": agreed, "disagreed": disagreed, "failed": 0,
        "weighted_agreed": agreed / chance, "weighted": (agreed + disagreed) / chance,
    }  # fmt: skip
    return AuditRow(**{**values, **more})


def source(last: int, first: int = 1, **more: Any) -> Source:
    values: dict[str, Any] = {"region": "eu", "site": "cam-1", "tier": "edge", "log": "ab"}
    return Source(first=first, last=last, **{**values, **more})


def rollup(*rows: RollupRow, first: int = 1, audits: tuple[AuditRow, ...] = ()) -> Rollup:
    """A rollup of one log that covers just its rows."""
    total = sum(one.count for one in rows)
    return Rollup((source(first + total - 1, first),), rows, audits)


def item(
    said: Rollup, *, item_id: str = "", at_s: float = NOW_S, origin: str = "eu/cam-1"
) -> OutboxItem:
    body = encode_rollup(said)
    return OutboxItem(item_id or uuid4().hex, ItemKind.METRICS, at_s, body, origin=origin)


def feedback(
    *, label: int | None = None, is_correct: bool | None = None, answered: int | None = 3,
    at_s: float = NOW_S, **more: Any,
) -> OutboxItem:  # fmt: skip
    said = {
        "request_id": uuid4().hex, "label": label, "label_name": None, "is_correct": is_correct,
        "comment": "a person's words",
        "answered": None if answered is None else {
            "label": answered, "outcome": "answered", "reason": "confident",
            "answered_by": "edge", "model": "fashion", "model_version": "1", "policy": "p1",
            "gear": "g1", **more,
        },
    }  # fmt: skip
    body = json.dumps(said).encode()
    return OutboxItem(uuid4().hex, ItemKind.FEEDBACK, at_s, body, origin="eu/cam-1")
