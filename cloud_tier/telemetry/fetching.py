"""Rows of queries, as long as there is time and not too many."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Select

from cloud_tier.telemetry.bounded import Bounds, too_late
from cloud_tier.telemetry.database import is_postgres
from runtime.errors import RequestError

_FETCH = 20_000


class Fetcher:
    """Runs the queries of one question within its bounds.

    Args:
        connection: in a transaction that reads.
        bounds: what one question may take.
        deadline_s: when its time is over, of ``time.monotonic``.
    """

    def __init__(self, connection: Connection, bounds: Bounds, deadline_s: float) -> None:
        self.bounds = bounds
        self._connection, self._deadline_s = connection, deadline_s

    def rows(self, query: Select[Any]) -> Iterator[tuple[Any, ...]]:
        """The rows of a query.

        Raises:
            RequestError: there are more than may be read.
            TooLateError: the question's time is over.
        """
        for some in self.pieces(query):
            yield from some

    def pieces(self, query: Select[Any]) -> Iterator[Sequence[tuple[Any, ...]]]:
        """The same, many at a time."""
        query, num = query.limit(self.bounds.max_rows + 1), 0
        connection = self._connection
        if is_postgres(connection):
            # Else its driver would hold all rows at once.
            connection = connection.execution_options(stream_results=True)
        with connection.execute(query) as result:
            # SQLite's driver has no more than a row at hand; without an object around each of them
            # a question takes half the time.
            is_bare = result.cursor is not None and not is_postgres(connection)
            fetch = result.cursor.fetchmany if is_bare else result.fetchmany
            while some := fetch(_FETCH):
                num += len(some)
                if num > self.bounds.max_rows:
                    raise RequestError(
                        f"more than {self.bounds.max_rows} rows would have to be read: ask about "
                        "a shorter time, or narrow it with where"
                    )
                if time.monotonic() >= self._deadline_s:
                    raise too_late(self.bounds)
                yield some
