"""The tables of ``outbox.sqlite``: one file a tier, so that what belongs together is committed so.

``items``: what waits to be sent. ``seen``: what was taken over from others, so that it is applied
once. ``received``: what ended its way here. ``merging``: rollups from below that go on as one.
``ways``: through which gateway a region further below is reached. ``corrections``: requests that
were answered without those above, and what they said later. ``totals``: what was dropped, and the
last event's number.
"""

from __future__ import annotations

from pathlib import Path

from runtime.adapters.sqlite_file import SqliteFile

FILE_NAME = "outbox.sqlite"
SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS items (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    origin TEXT NOT NULL,
    kind TEXT NOT NULL,
    rank INTEGER NOT NULL,
    target TEXT NOT NULL,
    created_s REAL NOT NULL,
    properties TEXT NOT NULL,
    body BLOB NOT NULL,
    num_bytes INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    strikes INTEGER NOT NULL DEFAULT 0,
    sent_s REAL,
    next_try_s REAL NOT NULL DEFAULT 0,
    parked TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS item_order ON items (parked, rank, attempts, seq);
CREATE INDEX IF NOT EXISTS item_drops ON items (rank DESC, parked = '', seq);
CREATE INDEX IF NOT EXISTS item_parked ON items (kind) WHERE parked != '';
CREATE INDEX IF NOT EXISTS item_bytes ON items (num_bytes);
CREATE INDEX IF NOT EXISTS item_age ON items (created_s);
CREATE TABLE IF NOT EXISTS seen (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE
);
CREATE TABLE IF NOT EXISTS received (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    origin TEXT NOT NULL,
    sender TEXT NOT NULL,
    kind TEXT NOT NULL,
    created_s REAL NOT NULL,
    received_s REAL NOT NULL,
    body BLOB NOT NULL,
    num_bytes INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS received_bytes ON received (num_bytes);
CREATE TABLE IF NOT EXISTS merging (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    created_s REAL NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS ways (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    region TEXT NOT NULL UNIQUE,
    gateway TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS corrections (
    request_id TEXT PRIMARY KEY,
    item TEXT NOT NULL,
    asked_s REAL NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting',
    was TEXT NOT NULL,
    seq INTEGER UNIQUE,
    corrected_s REAL,
    said TEXT NOT NULL DEFAULT '',
    is_told INTEGER NOT NULL DEFAULT 0,
    is_published INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS correction_item ON corrections (item);
CREATE TABLE IF NOT EXISTS totals (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""


def open_file(folder: Path, *, max_bytes: int) -> SqliteFile:
    """The file of a state folder; ``max_bytes`` is what its tables may hold together.

    Raises:
        StartError: the folder cannot be used, or a later version has written the file.
    """
    # Pages are not all full, and the tables beside ``items`` take their share.
    return SqliteFile(
        folder / FILE_NAME, SCHEMA, version=SCHEMA_VERSION, max_bytes=2 * max_bytes + 33_554_432
    )
