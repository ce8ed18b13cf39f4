"""What a label becomes: feedback for accuracy and the next model, and a correction to the caller.

Rules of this file:
  * nothing is told while a label can be taken back;
  * each of these has an id of its own item, so that telling again after a crash changes nothing;
  * whoever says late that it waits for a review is told late.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import structlog
from sqlalchemy import Connection, Row, select, update

from cloud_tier.reviews.cases import WITHOUT_BODY
from cloud_tier.reviews.store import ReviewStore
from cloud_tier.telemetry.database import is_inserted
from cloud_tier.telemetry.tables import review_callers, review_items
from runtime.core.reviewing import UNDO_S
from runtime.exchange.items import derived_id
from runtime.messages import (
    Correction,
    ItemKind,
    Outcome,
    Reason,
    Said,
    Tier,
    encode_control,
)
from runtime.ports import OutboxItem, PutResult

# Some are told in one go; the rest a moment later.
_MAX_AT_ONCE = 100
# More than a clock that was set, and a label taken back in its last instant.
_GRACE_S = UNDO_S + 1.0
_log = structlog.get_logger()

Keep = Callable[[OutboxItem], Awaitable[object]]
Send = Callable[[OutboxItem], Awaitable[PutResult]]


class Outcomes:
    """Tells what people have settled on.

    Args:
        store: where it is.
        keep: takes feedback over, durably and once.
        send: puts a correction into the outbox.
        site: this process, to be told when a correction has arrived.
    """

    def __init__(self, store: ReviewStore, keep: Keep, send: Send, *, site: str) -> None:
        self._store, self._keep, self._send, self._site = store, keep, send, site

    async def tell(self) -> int:
        """Tells what can be told now; returns how much that was.

        Raises:
            StorageError: some of it was not, and is told again.
        """
        settled = await self._store.run(self._settled)
        for row in settled:
            await self._keep(_feedback(row))
            await self._store.run(_told_of(row))
            _log.info("review.settled", item=row.item, request_id=row.request_id, label=row.winner)
        num_told = 0
        for caller in await self._store.run(self._waiting):
            if await self._send(self._correction(caller)) in ("stored", "known"):
                await self._store.run(_corrected(caller))
                num_told += 1
        return len(settled) + num_told

    def _settled(self, connection: Connection) -> list[Row[Any]]:
        query = (
            select(*WITHOUT_BODY)
            .where(review_items.c.told == 0, review_items.c.winner.is_not(None))
            .where(review_items.c.done_s < self._store.wall_s() - _GRACE_S)
            .order_by(review_items.c.done_s)
            .limit(_MAX_AT_ONCE)
        )
        return list(connection.execute(query).all())

    def _waiting(self, connection: Connection) -> list[Row[Any]]:
        query = (
            select(
                review_callers,
                review_items.c.item,
                review_items.c.winner,
                review_items.c.labels,
            )
            .join(review_items, review_items.c.request_id == review_callers.c.request_id)
            .where(review_callers.c.told == 0, review_items.c.told == 1)
            .where(review_callers.c.sender != "")
            .limit(_MAX_AT_ONCE)
        )
        return list(connection.execute(query).all())

    def _correction(self, row: Row[Any]) -> OutboxItem:
        said = Said(
            outcome=Outcome.ANSWERED,
            reason=Reason.REVIEW,
            label=row.winner,
            label_name=name_of(row.labels, row.winner),
        )
        item_id = derived_id("review-correction", row.request_id, row.origin)
        correction = Correction(
            row.request_id,
            said,
            item=item_id,
            gateway=self._site,
            to=row.origin,
            was=msgspec.json.decode(row.was, type=Said),
        )
        return OutboxItem(
            item_id,
            ItemKind.CORRECTION,
            self._store.wall_s(),
            encode_control(correction),
            target=row.sender,
        )


def name_of(labels: str, label: int | None) -> str:
    """The name of a label; empty where it has none."""
    names = msgspec.json.decode(labels, type=list[str])
    return names[label] if label is not None and 0 <= label < len(names) else ""


def _feedback(row: Row[Any]) -> OutboxItem:
    """As an application would have said it (``edge_agent.feedback``)."""
    body = {
        "request_id": row.request_id,
        "label": row.winner,
        "label_name": name_of(row.labels, row.winner),
        "is_correct": None,
        "comment": "",
        "answered": {
            "label": row.label if row.label >= 0 else None,
            "outcome": Outcome.DEGRADED.value,
            "reason": Reason.REVIEW.value,
            "answered_by": row.tier,
            "model": row.model,
            "model_version": row.version,
            "policy": row.policy,
            "gear": row.gear,
        },
    }
    return OutboxItem(
        derived_id("review-feedback", row.item),
        ItemKind.FEEDBACK,
        row.done_s,
        msgspec.json.encode(body),
        origin=f"{row.region}/{row.site}",
    )


def _told_of(row: Row[Any]) -> Callable[[Connection], None]:
    """Notes that feedback is kept; a device's own item has a caller there."""

    def work(connection: Connection) -> None:
        if row.tier == Tier.EDGE.value and row.sender:
            was = Said(
                outcome=Outcome.ANSWERED if row.label >= 0 else Outcome.ABSTAINED,
                reason=Reason.REVIEW,
                label=row.label if row.label >= 0 else None,
                label_name=row.label_name,
                model_name=row.model,
                model_version=row.version,
            )
            caller = {
                "request_id": row.request_id,
                "origin": row.origin,
                "sender": row.sender,
                "was": msgspec.json.encode(was).decode(),
                "at_s": row.done_s,
                "told": 0,
            }
            is_inserted(connection, review_callers, caller)
        connection.execute(
            update(review_items).where(review_items.c.item == row.item).values(told=1)
        )

    return work


def _corrected(row: Row[Any]) -> Callable[[Connection], None]:
    def work(connection: Connection) -> None:
        table = review_callers
        connection.execute(
            update(table)
            .where(table.c.request_id == row.request_id, table.c.origin == row.origin)
            .values(told=1)
        )

    return work
