"""Decision records for tests, and logs made of them."""

from __future__ import annotations

import dataclasses
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from runtime.adapters.decision_log import FILE_NAME, SqliteDecisionLog
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


# As the first version of the file had it.
_VERSION_1 = """
CREATE TABLE decisions (
    wall_s REAL NOT NULL, request_id TEXT NOT NULL, tier TEXT NOT NULL, site TEXT NOT NULL,
    region TEXT NOT NULL, hop INTEGER NOT NULL, model TEXT NOT NULL, model_version TEXT NOT NULL,
    action TEXT NOT NULL, decided_because TEXT NOT NULL, outcome TEXT NOT NULL,
    reason TEXT NOT NULL, answered_by TEXT NOT NULL, label INTEGER, confidence REAL,
    remaining_ms REAL, latency_ms REAL, service_us INTEGER NOT NULL, sent_bytes INTEGER NOT NULL,
    propensity REAL
);
CREATE TABLE totals (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO totals VALUES ('deleted', 0);
PRAGMA user_version = 1;
"""


def write_log_of_version_1(folder: Path, *records: DecisionRecord) -> Path:
    """The same as an earlier version wrote it."""
    path = folder / FILE_NAME
    insert = "INSERT INTO decisions VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(_VERSION_1)
        for record in records:
            connection.execute(insert, dataclasses.astuple(record)[:20])
        connection.commit()
    return path
