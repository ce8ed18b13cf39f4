"""What was answered without those above, and what they said later: kept until applications know.

A request that waits for a correction comes with the item of the outbox that asks for it, in one
transaction. Its correction is applied once, gets the next number, and takes that item away.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

import msgspec

from runtime.adapters.outbox import SqliteOutbox, count_total
from runtime.core.outbox import SET_CLOCK_S
from runtime.messages import Said
from runtime.ports import Clock, OutboxItem, PutResult

_COLUMNS = "seq, request_id, was, said, asked_s, corrected_s"


class CorrectionEvent(msgspec.Struct, frozen=True):
    """What an application is told, once a request.

    ``seq`` grows with every event of this agent, over restarts, too. ``confirmed`` says that the
    label is the one that was answered; None where one of the two answers has none. ``after_s`` is
    the time from the answer to the correction.
    """

    seq: int
    request_id: str
    confirmed: bool | None
    was: Said
    now: Said
    after_s: float


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the correction of one request: ``waiting``, ``corrected``, ``dropped``."""

    state: str
    event: CorrectionEvent | None


class SqliteCorrections:
    """The table of corrections; the asynchronous methods raise ``StorageError``."""

    def __init__(
        self, outbox: SqliteOutbox, clock: Clock, *, max_rows: int = 10_000, max_age_s: float
    ) -> None:
        self._outbox, self._file, self._clock = outbox, outbox.file, clock
        self._max_rows, self._max_age_s = max_rows, max_age_s

    def expect(
        self, request_id: str, was: Said, item: OutboxItem, *, not_before_s: float = 0.0
    ) -> None:
        """Has the item put into the outbox, and waits for what comes of it; never raises.

        Whoever asks about the request afterwards finds it. A request id that is known is not asked
        again: it gets one event. ``not_before_s`` is the monotonic instant from which the item may
        be sent.
        """

        def work(connection: sqlite3.Connection) -> PutResult:
            query = "SELECT count(*) FROM corrections WHERE request_id = ?"
            if connection.execute(query, (request_id,)).fetchone()[0]:
                return "known"
            result = self._outbox.add(connection, item)
            if result == "stored":
                connection.execute(
                    "INSERT INTO corrections (request_id, item, asked_s, was) VALUES (?, ?, ?, ?)",
                    (request_id, item.id, item.created_s, msgspec.json.encode(was).decode()),
                )
                query = "UPDATE items SET next_try_s = ? WHERE id = ?"
                connection.execute(query, (not_before_s, item.id))
                self._keep_bounds(connection)
            return result

        self._outbox.post(item, work)

    async def apply(
        self, request_id: str, said: Said, was: Said | None = None
    ) -> CorrectionEvent | None:
        """The event, the first time; None for a repetition and for what was never asked.

        With ``was``, what had been answered, also for what was never asked.
        """

        def work(connection: sqlite3.Connection) -> CorrectionEvent | None:
            found = connection.execute(
                "SELECT item FROM corrections WHERE request_id = ? AND seq IS NULL", (request_id,)
            ).fetchone()
            if found is None and (was is None or not self._is_added(connection, request_id, was)):
                return None
            if found is not None:
                connection.execute("DELETE FROM items WHERE id = ?", found)
            seq = count_total(connection, "events")
            connection.execute(
                "UPDATE corrections SET seq = ?, corrected_s = ?, said = ?, state = 'corrected' "
                "WHERE request_id = ?",
                (seq, self._clock.wall_s(), msgspec.json.encode(said).decode(), request_id),
            )
            self._outbox.show(connection)
            return _events(connection, "request_id = ?", request_id)[0]

        return await self._file.run(work)

    def _is_added(self, connection: sqlite3.Connection, request_id: str, was: Said) -> bool:
        """Whether a request of which nothing is known is from here on."""
        added = connection.execute(
            "INSERT OR IGNORE INTO corrections (request_id, item, asked_s, was) "
            "VALUES (?, '', ?, ?)",
            (request_id, self._clock.wall_s(), msgspec.json.encode(was).decode()),
        )
        self._keep_bounds(connection)
        return added.rowcount == 1

    async def known(self, request_id: str) -> Known | None:
        """What is known of a request; None where no correction was ever to come."""

        def work(connection: sqlite3.Connection) -> Known | None:
            query = "SELECT state FROM corrections WHERE request_id = ?"
            found = connection.execute(query, (request_id,)).fetchone()
            if found is None:
                return None
            events = _events(connection, "request_id = ? AND seq IS NOT NULL", request_id)
            return Known(found[0], events[0] if events else None)

        return await self._file.run(work)

    async def after(self, seq: int, limit: int = 100) -> list[CorrectionEvent]:
        """The events after one, in order."""
        return await self._file.run(
            lambda connection: _events(connection, "seq > ? ORDER BY seq LIMIT ?", seq, limit)
        )

    async def untold(self) -> list[CorrectionEvent]:
        """The events that no callback has had."""
        which = "seq IS NOT NULL AND NOT is_told ORDER BY seq LIMIT 100"
        return await self._file.run(lambda connection: _events(connection, which))

    async def unpublished(self) -> list[CorrectionEvent]:
        """The events that have not come back from the broker."""
        which = "seq IS NOT NULL AND NOT is_published ORDER BY seq LIMIT 100"
        return await self._file.run(lambda connection: _events(connection, which))

    async def told(self, seq: int) -> None:
        """A callback has had this event."""
        query = "UPDATE corrections SET is_told = 1 WHERE seq = ?"
        await self._file.run(lambda connection: connection.execute(query, (seq,)))

    async def published(self, seq: int) -> None:
        """The broker has this event."""
        query = "UPDATE corrections SET is_published = 1 WHERE seq = ?"
        await self._file.run(lambda connection: connection.execute(query, (seq,)))

    def _keep_bounds(self, connection: sqlite3.Connection) -> None:
        """Forgets what nobody asked about for long, oldest first."""
        connection.execute(
            "DELETE FROM corrections WHERE asked_s < ? AND asked_s >= ? AND item NOT IN "
            "(SELECT id FROM items)",
            (self._clock.wall_s() - self._max_age_s, SET_CLOCK_S),
        )
        connection.execute(
            "DELETE FROM corrections WHERE rowid IN "
            "(SELECT rowid FROM corrections ORDER BY rowid DESC LIMIT -1 OFFSET ?)",
            (self._max_rows,),
        )


def is_confirmed(was: Said, now: Said) -> bool | None:
    """Whether the later answer is the one that was given; None where one of them is no label."""
    if was.label is None or now.label is None:
        return None
    return was.label == now.label


def _events(connection: sqlite3.Connection, which: str, *values: object) -> list[CorrectionEvent]:
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM corrections WHERE {which}",  # noqa: S608 names of our own
        values,
    )
    return [_event(row) for row in rows]


def _event(row: tuple[int, str, str, str, float, float]) -> CorrectionEvent:
    seq, request_id, was, said, asked_s, corrected_s = row
    before, now = msgspec.json.decode(was, type=Said), msgspec.json.decode(said, type=Said)
    confirmed = is_confirmed(before, now)
    after_s = max(0.0, corrected_s - asked_s)
    return CorrectionEvent(seq, request_id, confirmed, before, now, round(after_s, 3))
