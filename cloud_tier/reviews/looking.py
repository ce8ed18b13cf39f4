"""Looks at the store of reviews as a whole: lists, counts, agreement, and what is over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, case, delete, func, select, update

from cloud_tier.reviews.cases import WITHOUT_BODY, count_note
from cloud_tier.reviews.intake import ROW_BYTES
from cloud_tier.reviews.store import OPEN, ReviewStore
from cloud_tier.telemetry.tables import (
    review_callers,
    review_given,
    review_items,
    review_leases,
)
from runtime.core.agreement import PairAgreement, agreements
from runtime.core.reviewing import State, expire

MAX_AGREEMENT_ROWS = 200_000


async def tidy(store: ReviewStore, max_rows: int = 500) -> int:
    """Ends leases that are over and items that nobody looked at; returns how many changed.

    Raises:
        StorageError: nothing of it was done.
    """

    def work(connection: Connection) -> int:
        now_s = store.wall_s()
        ended = connection.execute(
            delete(review_leases).where(review_leases.c.until_s <= now_s)
        ).rowcount
        held = select(review_leases.c.item)
        connection.execute(
            update(review_items)
            .where(review_items.c.state == State.ASSIGNED.value)
            .where(review_items.c.item.not_in(held))
            .values(state=State.WAITING.value)
        )
        old_s = now_s - store.bounds.retention_s
        old = connection.execute(
            select(review_items.c.item)
            .where(review_items.c.state.in_(OPEN), review_items.c.at_s < old_s)
            .where(review_items.c.done_s == 0)
            .limit(max_rows)
        ).all()
        for (item,) in old:
            store.moved(connection, item, expire)
            query = update(review_items).where(review_items.c.item == item)
            size = func.length(review_items.c.answers) + ROW_BYTES
            connection.execute(query.values(body=b"", header_length=0, num_bytes=size))
        count_note(connection, "reviews expired", len(old))
        connection.execute(delete(review_callers).where(review_callers.c.at_s < old_s))
        return int(ended) + len(old)

    return await store.run(work)


async def agreement(store: ReviewStore) -> list[PairAgreement]:
    """How far pairs of people agree, over the latest labels.

    Raises:
        StorageError: the database does not answer.
    """
    query = (
        select(review_given.c.item, review_given.c.who, review_given.c.label)
        .where(review_given.c.label.is_not(None))
        .order_by(review_given.c.at_s.desc())
        .limit(MAX_AGREEMENT_ROWS)
    )
    rows = await store.run(lambda connection: connection.execute(query).all())
    return agreements((item, who, label) for item, who, label in rows)


async def page(
    store: ReviewStore, states: Sequence[str], *, limit: int, after: str = ""
) -> list[Row[Any]]:
    """Items by name, those of some states or all.

    Raises:
        StorageError: the database does not answer.
    """
    query = select(*WITHOUT_BODY).where(review_items.c.item > after)
    if states:
        query = query.where(review_items.c.state.in_(states))
    query = query.order_by(review_items.c.item).limit(limit)
    return list(await store.run(lambda connection: connection.execute(query).all()))


async def counts(store: ReviewStore) -> dict[str, Any]:
    """How many items are in each state, and how many have waited for half or all of their time.

    Raises:
        StorageError: the database does not answer.
    """

    def work(connection: Connection) -> dict[str, Any]:
        now_s = store.wall_s()
        items = review_items.c
        states = connection.execute(select(items.state, func.count()).group_by(items.state)).all()
        half_s = items.at_s + (items.due_s - items.at_s) / 2
        late, half, oldest = connection.execute(
            select(
                func.coalesce(func.sum(case((items.due_s <= now_s, 1), else_=0)), 0),
                func.coalesce(func.sum(case((half_s <= now_s, 1), else_=0)), 0),
                func.min(items.at_s),
            ).where(items.state.in_(OPEN))
        ).one()
        return {
            "states": dict(sorted((str(state), int(num)) for state, num in states)),
            "half": int(half) - int(late),
            "overdue": int(late),
            "oldest_s": 0.0 if oldest is None else max(0.0, now_s - oldest),
        }

    return await store.run(work)
