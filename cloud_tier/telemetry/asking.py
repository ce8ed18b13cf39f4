"""Questions as values: what is asked, of which time, by what, where, and in which pieces. Pure.

A question comes as words (of a URL or a command line) and becomes a ``Question``, or a
``RequestError`` that says what would be understood.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec

from cloud_tier.telemetry.intake import DAY_S, HOUR_S, MINUTE_S
from cloud_tier.telemetry.limits import Retention
from runtime.errors import RequestError

# Dimension of a question to the column that holds it.
COLUMNS = {
    "tier": "tier",
    "region": "region",
    "site": "site",
    "model": "model",
    "version": "version",
    "reason": "decided",
    "end_reason": "reason",
    "label": "label",
    "gear": "gear",
    "route": "route",
    "outcome": "outcome",
    "answered_by": "answered_by",
    "guarantee": "guarantee",
    "policy": "policy",
}
ALIASES = {"model_version": "version"}
TIMES_S = {"minute": MINUTE_S, "hour": HOUR_S, "day": DAY_S}
_AUDITED = ("region", "site", "policy", "gear", "hour", "day")
_JUDGED = (
    "region", "site", "model", "version", "policy", "gear", "outcome", "end_reason", "answered_by",
    "label", "hour", "day",
)  # fmt: skip
_ALL = (*COLUMNS, *TIMES_S)
# What each metric may be asked by, by what it is where nothing is said, and in which order.
DIMENSIONS: Mapping[str, Sequence[str]] = {
    "escalations": _ALL,
    "latency": _ALL,
    "accuracy": _JUDGED,
    "cost": _ALL,
    "agreement": _AUDITED,
    "rollouts": _ALL,
    "fleet": ("region", "site"),
}
DEFAULT_BY: Mapping[str, Sequence[str]] = {
    "escalations": ("tier",),
    "latency": ("tier",),
    "accuracy": ("model", "version"),
    "cost": ("tier",),
    "agreement": ("policy", "gear"),
    "rollouts": ("model", "version", "hour"),
    "fleet": ("region", "site"),
}
DEFAULT_ORDER: Mapping[str, str] = {
    "accuracy": "-judged",
    "agreement": "-audited",
    "fleet": "group",
    "rollouts": "group",
}
NO_VALUE = "none"
MAX_LIMIT, DEFAULT_LIMIT = 10_000, 1000
_DEFAULT_SINCE = "24h"
_UNITS_S = {"s": 1, "m": MINUTE_S, "h": HOUR_S, "d": DAY_S}
_MAX_CHARACTERS = 2000
_MAX_TIME_S = 1e11
# Minutes are read for questions of up to so long.
_MINUTES_FOR_S = 3 * HOUR_S


class Condition(NamedTuple):
    """A dimension is one of some values, or none of them."""

    name: str
    values: tuple[str, ...]
    is_not: bool = False


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where the next page begins: after this group, of the same question."""

    question: str
    since_s: float
    until_s: float
    value: float | None
    group: tuple[str, ...]


class Question(NamedTuple):
    """What is asked; times are s since 1970, ``until_s`` is not part of it.

    ``grain_s`` is the width of the rows that are read. ``order`` is a field of the answer's rows
    with a ``-`` before it for the largest first, or ``group``.
    """

    metric: str
    since_s: int
    until_s: int
    grain_s: int
    by: tuple[str, ...]
    where: tuple[Condition, ...]
    order: str
    limit: int
    after: Place | None = None
    # Of sites: also those that are out of service.
    with_retired: bool = False

    @property
    def counts_entries(self) -> bool:
        """Whether each request counts once, at the tier that its caller asked."""
        return "tier" not in self.by and all(one.name != "tier" for one in self.where)

    @property
    def digest(self) -> str:
        """The same for each page of a question."""
        words = repr((self.metric, self.by, self.where, self.order, self.with_retired))
        return hashlib.blake2b(words.encode(), digest_size=8).hexdigest()


