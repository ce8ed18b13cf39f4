"""Finds what decision logs hold about one request, and tells it as a story.

Rules of this file:
  * of several decisions of one tier and site about an id (retries), the last one written counts;
  * tiers are told in the order in which they work, never in that of wall clocks, which differ from
    machine to machine;
  * a log of an earlier version lacks columns; what it does not say is left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from runtime.adapters.log_file import columns_of, reading
from runtime.adapters.policy_file import KnownPolicy
from runtime.core.explain import Explanation, Facts, explain, with_review
from runtime.core.ladder import gear_named
from runtime.core.reasons import plain
from runtime.core.seen import Seen, parse_seen
from runtime.core.story import Ending, Story, height, tell
from runtime.core.turning import Place, places_like, turns
from runtime.messages import Reason, Residency, Tier
from runtime.policy_rules import Rule
from runtime.ports import DecisionRecord

_FIELDS = tuple(dataclasses.fields(DecisionRecord))
_NUMBERS = ("service_us", "sent_bytes", "hop")


def find_decisions(paths: Iterable[Path], request_id: str) -> tuple[DecisionRecord, ...]:
    """The decisions about a request, lowest tier first; empty when no log knows it.

    Raises:
        StartError: a log cannot be read.
    """
    latest: dict[tuple[str, str], DecisionRecord] = {}
    for path in paths:
        for record in _records(path, "WHERE request_id = ? ORDER BY rowid", (request_id,)):
            latest[record.tier, record.site] = record
    return tuple(sorted(latest.values(), key=lambda one: (height(one.tier), one.hop, one.site)))


def audits_of(paths: Iterable[Path], request_id: str) -> tuple[str, ...]:
    """What audits found about the answer to a request, a sentence each.

    Raises:
        StartError: a log cannot be read.
    """
    found: list[str] = []
    for path in paths:
        with reading(path) as log:
            # Before version 3 there were no audits.
            if log is None or not columns_of(log, "audits"):
                continue
            query = "SELECT agrees FROM audits WHERE request_id = ? ORDER BY rowid"
            found.extend(_AUDITED[agrees] for (agrees,) in log.execute(query, (request_id,)))
    return tuple(found)


_AUDITED = {
    None: "Note: the answer was to be audited, and nothing came back of that.",
    0: "Note: an audit asked the top tier afterwards, which answered otherwise.",
    1: "Note: an audit asked the top tier afterwards, which answered the same.",
}


def newest_ids(paths: Iterable[Path], count: int) -> tuple[str, ...]:
    """The ids of the newest requests, newest first: by the wall clocks of those who wrote them.

    Raises:
        StartError: a log cannot be read.
    """
    # Twice as many: each may be a retry of the one before.
    order = "ORDER BY wall_s DESC, rowid DESC LIMIT ?"
    found = [one for path in paths for one in _records(path, order, (2 * count,))]
    # Where clocks agree, the tier that was asked first writes last.
    found.sort(key=lambda one: (one.wall_s, -one.hop), reverse=True)
    return tuple(dict.fromkeys(one.request_id for one in found))[:count]


def _records(path: Path, rest: str, values: Sequence[object]) -> Iterator[DecisionRecord]:
    with reading(path) as log:
        if log is None:
            return
        there = columns_of(log, "decisions")
        names = [field.name for field in _FIELDS if field.name in there]
        query = f"SELECT {', '.join(names)} FROM decisions {rest}"  # noqa: S608 - own names
        for row in log.execute(query, values):
            yield _record(dict(zip(names, row, strict=True)))


def _record(row: dict[str, Any]) -> DecisionRecord:
    """A decision of any version of the file: what it does not have is as it is by default."""
    for field in _FIELDS:
        is_missing = row.get(field.name) is None
        if is_missing and field.default is not dataclasses.MISSING:
            row[field.name] = field.default
        elif is_missing:
            row[field.name] = None
    row.update({name: row[name] or 0 for name in _NUMBERS})
    return DecisionRecord(**row)


def story_of(
    records: Sequence[DecisionRecord],
    *,
    known: KnownPolicy | None = None,
    labels: Sequence[str] = (),
    audits: Sequence[str] = (),
) -> Story:
    """The story of a request.

    Args:
        records: as ``find_decisions`` gives them, at least one.
        known: a policy that may be the one that was followed; another one is named and not used.
        labels: their names; those of the policy are used where there is one.
        audits: as ``audits_of`` gives them.
    """
    entry = records[0]
    notes = [*audits, *_notes(records, known)]
    told = [one for one in records if _is_part(one, entry)]
    if known is not None and any(_follows(one, known) for one in told):
        labels = known.policy.labels
    seen = _all_seen(told)
    tiers = [_explained(one, known, labels, seen) for one in told]
    ending = Ending(
        request_id=entry.request_id,
        outcome=entry.outcome,
        reason=entry.reason,
        answered_by=entry.answered_by,
        label=entry.label,
        confidence=_confidence(entry, told),
        guarantee=entry.guarantee,
        latency_ms=entry.latency_ms,
    )
    return tell(ending, tiers, labels=labels, notes=notes)


def _is_part(record: DecisionRecord, entry: DecisionRecord) -> bool:
    """Whether the decision is behind the answer: nobody above is, when nobody was asked."""
    return record is entry or entry.action == "escalate"


def _notes(records: Sequence[DecisionRecord], known: KnownPolicy | None) -> list[str]:
    entry, notes = records[0], []
    aside = [plain(one.site) for one in records if not _is_part(one, entry)]
    if aside:
        notes.append(
            f"Note: {', '.join(aside)} decided about this id too, apart from this answer: in "
            "another attempt."
        )
    if entry.hop > 0:
        notes.append("Note: the log of the tier that was asked first is not among these logs.")
    heights = {height(one.tier) for one in records}
    if entry.answered_by and height(entry.answered_by) not in heights:
        notes.append(
            f"Note: the log of the tier {plain(entry.answered_by)} is not among these logs."
        )
    followed = list(dict.fromkeys(plain(one.policy) for one in records if one.policy))
    others = [digest for digest in followed if known is None or digest != known.short]
    if known is not None and not followed:
        notes.append(f"Note: no policy was followed, so {known.source} is not used.")
    if others and known is not None:
        notes.append(
            f"Note: {known.source} is the policy {known.short}; the request followed "
            f"{', '.join(others)}, so what would have been otherwise is not told for that."
        )
    elif others:
        notes.append(
            f"Note: with --policy and the file of the policy {', '.join(others)} it is told what "
            "would have been otherwise."
        )
    return notes


def _all_seen(records: Iterable[DecisionRecord]) -> dict[str, Seen]:
    """What every tier answered, its own word first."""
    seen: dict[str, Seen] = {}
    for record in records:
        try:
            said = parse_seen(record.seen)
        except ValueError:
            continue
        seen = {**seen, **said}
    return seen


def _confidence(entry: DecisionRecord, records: Sequence[DecisionRecord]) -> float | None:
    """That of the answer: each record has only its own tier's."""
    if not entry.answered_by:
        return None
    own = [one.confidence for one in records if one.tier == entry.answered_by]
    return own[0] if own else None


