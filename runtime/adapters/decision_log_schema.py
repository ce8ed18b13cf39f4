"""The tables of ``decisions.sqlite``, and how a file of an earlier version comes to them."""

from __future__ import annotations

SCHEMA_VERSION = 6
SCHEMA = """
BEGIN;
CREATE TABLE IF NOT EXISTS decisions (
    wall_s REAL NOT NULL,
    request_id TEXT NOT NULL,
    tier TEXT NOT NULL,
    site TEXT NOT NULL,
    region TEXT NOT NULL,
    hop INTEGER NOT NULL,
    model TEXT NOT NULL,
    model_version TEXT NOT NULL,
    action TEXT NOT NULL,
    decided_because TEXT NOT NULL,
    outcome TEXT NOT NULL,
    reason TEXT NOT NULL,
    answered_by TEXT NOT NULL,
    label INTEGER,
    confidence REAL,
    remaining_ms REAL,
    latency_ms REAL,
    service_us INTEGER NOT NULL,
    sent_bytes INTEGER NOT NULL,
    propensity REAL,
    policy TEXT NOT NULL DEFAULT '',
    gear TEXT NOT NULL DEFAULT '',
    score REAL,
    route TEXT NOT NULL DEFAULT '',
    gain REAL,
    cost REAL,
    chance REAL,
    guarantee TEXT NOT NULL DEFAULT 'none',
    seen TEXT NOT NULL DEFAULT '',
    budget_ms REAL,
    audit_chance REAL NOT NULL DEFAULT 0.0,
    residency TEXT NOT NULL DEFAULT '',
    rule TEXT NOT NULL DEFAULT '',
    forwarded TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS audits (
    wall_s REAL NOT NULL,
    request_id TEXT NOT NULL,
    site TEXT NOT NULL,
    policy TEXT NOT NULL,
    gear TEXT NOT NULL,
    chance REAL NOT NULL,
    seen TEXT NOT NULL,
    agrees INTEGER
);
CREATE TABLE IF NOT EXISTS totals (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT OR IGNORE INTO totals VALUES ('deleted', 0);
INSERT OR IGNORE INTO totals VALUES ('dropped', 0);
INSERT OR IGNORE INTO totals VALUES ('log', 1 + (random() & 0x3fffffffffffffff));
PRAGMA user_version = 6;
COMMIT;
"""
# What each version added to the one before; each step is one transaction, so that a crash leaves a
# file of one version or of the next.
STEPS = {
    # The rows of version 1 followed no policy, and nothing was promised for them.
    1: """
BEGIN IMMEDIATE;
ALTER TABLE decisions ADD COLUMN policy TEXT NOT NULL DEFAULT '';
ALTER TABLE decisions ADD COLUMN gear TEXT NOT NULL DEFAULT '';
ALTER TABLE decisions ADD COLUMN score REAL;
ALTER TABLE decisions ADD COLUMN route TEXT NOT NULL DEFAULT '';
ALTER TABLE decisions ADD COLUMN gain REAL;
ALTER TABLE decisions ADD COLUMN cost REAL;
ALTER TABLE decisions ADD COLUMN chance REAL;
ALTER TABLE decisions ADD COLUMN guarantee TEXT NOT NULL DEFAULT 'none';
PRAGMA user_version = 2;
COMMIT;
""",
    # Those of version 2 do not say what other tiers answered: they cannot be replayed.
    2: """
BEGIN IMMEDIATE;
ALTER TABLE decisions ADD COLUMN seen TEXT NOT NULL DEFAULT '';
ALTER TABLE decisions ADD COLUMN budget_ms REAL;
ALTER TABLE decisions ADD COLUMN audit_chance REAL NOT NULL DEFAULT 0.0;
ALTER TABLE decisions ADD COLUMN residency TEXT NOT NULL DEFAULT '';
PRAGMA user_version = 3;
COMMIT;
""",
    # No rule decided what version 3 has logged.
    3: """
BEGIN IMMEDIATE;
ALTER TABLE decisions ADD COLUMN rule TEXT NOT NULL DEFAULT '';
PRAGMA user_version = 4;
COMMIT;
""",
    # Version 4 had no name of its own, and did not keep how much it could not take.
    4: """
BEGIN IMMEDIATE;
INSERT OR IGNORE INTO totals VALUES ('dropped', 0);
INSERT OR IGNORE INTO totals VALUES ('log', 1 + (random() & 0x3fffffffffffffff));
PRAGMA user_version = 5;
COMMIT;
""",
    # Until version 5 what climbed was what had come.
    5: """
BEGIN IMMEDIATE;
ALTER TABLE decisions ADD COLUMN forwarded TEXT NOT NULL DEFAULT '';
PRAGMA user_version = 6;
COMMIT;
""",
}
