"""Items of outboxes as what is kept of them. Pure; an item is checked whole before any is written.

* METRICS are rollups (``runtime.telemetry``). The reports of agents of an earlier version are
counted as such, and nothing else comes of them.
* FEEDBACK counts for accuracy. Its comment and the id of its request are not kept.
* AUDIT items are not taken: rollups count the same audits, with those of every other tier.
* Numbers that contradict one another are cut to what can be, and counted: a gateway's rollup
speaks for many, and is not refused because one of them is broken.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from cloud_tier.telemetry.series import clean
from runtime.errors import MalformedBodyError
from runtime.messages import ItemKind
from runtime.ports import OutboxItem
from runtime.telemetry import Rollup, RollupRow, decode_rollup

KINDS = frozenset({ItemKind.METRICS, ItemKind.FEEDBACK})
MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400
# No row has more decisions, nor is older: 35 days is well over what an outbox keeps.
MAX_ROW_COUNT = 10**9
MAX_PAST_S = 35 * DAY_S
_Text = Annotated[str, Meta(max_length=128)]


class Answered(msgspec.Struct, frozen=True):
    """What had been answered, as the agent's decision log has it."""

    label: int | None = None
    outcome: _Text = ""
    reason: _Text = ""
    answered_by: _Text = ""
    model: _Text = ""
    model_version: _Text = ""
    policy: _Text = ""
    gear: _Text = ""


class Feedback(msgspec.Struct, frozen=True):
    """The body of a FEEDBACK item, as far as it counts here."""

    label: Annotated[int, Meta(ge=0, le=10**9)] | None = None
    is_correct: bool | None = None
    answered: Answered | None = None

    @property
    def verdict(self) -> bool | None:
        """Whether the answer was right; None where that cannot be said."""
        if self.is_correct is not None:
            return self.is_correct
        if self.label is None or self.answered is None or self.answered.label is None:
            return None
        return self.label == self.answered.label


class Earlier(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A report of an agent of an earlier version: counts without a minute or a source."""

    epoch: int
    number: int
    over_s: float
    latency_ms_sum: float
    decision_log_dropped: int
    answers: list[dict[str, Any]]


class Taken(NamedTuple):
    """An item that can be kept."""

    item: OutboxItem
    body: Rollup | Feedback | Earlier


_EARLIER = msgspec.json.Decoder(Earlier)
_FEEDBACK = msgspec.json.Decoder(Feedback)


def read_item(item: OutboxItem) -> Taken:
    """An item with its body.

    Raises:
        MalformedBodyError: it is none of its kind.
        ValueError: telemetry takes no items of this kind.
    """
    if item.kind is ItemKind.METRICS:
        return Taken(item, _earlier(item.body) or decode_rollup(item.body))
    if item.kind is ItemKind.FEEDBACK:
        return Taken(item, _feedback(item.body))
    raise ValueError(f"telemetry takes no {item.kind.value}")


def _feedback(body: bytes) -> Feedback:
    try:
        return _FEEDBACK.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedBodyError(f"no feedback: {str(error)[:200]}") from None


def _earlier(body: bytes) -> Earlier | None:
    try:
        return _EARLIER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def minute_of(said_s: float, minutes_ago: int, now_s: float) -> tuple[int, bool]:
    """The minute of a row in s since 1970, and whether it had to be moved to where it can be."""
    at_s = said_s - minutes_ago * MINUTE_S
    if not math.isfinite(at_s):
        at_s = -math.inf
    kept_s = min(max(at_s, now_s - MAX_PAST_S), now_s)
    return int(kept_s // MINUTE_S) * MINUTE_S, kept_s != at_s


def sane(row: RollupRow) -> RollupRow:
    """The row, with numbers that fit together."""
    count = min(row.count, MAX_ROW_COUNT)
    confident = min(row.confident, count)
    return msgspec.structs.replace(
        row,
        count=count,
        late=min(row.late, count),
        confident=confident,
        confidence_sum=min(row.confidence_sum, float(confident)),
        confidences=row.confidences if sum(row.confidences.values()) <= confident else {},
        latency=row.latency if sum(row.latency.values()) <= count else {},
    )


def words(answered: Answered | None) -> dict[str, str]:
    """What feedback is told apart by."""
    said = answered or Answered()
    return {
        "model": clean(said.model),
        "version": clean(said.model_version),
        "policy": clean(said.policy),
        "gear": clean(said.gear),
        "outcome": clean(said.outcome),
        "reason": clean(said.reason),
        "answered_by": clean(said.answered_by),
    }
