"""That somebody waits for what people say of an answer, as it is told to those above."""

from __future__ import annotations

from runtime.exchange.course import Identity
from runtime.exchange.items import derived_id, json_item
from runtime.messages import Answer, ItemKind
from runtime.ports import Clock, OutboxItem
from runtime.review_report import ReviewReport, Source


def caller_item(identity: Identity, answer: Answer, clock: Clock) -> OutboxItem:
    """The item of an outbox; it holds what was answered, and none of the inputs."""
    now_s = clock.wall_s()
    report = ReviewReport(
        item=derived_id("caller", identity.region, identity.site, answer.request_id),
        request_id=answer.request_id,
        wall_s=now_s,
        due_s=now_s,
        site=identity.site,
        region=identity.region,
        label=-1 if answer.label is None else answer.label,
        label_name=answer.label_name,
        source=Source.CALLER.value,
        outcome=answer.outcome.value,
    )
    return json_item(ItemKind.REVIEW, report, clock)
