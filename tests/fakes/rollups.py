"""Rows of rollups, with what a test does not care about filled in."""

from __future__ import annotations

from typing import Any

from runtime.core.sketch import bucket_of
from runtime.telemetry import RollupRow


def row(
    *, count: int = 1, latency_ms: float = 5.0, confidence: float = 0.9, **said: Any
) -> RollupRow:
    """A row of ``count`` decisions that took as long and were as sure."""
    fields: dict[str, Any] = {
        "minutes_ago": 0,
        "region": "eu",
        "site": "camera-1",
        "tier": "edge",
        "model": "fashion",
        "version": "1",
        "policy": "",
        "gear": "",
        "route": "",
        "action": "answer",
        "decided": "confident",
        "outcome": "answered",
        "reason": "confident",
        "answered_by": "edge",
        "guarantee": "none",
        "label": "3",
        "is_entry": True,
        "count": count,
        "late": 0,
        "sent_bytes": 0,
        "service_us": 100 * count,
        "latency_ms_sum": latency_ms * count,
        "cost_sum": 0.0,
        "confident": count,
        "confidence_sum": confidence * count,
        "confidences": {min(19, int(confidence * 20)): count},
        "latency": {bucket_of(latency_ms): count},
    }
    return RollupRow(**{**fields, **said})