def _follows(record: DecisionRecord, known: KnownPolicy) -> bool:
    return bool(record.policy) and record.policy == known.short


def _explained(
    record: DecisionRecord,
    known: KnownPolicy | None,
    labels: Sequence[str],
    seen: dict[str, Seen],
) -> Explanation:
    own = _own_label(record, seen)
    rule = _rule_of(record, known)
    facts = Facts(
        tier=record.tier,
        site=record.site,
        model=record.model,
        model_version=record.model_version,
        label=own,
        probability=record.confidence,
        action=record.action,
        reason=record.decided_because,
        policy=record.policy,
        gear=record.gear,
        score=record.score,
        gain=record.gain,
        cost=record.cost,
        chance=record.chance,
        remaining_ms=record.remaining_ms,
        route=record.route or ("" if rule is None else rule.ask),
        service_us=record.service_us,
        came_back=record.answered_by if record.answered_by != record.tier else "",
        end_reason=record.reason,
        guarantee=record.guarantee,
        rule=record.rule,
        rule_when=() if rule is None else tuple(map(str, rule.when)),
        averaged=known is not None and _is_averaged(record, known),
        forwarded=record.forwarded,
    )
    if record.decided_because == Reason.REVIEW and known is not None and _follows(record, known):
        facts = with_review(facts, gear_named(known.policy, record.gear))
    place = None if known is None else _place(record, known, own, seen)
    return explain(facts, labels=labels, place=place)


def _rule_of(record: DecisionRecord, known: KnownPolicy | None) -> Rule | None:
    """The rule that decided, where the policy that has it is at hand."""
    if known is None or not _follows(record, known):
        return None
    return next((rule for rule in known.policy.rules if rule.name == record.rule), None)


def _is_averaged(record: DecisionRecord, known: KnownPolicy) -> bool:
    """Whether a tier decided on an average: where its gear has one, and it is not among the seen.

    What a tier says by itself is logged as seen, but for a batch, which has no label.
    """
    gear = gear_named(known.policy, record.gear) if _follows(record, known) else None
    if gear is None or record.label is None or record.confidence is None:
        return False
    has_average = any(agreed.tiers[-1] == record.tier for agreed in gear.averages)
    return has_average and record.tier not in _all_seen((record,))


def _own_label(record: DecisionRecord, seen: dict[str, Seen]) -> int | None:
    """The tier's own label; the log's is that of the answer, whosever it is."""
    if record.tier in seen:
        return seen[record.tier].label
    return record.label if record.answered_by == record.tier else None


def _place(
    record: DecisionRecord, known: KnownPolicy, own: int | None, seen: dict[str, Seen]
) -> Place | None:
    """Where in the policy's table it was decided, when that can be told.

    Where the log leaves several rows, one of them serves if all say the same.
    """
    gear = gear_named(known.policy, record.gear) if _follows(record, known) else None
    if gear is None or record.score is None or record.gain is None or record.cost is None:
        return None
    below = [tier for tier in known.policy.tiers if height(tier) < height(record.tier)]
    answered = [tier for tier in below if tier in seen]
    stops = [(*answered, record.tier), (*below, record.tier), (record.tier,)]
    table = next(filter(None, map(gear.table_at, stops)), None)
    if table is None:
        return None
    lower = table.tiers[:-1]
    is_own_known = own is not None or record.answered_by == record.tier
    # An earlier version did not log the residency: then the row alone can be told.
    cannot_compare = not record.residency and record.decided_because == Reason.RESIDENCY
    found = places_like(
        gear,
        table,
        score=record.score,
        chance=1.0 if record.chance is None else record.chance,
        weighed=None if cannot_compare else (record.gain, record.cost),
        out_of_reach=_out_of_reach(record.residency),
        labels=(own,) if is_own_known else None,
        earlier=tuple(seen[one].label for one in lower) if seen.keys() >= set(lower) else None,
    )
    return found[0] if found and len({turns(place) for place in found}) == 1 else None


def _out_of_reach(residency: str) -> frozenset[str]:
    try:
        allowed = Residency(residency or Residency.CLOUD)
    except ValueError:
        return frozenset()
    return frozenset(tier.value for tier in Tier if not allowed.allows(tier))
