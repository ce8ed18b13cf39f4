"""Who has changed what over this port, when and why: a file to which lines are only added.

Rules of this file:
  * a line is on disk before whoever asked is told that it was done;
  * over ``max_lines`` the oldest go; sequences are never given again, so that a gap is seen;
  * what an operator may do never depends on it: where it cannot be written, that is logged and
    told, and the change stands. A full disk must not keep anybody from stopping a model.
"""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from runtime.errors import StartError, StorageError

FILE_NAME = "operators.sqlite"
MAX_LINES = 100_000
_MAX_TEXT = 500
_SCHEMA = """
CREATE TABLE IF NOT EXISTS audit (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at_s REAL NOT NULL,
    who TEXT NOT NULL,
    via TEXT NOT NULL,
    what TEXT NOT NULL,
    target TEXT NOT NULL,
    why TEXT NOT NULL
);
CREATE TRIGGER IF NOT EXISTS never_changed BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'lines of the audit are never changed'); END;
"""
_log = structlog.get_logger()


class AuditLine(NamedTuple):
    """One change: ``what`` was done to which ``target``, by ``who`` over which way (``via``)."""

    seq: int
    at_s: float
    who: str
    via: str
    what: str
    target: str
    why: str


class AuditLog:
    """The file; usable from several threads.

    Raises:
        StartError: it cannot be opened.
    """

    def __init__(self, folder: Path, *, max_lines: int = MAX_LINES) -> None:
        self._path, self._max_lines = folder / FILE_NAME, max_lines
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(self._path, check_same_thread=False, timeout=5.0)
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.execute("PRAGMA synchronous = FULL")
            self._file.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise StartError(f"cannot open {self._path}: {error}") from error

    def add(self, at_s: float, who: str, via: str, *, what: str, target: str, why: str) -> bool:
        """Writes one line; whether that was possible."""
        line = (at_s, *(_plain(one) for one in (who, via, what, target, why)))
        try:
            with self._lock, self._file:
                found = self._file.execute(
                    "INSERT INTO audit (at_s, who, via, what, target, why) "
                    "VALUES (?, ?, ?, ?, ?, ?)",
                    line,
                )
                self._file.execute(
                    "DELETE FROM audit WHERE seq <= ?", ((found.lastrowid or 0) - self._max_lines,)
                )
        except sqlite3.Error as error:
            _log.error("operators.not_audited", error=str(error), line=line)
            return False
        return True

    def page(self, before: int, limit: int) -> list[AuditLine]:
        """Lines before a sequence (0: the newest), the newest first.

        Raises:
            StorageError: the file cannot be read.
        """
        try:
            with self._lock:
                rows = self._file.execute(
                    "SELECT seq, at_s, who, via, what, target, why FROM audit "
                    "WHERE ? = 0 OR seq < ? ORDER BY seq DESC LIMIT ?",
                    (before, before, limit),
                ).fetchall()
        except sqlite3.Error as error:
            raise StorageError(f"cannot read {self._path}: {error}") from error
        return [AuditLine(*row) for row in rows]

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._file.close()


def audit_line(line: AuditLine) -> dict[str, Any]:
    """A line as JSON has it."""
    return line._asdict()


def _plain(text: str) -> str:
    return "".join(one if one.isprintable() else "?" for one in text[:_MAX_TEXT])
