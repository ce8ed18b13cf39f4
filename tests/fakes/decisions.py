"""Decision records for tests, and logs made of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from runtime.adapters.decision_log import SqliteDecisionLog
from runtime.ports import DecisionRecord

ENTRY = DecisionRecord(
    wall_s=1000.0,
    request_id="r1",
    tier="edge",
    site="camera-1",
    region="north",
    hop=0,
    model="fashion",
    model_version="1",
    action="answer",
    decided_because="confident",
    outcome="answered",
    reason="confident",
    answered_by="edge",
    label=3,
    confidence=0.9,
    remaining_ms=95.0,
    latency_ms=2.0,
    service_us=300,
    sent_bytes=0,
)


def decision(request_id: str = "r1", **changes: Any) -> DecisionRecord:
    """An entry decision that was answered on the device, but for ``changes``."""
    return dataclasses.replace(ENTRY, request_id=request_id, **changes)


def escalated(request_id: str = "r1", **changes: Any) -> DecisionRecord:
    """An entry decision that climbed and came back with the gateway's answer."""
    climbed = dataclasses.replace(
        ENTRY,
        action="escalate",
        decided_because="unsure",
        reason="confident",
        answered_by="regional",
        confidence=0.4,
        latency_ms=30.0,
        sent_bytes=900,
    )
    return dataclasses.replace(climbed, request_id=request_id, **changes)


def write_log(folder: Path, *records: DecisionRecord) -> Path:
    """A closed log with these records; its file."""
    with SqliteDecisionLog(folder, gather_s=0) as log:
        for record in records:
            log.append(record)
    return log.path
