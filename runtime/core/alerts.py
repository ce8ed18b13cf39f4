"""When somebody is told of a condition: once, again after a while, and of its end.

An alert is known by its key, however often its condition is seen. It goes through these phases:

    pending     the condition holds, not yet for ``pending_for_s``; nobody has been told
    firing      it holds; told once, and again every ``repeat_s``
    recovering  it does not hold any more, not yet for long enough
    recovered   its end has been told; kept for ``memory_s``, to know one that comes and goes

A condition that comes back while the alert recovers, or is remembered, is one that flaps: each time
doubles what its absence has to last before its end is told, up to 32 times ``clear_for_s``. So one
that comes and goes is told as one long alert. While it is silenced, nobody is told that it fires;
its end is told to those who were told of its beginning.

Times are seconds since 1970, because alerts outlive processes; a clock that is set back makes
everything as old as it is now, and nothing older.
"""

from __future__ import annotations

import enum
import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

MAX_KEY = 64
# As runtime.topics.check_name has it.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_DOUBLINGS = 5


class Severity(enum.StrEnum):
    """Who is to act: somebody now, somebody within days, nobody."""

    PAGE = "page"
    TICKET = "ticket"
    INFO = "info"


class Phase(enum.StrEnum):
    """Where an alert is."""

    PENDING = "pending"
    FIRING = "firing"
    RECOVERING = "recovering"
    RECOVERED = "recovered"


class Condition(msgspec.Struct, frozen=True):
    """Something that holds now; ``region`` and ``site`` say where."""

    kind: str
    region: str
    site: str
    summary: str
    severity: Severity = Severity.TICKET
    detail: str = ""

    @property
    def key(self) -> str:
        """By which it is known: safe inside a topic, 64 characters at most."""
        parts = (self.kind, self.region, self.site, self.detail)
        text = ".".join(part for part in parts if part)
        if _NAME.fullmatch(text):
            return text
        digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
        return f"{self.kind[: MAX_KEY - len(digest) - 1]}.{digest}"


class Alert(msgspec.Struct, frozen=True):
    """One alert; ``gone_s`` is since when its condition does not hold, None while it does.

    Of one that has recovered, it is since when it has.

    ``told_s`` is when somebody was told of it last, None as long as nobody was.
    """

    condition: Condition
    phase: Phase
    since_s: float
    gone_s: float | None = None
    told_s: float | None = None
    flaps: int = 0


class What(enum.StrEnum):
    """What is told."""

    FIRING = "firing"
    REPEAT = "repeat"
    RECOVERED = "recovered"


class Notice(msgspec.Struct, frozen=True):
    """Something to be told, once, to every sink."""

    what: What
    key: str
    condition: Condition
    since_s: float
    at_s: float


class Silence(msgspec.Struct, frozen=True):
    """Nobody is told of these keys until then; a ``key`` that ends with ``*`` is a beginning."""

    key: str
    until_s: float
    by: str
    why: str = ""

    def covers(self, key: str, now_s: float) -> bool:
        """Whether it is about this one, now."""
        is_meant = key.startswith(self.key[:-1]) if self.key.endswith("*") else key == self.key
        return is_meant and now_s < self.until_s


class AlertRules(msgspec.Struct, frozen=True):
    """Times in seconds."""

    pending_for_s: float = 60.0
    repeat_s: float = 14_400.0
    clear_for_s: float = 120.0
    memory_s: float = 3600.0

    def clears_after_s(self, flaps: int) -> float:
        """How long a condition has to be gone."""
        return float(self.clear_for_s * 2 ** min(flaps, _MAX_DOUBLINGS))


class Stepped(NamedTuple):
    """All alerts after a step, and what is to be told."""

    alerts: dict[str, Alert]
    notices: list[Notice]


def step(
    alerts: Mapping[str, Alert],
    conditions: Iterable[Condition],
    now_s: float,
    rules: AlertRules,
    silences: Iterable[Silence] = (),
) -> Stepped:
    """All alerts with the conditions that hold now; of two with the same key the last one."""
    seen = {condition.key: condition for condition in conditions}
    quiet = tuple(silences)
    after: dict[str, Alert] = {}
    notices: list[Notice] = []
    for key in sorted(alerts.keys() | seen.keys()):
        before = alerts.get(key)
        if before is None:
            before = Alert(seen[key], Phase.PENDING, now_s)
        alert = _moved(_observed(before, seen.get(key), now_s), now_s, rules)
        if alert is None:
            continue
        is_silenced = any(one.covers(key, now_s) for one in quiet)
        what = _due(alert, now_s, rules, is_silenced=is_silenced)
        if what is not None:
            notices.append(Notice(what, key, alert.condition, alert.since_s, now_s))
            told_s = None if what is What.RECOVERED else now_s
            alert = msgspec.structs.replace(alert, told_s=told_s)
        after[key] = alert
    return Stepped(after, notices)


def _observed(alert: Alert, condition: Condition | None, now_s: float) -> Alert:
    """The alert with what is seen of its condition."""
    alert = _not_later(alert, now_s)
    if condition is None:
        return alert if alert.gone_s is not None else msgspec.structs.replace(alert, gone_s=now_s)
    if alert.phase is Phase.RECOVERED:
        return Alert(condition, Phase.PENDING, now_s, flaps=alert.flaps + 1)
    if alert.phase is Phase.RECOVERING:
        return msgspec.structs.replace(
            alert, condition=condition, phase=Phase.FIRING, gone_s=None, flaps=alert.flaps + 1
        )
    return msgspec.structs.replace(alert, condition=condition, gone_s=None)


def _not_later(alert: Alert, now_s: float) -> Alert:
    def bounded(at_s: float | None) -> float | None:
        return None if at_s is None else min(at_s, now_s)

    return msgspec.structs.replace(
        alert,
        since_s=min(alert.since_s, now_s),
        gone_s=bounded(alert.gone_s),
        told_s=bounded(alert.told_s),
    )


def _moved(alert: Alert, now_s: float, rules: AlertRules) -> Alert | None:
    """The alert in its phase of now; None where it is over and forgotten."""
    gone_s = alert.gone_s
    if gone_s is None:
        is_ripe = alert.phase is Phase.PENDING and now_s - alert.since_s >= rules.pending_for_s
        return msgspec.structs.replace(alert, phase=Phase.FIRING) if is_ripe else alert
    if alert.phase is Phase.PENDING:
        # It flapped before, or it never was more than a moment.
        return _over(alert, now_s) if alert.flaps else None
    if alert.phase is Phase.RECOVERED:
        return alert if now_s - gone_s < rules.memory_s else None
    if now_s - gone_s >= rules.clears_after_s(alert.flaps):
        return _over(alert, now_s)
    return msgspec.structs.replace(alert, phase=Phase.RECOVERING)


def _over(alert: Alert, now_s: float) -> Alert:
    # It is remembered from now on, however long it took to be sure.
    return msgspec.structs.replace(alert, phase=Phase.RECOVERED, gone_s=now_s)


def _due(alert: Alert, now_s: float, rules: AlertRules, *, is_silenced: bool) -> What | None:
    """What is to be told of it now."""
    if alert.phase is Phase.RECOVERED:
        return None if alert.told_s is None else What.RECOVERED
    if alert.phase is not Phase.FIRING or is_silenced:
        return None
    if alert.told_s is None:
        return What.FIRING
    return What.REPEAT if now_s - alert.told_s >= rules.repeat_s else None
