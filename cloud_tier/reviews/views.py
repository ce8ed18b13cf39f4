"""Items as those who label see them: what tiers have answered comes after they have chosen."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Row

from cloud_tier.reviews.intake import ROW_BYTES
from runtime.core.reviewing import Case, State, age_of

_SETTLED = (State.LABELLED.value, State.AGREED.value, State.EXPIRED.value)


def item_view(
    row: Row[Any], case: Case | None, who: str, *, now_s: float, shows_answers: bool
) -> dict[str, Any]:
    """One item; what would tell a labeller the answer is there only when it is too late to copy."""
    said = case.said_by(who) if case is not None and who else None
    is_open = shows_answers or said is not None or row.state in _SETTLED
    view: dict[str, Any] = {
        "item": row.item,
        "request_id": row.request_id,
        "state": row.state,
        "source": row.source,
        "region": row.region,
        "site": row.site,
        "tier": row.tier,
        "model": row.model,
        "version": row.version,
        "age_s": round(max(0.0, now_s - row.at_s), 3),
        "due_in_s": round(row.due_s - now_s, 3),
        "age": age_of(row.at_s, row.due_s, now_s).value,
        "wanted": row.wanted,
        "num_labels": row.num_labels,
        "has_inputs": row.num_bytes > len(row.answers) + ROW_BYTES,
        "labels": msgspec.json.decode(row.labels),
        "shows_answers": is_open,
    }
    if is_open:
        view |= {
            "label": row.label,
            "label_name": row.label_name,
            "confidence": row.confidence,
            "chance": row.chance,
            "answers": _answers(row.answers),
            "winner": row.winner,
        }
        if case is not None:
            view["given"] = [{"who": one.who, "label": one.label} for one in case.given]
    if said is not None:
        view["yours"] = said.label
    return view


def _answers(text: str) -> list[dict[str, Any]]:
    """What tiers have answered; nothing where it cannot be read."""
    try:
        return msgspec.json.decode(text, type=list[dict[str, Any]])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
