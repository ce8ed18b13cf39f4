"""The tables of ``rollouts.sqlite``: rollouts, devices and what was said, one file.

``holder``: who may change rollouts. ``rollouts``: their states, under a revision. ``audit``: every
transition, never changed. ``devices``: what each said last. ``heard``: reports that no rollout has
seen yet. ``sequences``: the latest assignment of each device, whose number only grows. ``told``:
which number belongs to which step of a rollout. ``counted``: requests of devices by release and
time. ``experiments``: A/B tests over devices, under a revision.
"""

from __future__ import annotations

from pathlib import Path

from runtime.adapters.sqlite_file import SqliteFile

FILE_NAME = "rollouts.sqlite"
SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS holder (
    one INTEGER PRIMARY KEY CHECK (one = 1), name TEXT NOT NULL, epoch INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS rollouts (
    id TEXT PRIMARY KEY,
    revision INTEGER NOT NULL,
    is_live INTEGER NOT NULL,
    model TEXT NOT NULL,
    created_s REAL NOT NULL,
    by TEXT NOT NULL,
    why TEXT NOT NULL,
    clears_bad INTEGER NOT NULL,
    is_closed INTEGER NOT NULL,
    entry BLOB NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS rollout_order ON rollouts (created_s);
CREATE TABLE IF NOT EXISTS audit (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    rollout TEXT NOT NULL,
    device TEXT NOT NULL,
    at_s REAL NOT NULL,
    who TEXT NOT NULL,
    why TEXT NOT NULL,
    was TEXT NOT NULL,
    now TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS audit_of ON audit (rollout, seq);
CREATE TABLE IF NOT EXISTS devices (
    id TEXT PRIMARY KEY,
    epoch INTEGER NOT NULL,
    number INTEGER NOT NULL,
    numbers INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    heard_s REAL NOT NULL,
    region TEXT NOT NULL,
    hardware TEXT NOT NULL,
    model TEXT NOT NULL,
    version TEXT NOT NULL,
    serving TEXT NOT NULL,
    state TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS device_age ON devices (heard_s);
CREATE TABLE IF NOT EXISTS heard (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    device TEXT NOT NULL,
    said_s REAL NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS sequences (
    device TEXT PRIMARY KEY, seq INTEGER NOT NULL, body BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS told (
    device TEXT NOT NULL,
    seq INTEGER NOT NULL,
    rollout TEXT NOT NULL,
    step INTEGER NOT NULL,
    kind TEXT NOT NULL,
    PRIMARY KEY (device, seq)
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS told_step ON told (rollout, device, step, kind);
CREATE TABLE IF NOT EXISTS counted (
    device TEXT NOT NULL,
    release TEXT NOT NULL,
    bucket_s INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    escalated INTEGER NOT NULL,
    slow INTEGER NOT NULL,
    shadowed INTEGER NOT NULL,
    disagreed INTEGER NOT NULL,
    audited INTEGER NOT NULL,
    audited_wrong INTEGER NOT NULL,
    PRIMARY KEY (device, release, bucket_s)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS experiments (
    id TEXT PRIMARY KEY, revision INTEGER NOT NULL, created_s REAL NOT NULL, body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS counted_age ON counted (bucket_s);
"""
_FILE_BYTES = 2**33


def open_file(folder: Path) -> SqliteFile:
    """The file of a state folder.

    Raises:
        StartError: the folder cannot be used, or a later version has written the file.
    """
    return SqliteFile(folder / FILE_NAME, SCHEMA, version=SCHEMA_VERSION, max_bytes=_FILE_BYTES)
