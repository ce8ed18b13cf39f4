"""What an application, or a person, says about an answer: checked, with what had been answered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.adapters.decision_log import FILE_NAME
from runtime.adapters.explain_query import find_decisions
from runtime.common_settings import StateSettings
from runtime.errors import MalformedBodyError, StartError
from runtime.exchange.items import json_item
from runtime.messages import ItemKind
from runtime.ports import Clock, DecisionRecord, OutboxItem

MAX_COMMENT_CHARACTERS = 1000
# The decision log writes what has just been decided within this time.
_LOG_DELAY_S = 0.3


@dataclass(frozen=True, slots=True)
class Receipt:
    """Feedback that is kept; ``is_known`` says whether this agent's log has the request."""

    item: str
    is_known: bool


async def feedback_item(
    request_id: str,
    *,
    label: int | str | None,
    is_correct: bool | None,
    comment: str,
    labels: Sequence[str],
    state: StateSettings,
    clock: Clock,
) -> tuple[OutboxItem, Receipt]:
    """The item that goes up, and what its giver is told.

    Raises:
        MalformedBodyError: it says nothing, or names no label of the model.
    """
    if label is None and is_correct is None and not comment:
        raise MalformedBodyError("feedback says a label, whether the answer was right, or a text")
    if len(comment) > MAX_COMMENT_CHARACTERS:
        raise MalformedBodyError(f"a comment has at most {MAX_COMMENT_CHARACTERS} characters")
    number = _label(label, labels)
    decided = await _decision(Path(state.folder) / FILE_NAME, request_id)
    answered = None
    if decided is not None:
        answered = {
            "label": decided.label,
            "outcome": decided.outcome,
            "reason": decided.reason,
            "answered_by": decided.answered_by,
            "model": decided.model,
            "model_version": decided.model_version,
            "policy": decided.policy,
            "gear": decided.gear,
        }
    body = {
        "request_id": request_id,
        "label": number,
        "label_name": None if number is None else labels[number],
        "is_correct": is_correct,
        "comment": comment,
        "answered": answered,
    }
    item = json_item(ItemKind.FEEDBACK, body, clock)
    return item, Receipt(item.id, decided is not None)


def _label(label: int | str | None, labels: Sequence[str]) -> int | None:
    if label is None:
        return None
    if isinstance(label, str) and label in labels:
        return labels.index(label)
    if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(labels):
        return label
    raise MalformedBodyError(f"the model has no label {str(label)[:40]!r}")


async def _decision(path: Path, request_id: str) -> DecisionRecord | None:
    """What this agent decided about a request; of one that was answered just now, after a wait."""
    for wait_s in (0.0, _LOG_DELAY_S):
        await asyncio.sleep(wait_s)
        try:
            found = await asyncio.to_thread(find_decisions, [path], request_id)
        except StartError:
            # Feedback is kept whether or not the log can be read.
            return None
        if found:
            return found[-1]
    return None
