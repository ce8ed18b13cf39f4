"""Decision records for tests, and logs made of them."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from runtime.adapters.decision_log import FILE_NAME, SqliteDecisionLog
from runtime.ports import AuditRecord, DecisionRecord

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


def audit(of: DecisionRecord, seen: str = "edge=3:0.9;cloud=3:0.8", **changes: Any) -> AuditRecord:
    """An audit of a decision that came back and agreed, but for ``changes``."""
    came_back = AuditRecord(
        wall_s=of.wall_s,
        request_id=of.request_id,
        site=of.site,
        policy=of.policy,
        gear=of.gear,
        chance=of.audit_chance,
        seen=seen,
        agrees=True,
    )
    return dataclasses.replace(came_back, **changes)


def write_log(folder: Path, *records: DecisionRecord | AuditRecord) -> Path:
    """A closed log with these records; its file."""
    with SqliteDecisionLog(folder, gather_s=0) as log:
        for record in records:
            log.append(record)
    return log.path


# As the earlier versions of the file had it.
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


_VERSION_2 = _VERSION_1.replace(
    "propensity REAL\n",
    "propensity REAL, policy TEXT NOT NULL DEFAULT '', gear TEXT NOT NULL DEFAULT '',"
    "score REAL, route TEXT NOT NULL DEFAULT '', gain REAL, cost REAL, chance REAL,"
    "guarantee TEXT NOT NULL DEFAULT 'none'\n",
).replace("user_version = 1", "user_version = 2")


_VERSION_3 = _VERSION_2.replace(
    "DEFAULT 'none'\n",
    "DEFAULT 'none', seen TEXT NOT NULL DEFAULT '', budget_ms REAL,"
    "audit_chance REAL NOT NULL DEFAULT 0.0, residency TEXT NOT NULL DEFAULT ''\n",
).replace(
    "PRAGMA user_version = 2",
    "CREATE TABLE audits (wall_s REAL NOT NULL, request_id TEXT NOT NULL, site TEXT NOT NULL,"
    "policy TEXT NOT NULL, gear TEXT NOT NULL, chance REAL NOT NULL, seen TEXT NOT NULL,"
    "agrees INTEGER); PRAGMA user_version = 3",
)


def write_log_of_version_1(folder: Path, *records: DecisionRecord) -> Path:
    """The same as the first version wrote it."""
    return _write_old(folder / FILE_NAME, _VERSION_1, 20, records)


def write_log_of_version_2(folder: Path, *records: DecisionRecord) -> Path:
    """The same as the second version wrote it."""
    return _write_old(folder / FILE_NAME, _VERSION_2, 28, records)


def write_log_of_version_3(folder: Path, *records: DecisionRecord) -> Path:
    """The same as the third version wrote it."""
    return _write_old(folder / FILE_NAME, _VERSION_3, 32, records)


def _write_old(path: Path, schema: str, num: int, records: Iterable[DecisionRecord]) -> Path:
    insert = f"INSERT INTO decisions VALUES ({','.join('?' * num)})"  # noqa: S608 - only marks
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(schema)
        for record in records:
            connection.execute(insert, dataclasses.astuple(record)[:num])
        connection.commit()
    return path
