"""Samples of made-up decisions."""

from __future__ import annotations

from typing import Any

from runtime.decision_sample import Sample


def sample(request_id: str = "r1", **more: Any) -> Sample:
    """An answer of a device, but for ``more``."""
    values: dict[str, Any] = {
        "age_s": 5.0, "region": "eu", "site": "cam-1", "tier": "edge", "hop": 0,
        "model": "fashion", "model_version": "1", "action": "answer",
        "decided_because": "confident", "outcome": "answered", "reason": "confident",
        "answered_by": "edge", "label": 3, "confidence": 0.9, "remaining_ms": 95.0,
        "latency_ms": 2.0, "service_us": 300, "sent_bytes": 0,
    }  # fmt: skip
    return Sample(request_id=request_id, **{**values, **more})


def climbed(request_id: str = "r1", **more: Any) -> Sample:
    """A device that was not sure and passed the request on."""
    values: dict[str, Any] = {
        "action": "escalate", "decided_because": "unsure", "answered_by": "cloud",
        "confidence": 0.4, "sent_bytes": 900, "latency_ms": 30.0,
    }  # fmt: skip
    return sample(request_id, **{**values, **more})