def question(
    metric: str, words: Mapping[str, str], *, now_s: float, retention: Retention
) -> Question:
    """What the words ask.

    Args:
        metric: one of ``DIMENSIONS``.
        words: ``since``, ``until``, ``by``, ``where``, ``order``, ``limit``, ``cursor``; of
            ``fleet`` also ``retired``.
        now_s: now, in s since 1970.
        retention: what is kept.

    Raises:
        RequestError: they ask nothing that can be answered; the text names what is near.
    """
    if metric not in DIMENSIONS:
        raise RequestError(f"there is no metric {metric[:40]!r}{_near(metric, DIMENSIONS)}")
    known: tuple[str, ...] = ("since", "until", "by", "where", "order", "limit", "cursor")
    if metric == "fleet":
        known = (*known, "retired")
    for name, value in words.items():
        if name not in known:
            raise RequestError(f"unknown word {name[:40]!r}{_near(name, known)}")
        if len(value) > _MAX_CHARACTERS:
            raise RequestError(f"{name} has more than {_MAX_CHARACTERS} characters")
    if words.get("retired", "no") not in ("yes", "no"):
        raise RequestError(f"retired is yes or no, not {words['retired'][:40]!r}")
    by = parse_by(metric, words.get("by", ""))
    after = _place(words.get("cursor", ""))
    until_s = after.until_s if after else moment(words.get("until", "0s") or "0s", now_s)
    since_s = after.since_s if after else moment(words.get("since") or _DEFAULT_SINCE, now_s)
    if not since_s < until_s:
        raise RequestError("since is not before until")
    grain_s = grain_of(since_s, until_s, by, now_s, retention, is_audit=metric == "agreement")
    asked = Question(
        metric=metric,
        since_s=int(since_s // grain_s) * grain_s,
        until_s=-int(-until_s // grain_s) * grain_s,
        grain_s=grain_s,
        by=by,
        where=parse_where(metric, words.get("where", "")),
        order=words.get("order") or DEFAULT_ORDER.get(metric, "-requests"),
        limit=_limit(words.get("limit", "")),
        after=after,
        with_retired=words.get("retired") == "yes",
    )
    if after is not None and after.question != asked.digest:
        raise RequestError("the cursor is of another question: ask without it for the first page")
    return asked


def parse_by(metric: str, text: str) -> tuple[str, ...]:
    """The dimensions in a comma-separated list, each once; the metric's own where it is empty.

    Raises:
        RequestError: one is unknown; the text names the nearest.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    return tuple(dict.fromkeys(_dimension(metric, one) for one in names or DEFAULT_BY[metric]))


def parse_where(metric: str, text: str) -> tuple[Condition, ...]:
    """The conditions of ``region=eu,label=3|4,site!=cam-1``.

    Raises:
        RequestError: one is not understood.
    """
    conditions = []
    for part in text.split(","):
        if not part.strip():
            continue
        name, sign, values = part.partition("=")
        if not sign:
            raise RequestError(
                f"{part[:60]!r} is no condition: write region=eu, label=3|4 or site!=cam-1"
            )
        is_not = name.endswith("!")
        name = _dimension(metric, name.removesuffix("!").strip())
        if name in TIMES_S:
            raise RequestError(f"{name} is no condition: since and until say the time")
        wanted = tuple("" if one == NO_VALUE else one for one in values.strip().split("|"))
        conditions.append(Condition(name, wanted, is_not))
    return tuple(conditions)


def moment(text: str, now_s: float) -> float:
    """Seconds since 1970 of ``90s``, ``15m``, ``1h`` or ``7d`` ago, of a date, or of a number.

    Raises:
        RequestError: it is none of these.
    """
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhd])", text)
    if found:
        return max(0.0, now_s - float(found[1]) * _UNITS_S[found[2]])
    try:
        at_s = float(text)
    except ValueError:
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            at_s = math.nan
        else:
            at_s = at.timestamp() if at.tzinfo else math.nan
    if not 0 <= at_s < _MAX_TIME_S:
        raise RequestError(
            f"{text[:40]!r} is no time: write 90s, 15m, 1h or 7d for so long ago, "
            "2026-11-23T10:00:00Z, or seconds since 1970"
        )
    return at_s


def grain_of(
    since_s: float,
    until_s: float,
    by: Sequence[str],
    now_s: float,
    retention: Retention,
    *,
    is_audit: bool = False,
) -> int:
    """The width of the rows that answer: the coarsest that is fine enough, of what is kept."""
    age_s = now_s - since_s
    if is_audit:
        return HOUR_S
    if "minute" in by and age_s > retention.minute_s:
        raise RequestError("minutes of that time are no longer kept: ask by hour or day")
    if "minute" in by or (until_s - since_s <= _MINUTES_FOR_S and age_s <= retention.minute_s):
        return MINUTE_S
    if age_s <= retention.hour_s:
        return HOUR_S
    if "hour" in by:
        raise RequestError("hours of that time are no longer kept: ask by day")
    return DAY_S


def cursor_after(asked: Question, value: float | None, group: tuple[str, ...]) -> str:
    """What to send for the page after this group."""
    place = Place(asked.digest, asked.since_s, asked.until_s, value, group)
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def _place(cursor: str) -> Place | None:
    if not cursor:
        return None
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        place = msgspec.json.decode(raw, type=Place)
    except (binascii.Error, ValueError, msgspec.DecodeError):
        raise RequestError("the cursor is none: send the `next` of the page before") from None
    if not (0 <= place.since_s < place.until_s < _MAX_TIME_S):
        raise RequestError("the cursor is none: send the `next` of the page before")
    return place


def _dimension(metric: str, name: str) -> str:
    known = DIMENSIONS[metric]
    name = ALIASES.get(name, name)
    if name in known:
        return name
    if name in _ALL:
        raise RequestError(f"{metric} cannot be asked by {name}: choose from {', '.join(known)}")
    raise RequestError(f"unknown dimension {name[:40]!r}{_near(name, known)}")


def _near(name: str, known: Mapping[str, object] | Sequence[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f": did you mean {near[0]!r}?" if near else f": choose from {', '.join(known)}"


def _limit(text: str) -> int:
    if not text:
        return DEFAULT_LIMIT
    if not (text.isascii() and text.isdigit() and len(text) < 7 and 0 < int(text) <= MAX_LIMIT):  # noqa: PLR2004 digits
        raise RequestError(f"limit is a whole number from 1 to {MAX_LIMIT}, not {text[:40]!r}")
    return int(text)
