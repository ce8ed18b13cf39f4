"""Which decisions a rollup tells whole, and what it tells of them.

Rules of this file:
  * they are chosen by a hash of the request id (a bottom-k sample; Cohen and Kaplan, "Summarizing
    data using bottom-k sketches", PODC 2007): every tier orders requests alike, so that the same
    ones tend to be kept everywhere and their stories are whole, and a choice out of choices is the
    choice out of everything;
  * half of the places are for what climbed or did not succeed, the rest for any;
  * what cannot be told within the bounds of a sample is not told at all.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from typing import Protocol, TypeVar

from runtime.decision_sample import (
    MAX_AGE_S,
    MAX_COUNT,
    MAX_HOP,
    MAX_LABEL,
    MAX_NUMBER,
    MAX_SAMPLE_BYTES,
    MAX_TEXT,
    SEEN_PATTERN,
    Sample,
    is_request_id,
    size_of,
)
from runtime.messages import Outcome, Residency

_SEEN = re.compile(SEEN_PATTERN)
_MAX_SEEN = 400
_TEXTS = (
    "model", "model_version", "action", "decided_because", "outcome", "reason", "answered_by",
    "policy", "gear", "route", "guarantee", "rule", "forwarded",
)  # fmt: skip
_NUMBERS = ("remaining_ms", "latency_ms", "score", "gain", "cost", "chance", "budget_ms")
# What of a row is told: columns of a decision log.
COLUMNS = (
    "wall_s", "request_id", "hop", *_TEXTS, "label", "confidence", *_NUMBERS, "service_us",
    "sent_bytes", "propensity", "seen", "audit_chance", "residency",
)  # fmt: skip


class Told(Protocol):
    """What is chosen by."""

    @property
    def request_id(self) -> str:
        """As its caller chose it."""
        ...

    @property
    def action(self) -> str:
        """``answer`` or ``escalate``."""
        ...

    @property
    def outcome(self) -> str:
        """How it ended."""
        ...

    @property
    def hop(self) -> int:
        """0 at the tier that was asked first."""
        ...


_T = TypeVar("_T", bound=Told)
_Key = TypeVar("_Key", bound=tuple[object, ...])


def rank_of(request_id: str) -> bytes:
    """The place of a request in the order that all tiers have in common."""
    return hashlib.blake2b(request_id.encode("utf-8", "replace"), digest_size=8).digest()


def is_notable(one: Told) -> bool:
    """Whether it climbed, to here or from here, or did not succeed."""
    return one.action == "escalate" or one.hop > 0 or one.outcome != Outcome.ANSWERED


def chosen(candidates: Mapping[_Key, _T], most: int) -> list[_T]:
    """At most so many of the candidates, by the rules above; keys only break ties."""
    order = sorted(candidates.items(), key=lambda one: (rank_of(one[1].request_id), one[0]))
    ordered = [one for _, one in order]
    notable = [number for number, one in enumerate(ordered) if is_notable(one)]
    kept = set(notable[: -(-most // 2)])
    others = (number for number in range(len(ordered)) if number not in kept)
    kept.update(number for _, number in zip(range(most - len(kept)), others, strict=False))
    return [ordered[number] for number in sorted(kept)]


def may_be_told(residency: object) -> bool:
    """Whether a decision may leave its tier; not where it is not known how far it may go."""
    return residency == Residency.CLOUD


def sample_of(
    row: Mapping[str, object], *, region: str, site: str, tier: str, now_s: float
) -> Sample | None:
    """The sample of a row of a decision log (``COLUMNS``); None where it cannot be told."""
    request_id = row["request_id"]
    is_id = isinstance(request_id, str) and is_request_id(request_id)
    if not is_id or not may_be_told(row["residency"]):
        return None
    label = _number(row["label"], 0, MAX_LABEL)
    fields: dict[str, object] = {
        "age_s": _number(now_s - _or(row["wall_s"], now_s), 0, MAX_AGE_S) or 0.0,
        "region": region[:MAX_TEXT],
        "site": site[:MAX_TEXT],
        "tier": tier[:MAX_TEXT],
        "request_id": request_id,
        "hop": int(_number(row["hop"], 0, MAX_HOP) or 0),
        "label": None if label is None else int(label),
        "confidence": _number(row["confidence"], 0, 1),
        "service_us": int(_number(row["service_us"], 0, MAX_COUNT) or 0),
        "sent_bytes": int(_number(row["sent_bytes"], 0, MAX_COUNT) or 0),
        "propensity": _or(_number(row["propensity"], 0, 1), 1.0),
        "audit_chance": _number(row["audit_chance"], 0, 1) or 0.0,
        "seen": _seen(row["seen"]),
        **{name: str(row[name] or "")[:MAX_TEXT] for name in _TEXTS},
        **{name: _number(row[name], -MAX_NUMBER, MAX_NUMBER) for name in _NUMBERS},
    }
    sample = Sample(**fields)  # type: ignore[arg-type]  # checked field by field above
    return sample if size_of(sample) <= MAX_SAMPLE_BYTES else None


def _seen(text: object) -> str:
    is_one = isinstance(text, str) and len(text) <= _MAX_SEEN and _SEEN.match(text)
    return str(text) if is_one else ""


def _number(value: object, least: float, most: float) -> float | None:
    """The number, where it is one and may be."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value if least <= value <= most else None


def _or(value: object, otherwise: float) -> float:
    return otherwise if not isinstance(value, int | float) else value
