"""Opens a decision log to read it, while it is written or long after; changes nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from runtime.errors import StartError

_PROBE = "SELECT count(*) FROM sqlite_master WHERE name = ?"


@contextmanager
def reading(path: Path, table: str = "totals") -> Iterator[sqlite3.Connection | None]:
    """A connection that only reads; None while the writer has not made its ``table`` yet.

    Raises:
        StartError: whatever SQLite says against the file, here or in what is done with it.
    """
    try:
        with closing(_connected(path)) as connection:
            yield connection if _has_table(connection, table) else None
    except sqlite3.Error as error:
        raise StartError(f"cannot read {path}: {error}") from error


def columns_of(connection: sqlite3.Connection, table: str) -> frozenset[str]:
    """The columns of a table, none where it is not there: earlier versions have fewer."""
    found = connection.execute("SELECT name FROM pragma_table_info(?)", (table,))
    return frozenset(name for (name,) in found)


def _connected(path: Path) -> sqlite3.Connection:
    uri = f"file:{quote(str(path.resolve()))}"
    connection = sqlite3.connect(f"{uri}?mode=ro", uri=True, timeout=5.0)
    try:
        _has_table(connection, "")
    except sqlite3.OperationalError:
        connection.close()
        if path.with_name(f"{path.name}-wal").exists():
            raise
        # A log whose writer has ended, in a folder that we may not write to: SQLite cannot make
        # the shared memory of WAL there, and nobody else can change the file.
        connection = sqlite3.connect(f"{uri}?immutable=1", uri=True)
    return connection


def _has_table(connection: sqlite3.Connection, table: str) -> bool:
    (number,) = connection.execute(_PROBE, (table,)).fetchone()
    return bool(number)
