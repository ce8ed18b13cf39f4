"""The store of reviews: items, leases and labels in the database of telemetry.

Rules of this file:
  * an item is there once, whoever sends it and however often; so is each person's label;
  * what a person is told has happened is committed;
  * the store is bounded by items and bytes: the least valuable goes first, of those the oldest, and
    each that goes is counted;
  * one thread works on the database, and nobody on the event loop waits for a disk.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NamedTuple, TypeVar

from sqlalchemy import Connection, Engine, Row, case, delete, select

from cloud_tier.reviews.cases import (
    WITHOUT_BODY,
    case_of,
    count_note,
    keep_leases,
    keep_state,
    row_of,
    used,
)
from cloud_tier.reviews.intake import caller_of
from cloud_tier.reviews.intake import row_of as new_row
from cloud_tier.telemetry.database import is_inserted, writing
from cloud_tier.telemetry.migrating import migrate
from cloud_tier.telemetry.tables import (
    review_callers,
    review_given,
    review_items,
    review_leases,
)
from runtime.core.reviewing import LEASE_S, Case, Move, State, give, take, undo
from runtime.ports import OutboxItem
from runtime.review_report import Source, decode_report

T = TypeVar("T")
OPEN = (State.WAITING.value, State.ASSIGNED.value, State.DISPUTED.value)
# Items that are looked through for one that is free: others are with other people.
_LOOK_THROUGH = 200


class Bounds(NamedTuple):
    """What the store may hold, and for how long somebody may look."""

    max_items: int = 20_000
    max_bytes: int = 1_073_741_824
    retention_s: float = 2_592_000.0
    lease_s: float = LEASE_S
    wanted: int = 1


class Standing(NamedTuple):
    """An item after a move: the row, the case, and what became of the move."""

    row: Row[Any]
    case: Case
    move: Move


class ReviewStore:
    """Reviews in a database; raises ``StorageError`` where it does not answer."""

    def __init__(
        self, engine: Engine, bounds: Bounds, *, wall_s: Callable[[], float] = time.time
    ) -> None:
        self._engine, self.bounds, self.wall_s = engine, bounds, wall_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reviews")
        self._is_migrated = False

    async def run(self, work: Callable[[Connection], T]) -> T:
        """One transaction in the thread of the store."""

        def done() -> T:
            if not self._is_migrated:
                migrate(self._engine)
                self._is_migrated = True
            with writing(self._engine) as connection:
                return work(connection)

        return await asyncio.get_running_loop().run_in_executor(self._thread, done)

    def close(self) -> None:
        """Ends what is being written."""
        self._thread.shutdown(wait=True)

    async def apply(self, item: OutboxItem) -> Literal["stored", "known"]:
        """Keeps an item, or that somebody waits for one, once.

        Raises:
            MalformedBodyError: it is no report of a review.
        """
        report, now_s = decode_report(item.body), self.wall_s()

        def work(connection: Connection) -> Literal["stored", "known"]:
            if report.source == Source.CALLER:
                is_new = is_inserted(connection, review_callers, caller_of(report, item, now_s))
                return "stored" if is_new else "known"
            row = new_row(report, item, now_s=now_s, wanted=self.bounds.wanted)
            if not is_inserted(connection, review_items, row):
                return "known"
            self._make_room(connection)
            return "stored"

        return await self.run(work)

    def _make_room(self, connection: Connection) -> None:
        num, num_bytes = used(connection)
        dropped = 0
        while num > self.bounds.max_items or num_bytes > self.bounds.max_bytes:
            # What people have worked on goes last.
            worked = case((review_items.c.num_labels > 0, 1), else_=0)
            first = connection.execute(
                select(review_items.c.item, review_items.c.num_bytes)
                .order_by(worked, review_items.c.value, review_items.c.at_s, review_items.c.item)
                .limit(max(1, num - self.bounds.max_items))
            ).all()
            for name, size in first:
                self._delete(connection, name)
                num, num_bytes, dropped = num - 1, num_bytes - size, dropped + 1
        count_note(connection, "reviews dropped for room", dropped)

    def _delete(self, connection: Connection, item: str) -> None:
        for table in (review_items, review_given, review_leases):
            connection.execute(delete(table).where(table.c.item == item))

    async def next(self, who: str) -> Standing | None:
        """The item that somebody is to look at now: the one in hand, or the most urgent."""
        return await self.run(lambda connection: self._next(connection, who))

    def _next(self, connection: Connection, who: str) -> Standing | None:
        now_s = self.wall_s()
        mine = (
            select(*WITHOUT_BODY)
            .join(review_leases, review_leases.c.item == review_items.c.item)
            .where(review_leases.c.who == who, review_leases.c.until_s > now_s)
            .where(review_items.c.state.in_(OPEN))
            .limit(1)
        )
        done = select(review_given.c.item).where(review_given.c.who == who)
        is_due = review_items.c.due_s <= now_s
        todo = (
            select(*WITHOUT_BODY)
            .where(review_items.c.state.in_(OPEN), review_items.c.body != b"")
            .where(review_items.c.item.not_in(done))
            # As ``runtime.core.reviewing.order_of`` has it.
            .order_by(
                case((is_due, 0), else_=1),
                case((is_due, review_items.c.due_s), else_=-review_items.c.value),
                case((is_due, -review_items.c.value), else_=review_items.c.due_s),
                review_items.c.item,
            )
            .limit(_LOOK_THROUGH)
        )
        for query in (mine, todo):
            for row in connection.execute(query).all():
                standing = self.moved(connection, row.item, lambda one: self._taken(one, who))
                if standing.move is Move.TAKEN:
                    return standing
        return None

    def _taken(self, one: Case, who: str) -> tuple[Case, Move]:
        return take(one, who, self.wall_s(), lease_s=self.bounds.lease_s)

    async def assign(self, item: str, who: str) -> Standing:
        """Gives an item to somebody.

        Raises:
            UnknownPageError: there is none of this name.
        """
        return await self.run(
            lambda connection: self.moved(connection, item, lambda one: self._taken(one, who))
        )

    async def give(
        self, item: str, who: str, label: int | None, *, spent_s: float = 0.0, why: str = ""
    ) -> Standing:
        """Takes what somebody says: a label, or None to skip it.

        Raises:
            UnknownPageError: there is none of this name.
        """

        def work(connection: Connection) -> Standing:
            now_s = self.wall_s()
            revised = connection.execute(
                select(review_leases.c.revises).where(
                    review_leases.c.item == item, review_leases.c.who == who
                )
            ).scalar_one_or_none()
            standing = self.moved(connection, item, lambda one: give(one, who, label, now_s))
            if standing.move is Move.COUNTED:
                connection.execute(
                    review_given.insert().values(
                        item=item,
                        who=who,
                        label=label,
                        why=why[:256],
                        at_s=now_s,
                        spent_s=min(max(spent_s, 0.0), 86_400.0),
                        revised=bool(revised),
                    )
                )
            return standing

        return await self.run(work)

    async def undo(self, item: str, who: str) -> Standing:
        """Takes back what somebody has just said, and gives them the item again.

        Raises:
            UnknownPageError: there is none of this name.
        """

        def work(connection: Connection) -> Standing:
            now_s = self.wall_s()

            def back(one: Case) -> tuple[Case, Move]:
                if row_of(connection, item).told:
                    return one, Move.LATE
                undone, move = undo(one, who, now_s)
                if move is Move.UNDONE:
                    undone, _ = take(undone, who, now_s, lease_s=self.bounds.lease_s)
                return undone, move

            standing = self.moved(connection, item, back, revises=who)
            if standing.move is Move.UNDONE:
                connection.execute(
                    delete(review_given).where(
                        review_given.c.item == item, review_given.c.who == who
                    )
                )
            return standing

        return await self.run(work)

    def moved(
        self,
        connection: Connection,
        item: str,
        move: Callable[[Case], tuple[Case, Move]],
        *,
        revises: str = "",
    ) -> Standing:
        """An item after a move, within a transaction."""
        now_s, row = self.wall_s(), row_of(connection, item)
        before = case_of(connection, row)
        after, became = move(before)
        if after != before:
            keep_leases(connection, item, after, revises=revises)
            keep_state(connection, item, after, now_s)
            row = row_of(connection, item)
        return Standing(row, after, became)

    async def find(self, item: str, *, with_body: bool = False) -> tuple[Row[Any], Case]:
        """An item as it stands.

        Raises:
            UnknownPageError: there is none of this name.
        """

        def work(connection: Connection) -> tuple[Row[Any], Case]:
            row = row_of(connection, item, with_body=with_body)
            return row, case_of(connection, row)

        return await self.run(work)
