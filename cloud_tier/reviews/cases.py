"""Items of the store as cases of ``runtime.core.reviewing``, and back; all within a transaction."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, delete, func, select, update

from cloud_tier.telemetry.database import is_postgres, put
from cloud_tier.telemetry.tables import notes, review_given, review_items, review_leases
from runtime.core.reviewing import Case, Given, Lease, State
from runtime.errors import UnknownPageError

WITHOUT_BODY = [column for column in review_items.c if column.name != "body"]


def row_of(connection: Connection, item: str, *, with_body: bool = False) -> Row[Any]:
    """An item.

    Raises:
        UnknownPageError: there is none of this name.
    """
    columns = [*WITHOUT_BODY, review_items.c.body] if with_body else WITHOUT_BODY
    query = select(*columns).where(review_items.c.item == item)
    if is_postgres(connection):
        # Two who label the same come one after the other.
        query = query.with_for_update()
    found = connection.execute(query).first()
    if found is None:
        raise UnknownPageError(
            f"there is no review {item[:64]!r}: it may have made room for others"
        )
    return found


def case_of(connection: Connection, row: Row[Any]) -> Case:
    """What people have said about an item, and who looks at it."""
    given = connection.execute(
        select(review_given.c.who, review_given.c.label, review_given.c.at_s)
        .where(review_given.c.item == row.item)
        .order_by(review_given.c.at_s, review_given.c.who)
    )
    leases = connection.execute(
        select(review_leases.c.who, review_leases.c.until_s).where(review_leases.c.item == row.item)
    )
    return Case(
        wanted=row.wanted,
        given=tuple(Given(who, label, at_s) for who, label, at_s in given),
        leases=tuple(Lease(who, until_s) for who, until_s in leases),
        is_expired=row.state == State.EXPIRED.value,
    )


def keep_leases(connection: Connection, item: str, case: Case, *, revises: str = "") -> None:
    """Writes who looks at an item; ``revises`` has taken a label back."""
    known = connection.execute(
        select(review_leases.c.who).where(
            review_leases.c.item == item, review_leases.c.revises.is_(True)
        )
    )
    revising = {who for (who,) in known} | ({revises} if revises else set())
    connection.execute(delete(review_leases).where(review_leases.c.item == item))
    for lease in case.leases:
        connection.execute(
            review_leases.insert().values(
                item=item, who=lease.who, until_s=lease.until_s, revises=lease.who in revising
            )
        )


def keep_state(connection: Connection, item: str, case: Case, now_s: float) -> State:
    """Writes where an item stands."""
    state = case.state(now_s)
    connection.execute(
        update(review_items)
        .where(review_items.c.item == item)
        .values(
            state=state.value,
            winner=case.winner(),
            num_labels=len(case.labels),
            done_s=now_s if case.is_over() else 0.0,
        )
    )
    return state


def count_note(connection: Connection, name: str, num: int) -> None:
    """Counts something that is not to go unseen."""
    if num:
        put(connection, notes, [{"name": name, "count": num}], adding=("count",))


def used(connection: Connection) -> tuple[int, int]:
    """Items, and their bytes."""
    query = select(func.count(), func.coalesce(func.sum(review_items.c.num_bytes), 0))
    num, num_bytes = connection.execute(query.select_from(review_items)).one()
    return int(num), int(num_bytes)
