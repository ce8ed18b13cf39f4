"""Recorded requests out of decision logs, as replaying another policy needs them.

What is given:
  * Entry decisions (hop 0) that went as the policy meant: answered, or to be reviewed, and not
    degraded otherwise, withheld or failed. The others are left out and counted.
  * Nothing from while the link was down, the gate was closed, or a payload had to stay below the
    top. Of these, what climbs is missing, so what did not climb may not speak for all.
  * Nothing that a rule of the policy decided: no gear was asked. These are counted apart.
  * Retries of an id at a site are one request, and the last decision about it counts.
  * An audit that was drawn and did not come back is none; its request keeps its chance, and it is
    counted. Replay takes such a request for one that was not drawn, which is right only as far as
    failing has nothing to do with what would have been said. The same holds for the audits, at most
    a few a start, that were on their way when the log was read or the process died.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from runtime.adapters.log_file import columns_of, reading
from runtime.core.audit import went_as_meant
from runtime.core.escalation import EscalationPolicy
from runtime.core.seen import Seen, parse_seen
from runtime.messages import Outcome, Reason, Residency, Tier

MIN_CHANCE = EscalationPolicy(accept_at=0.0).min_chance


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """One request as the tier where it began has recorded it.

    ``seen`` are the answers that the request itself got, by tier; ``audit`` those of all tiers,
    None where there was no audit or it failed. ``model_version`` is that of the first tier.
    """

    wall_s: float
    request_id: str
    tier: str
    site: str
    model: str
    model_version: str
    policy: str
    gear: str
    budget_ms: float
    seen: dict[str, Seen]
    audit_chance: float = 0.0
    audit: dict[str, Seen] | None = None


class Recordings(NamedTuple):
    """Requests in the order of their instants, how many were left out, and failed audits.

    ``num_by_rule`` are those that rules decided; they are not among those left out.
    """

    requests: list[RecordedRequest]
    num_left_out: int
    num_failed_audits: int
    num_by_rule: int = 0


class _Row(NamedTuple):
    wall_s: float
    request_id: str
    tier: str
    site: str
    model: str
    model_version: str
    outcome: str
    reason: str
    policy: str
    gear: str
    chance: float | None
    seen: str
    budget_ms: float | None
    audit_chance: float
    residency: str
    rule: str


class _Audit(NamedTuple):
    seen: str
    has_come_back: bool


_Key = tuple[str, str]


def read_recorded(
    paths: Iterable[Path],
    *,
    since_s: float,
    until_s: float | None = None,
    top: Tier = Tier.CLOUD,
    min_chance: float = MIN_CHANCE,
) -> Recordings:
    """The requests in decision logs that another policy can be replayed on.

    Args:
        paths: Files of decision logs; those of tiers above hold no beginnings and add nothing.
        since_s: Nothing from before this instant (seconds since 1970).
        until_s: Nothing from this instant on; None: to the end.
        top: The tier that says what is right; payloads that may not reach it are left out.
        min_chance: The sites' ``escalation.min_chance``: with less chance of a reply in time the
            gate was closed.

    Raises:
        StartError: a log cannot be read.
    """
    until_s = math.inf if until_s is None else until_s
    latest: dict[_Key, _Row] = {}
    audits: dict[tuple[_Key, float], _Audit] = {}
    num_old = 0
    for path in paths:
        with reading(path) as log:
            if log is None:
                continue
            if "seen" not in columns_of(log, "decisions"):
                num_old += _count(log, since_s, until_s)
                continue
            for row in _rows(log, since_s, until_s):
                key = row.site, row.request_id
                if key not in latest or row.wall_s >= latest[key].wall_s:
                    latest[key] = row
            audits.update(_audits(log, since_s, until_s))
    requests: list[RecordedRequest] = []
    num_failed = 0
    by_models = {key: row for key, row in latest.items() if not row.rule}
    for key, row in by_models.items():
        audit = audits.get((key, row.wall_s))
        request = _recorded(row, audit, top, min_chance)
        if request is not None:
            requests.append(request)
            num_failed += audit is not None and request.audit is None
    requests.sort(key=lambda request: request.wall_s)
    return Recordings(
        requests,
        num_left_out=num_old + len(by_models) - len(requests),
        num_failed_audits=num_failed,
        num_by_rule=len(latest) - len(by_models),
    )


def _recorded(
    row: _Row, audit: _Audit | None, top: Tier, min_chance: float
) -> RecordedRequest | None:
    """The request of a row, None when it is to be left out."""
    is_open = row.chance is None or row.chance >= min_chance
    seen = _answers(row.seen)
    if not _as_meant(row) or not is_open or not _may_reach(row.residency, top):
        return None
    if row.budget_ms is None or row.tier not in seen:
        return None
    said = _answers(audit.seen) if audit is not None and audit.has_come_back else {}
    return RecordedRequest(
        wall_s=row.wall_s,
        request_id=row.request_id,
        tier=row.tier,
        site=row.site,
        model=row.model,
        model_version=row.model_version,
        policy=row.policy,
        gear=row.gear,
        budget_ms=row.budget_ms,
        seen=seen,
        audit_chance=row.audit_chance,
        audit=said if top.value in said else None,
    )


def _as_meant(row: _Row) -> bool:
    try:
        return went_as_meant(Outcome(row.outcome), Reason(row.reason))
    except ValueError:
        return False


def _answers(text: str) -> dict[str, Seen]:
    """What tiers answered; nothing where the text is not readable."""
    try:
        return parse_seen(text)
    except ValueError:
        return {}


def _may_reach(residency: str, top: Tier) -> bool:
    return residency in tuple(Residency) and Residency(residency).allows(top)


def _count(log: sqlite3.Connection, since_s: float, until_s: float) -> int:
    """Beginnings in a log of an earlier version, which does not say what others answered."""
    found = log.execute(
        "SELECT count(DISTINCT site || char(0) || request_id) FROM decisions "
        "WHERE hop = 0 AND wall_s >= ? AND wall_s < ?",
        (since_s, until_s),
    )
    return int(found.fetchone()[0])


def _rows(log: sqlite3.Connection, since_s: float, until_s: float) -> Iterator[_Row]:
    there = columns_of(log, "decisions")
    # Before version 4 there were no rules.
    names = [name if name in there else f"'' AS {name}" for name in _Row._fields]
    found = log.execute(
        f"SELECT {', '.join(names)} FROM decisions "  # noqa: S608 - names of our own fields
        "WHERE hop = 0 AND wall_s >= ? AND wall_s < ? ORDER BY rowid",
        (since_s, until_s),
    )
    return map(_Row._make, found)


def _audits(
    log: sqlite3.Connection, since_s: float, until_s: float
) -> Iterator[tuple[tuple[_Key, float], _Audit]]:
    """Audits by the decision that they are of."""
    found = log.execute(
        "SELECT wall_s, site, request_id, seen, agrees IS NOT NULL FROM audits "
        "WHERE wall_s >= ? AND wall_s < ?",
        (since_s, until_s),
    )
    for wall_s, site, request_id, seen, has_come_back in found:
        yield ((site, request_id), wall_s), _Audit(seen, bool(has_come_back))
