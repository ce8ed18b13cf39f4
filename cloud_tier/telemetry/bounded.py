"""What one question may take of a database, and how the database is told."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from sqlalchemy import Connection

from cloud_tier.telemetry.database import is_postgres
from runtime.errors import TooLateError

# Steps of SQLite's machine from one look at the clock to the next.
_SQLITE_STEPS = 20_000


class Bounds(NamedTuple):
    """What one question may take: time in s, rows of a table that are read, rows of its answer."""

    timeout_s: float = 10.0
    max_rows: int = 5_000_000
    max_groups: int = 100_000


@contextmanager
def limited(connection: Connection, bounds: Bounds, is_over: threading.Event) -> Iterator[None]:
    """Has the database itself break off what takes too long."""
    if is_postgres(connection):
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {int(bounds.timeout_s * 1000)}")
        yield
        return
    driver = connection.connection.driver_connection
    if not isinstance(driver, sqlite3.Connection):
        raise TypeError("SQLite is read by Python's own driver")
    until_s = time.monotonic() + bounds.timeout_s

    def is_late() -> int:
        if time.monotonic() < until_s:
            return 0
        is_over.set()
        return 1

    driver.set_progress_handler(is_late, _SQLITE_STEPS)
    try:
        yield
    finally:
        driver.set_progress_handler(None, 0)


def too_late(bounds: Bounds) -> TooLateError:
    """What is said when the time is over."""
    return TooLateError(
        f"the question took longer than {bounds.timeout_s:g} s: ask about a shorter time (since), "
        "narrow it with where, or ask again: what was read by now is in memory"
    )
