"""What another policy would have done on recorded traffic, and how far that can be known.

For every recorded request the other policy is followed as far as the record goes. Where it needs an
answer that was not given then, audited requests speak for the rest: an audit asked all tiers, with
a probability that the log keeps, so weighting by its inverse is unbiased (Horvitz and Thompson,
1952). A guess, learned from the audits, is subtracted first and added for all, which narrows the
interval and leaves it right whatever the guess is worth (Dudik, Langford and Li, ICML 2011).
Where there were no audits the log has no support, and nothing is promised.

Right is what the top tier says: logs hold no labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_zoo.policies.fit import interval_of
from model_zoo.policies.tables import Floats, Ints
from runtime.adapters.replay_log import RecordedRequest
from runtime.core.gears import weigh
from runtime.core.seen import Seen
from runtime.errors import PolicyError
from runtime.policy import Gear, Interval, Policy

Bools = npt.NDArray[np.bool_]
# A larger share of requests that nothing is known about makes an estimate a guess.
MAX_UNSUPPORTED = 0.001
# Fewer audits than this in what must be inferred are no basis for an interval.
MIN_AUDITS = 30
NUM_STRATA = 8
# A guess from fewer audits would fit their noise.
MIN_FOR_GUESS = 20


@dataclass(frozen=True, slots=True)
class Course:
    """How one request goes under a policy: who answers, what is paid, and whether as the top says.

    ``agrees`` is None where the top tier's answer is not known.
    """

    tier: str
    cost: float
    agrees: bool | None


@dataclass(frozen=True, slots=True)
class Replay:
    """Estimates with 95 % intervals; ``refusal`` says why they promise nothing, empty if they do.

    ``agreement`` is the share of answers that are the top tier's. ``inferred`` is the share of
    requests that audits had to speak for, ``unsupported`` of those that nothing speaks for.
    """

    num_requests: int
    num_audits: int
    answered_by: dict[str, Interval]
    cost: Interval
    agreement: Interval
    inferred: float
    unsupported: float
    refusal: str


def follow(policy: Policy, gear: Gear, seen: dict[str, Seen]) -> Course | None:
    """How a request goes whose answers are ``seen``; None when one is needed that is not.

    Agreement is None, too, when the top tier's answer is not among them and is not needed.
    """
    prices = dict(zip(policy.tiers, policy.prices, strict=True))
    top = policy.tiers[-1]
    if not gear.tables:
        return Course(top, 1.0, agrees=True)
    stop: tuple[str, ...] = policy.tiers[:1]
    cost = prices[stop[0]]
    while True:
        here = seen.get(stop[-1])
        if here is None:
            return None
        table = gear.table_at(stop)
        choice = None
        if table is not None:
            earlier = [seen[tier].label for tier in stop[:-1]]
            choice = weigh(gear, table, label=here.label, score=here.score, earlier=earlier).choice
        if choice is None:
            return Course(stop[-1], cost, _agrees(seen, stop[-1], top))
        if choice.answer:
            return Course(choice.answer, cost, _agrees(seen, choice.answer, top))
        cost += sum(prices[tier] for tier in choice.to)
        last = choice.to[-1]
        if last == top:
            return Course(top, cost, agrees=True)
        stop = (*stop, last)


def _agrees(seen: dict[str, Seen], tier: str, top: str) -> bool | None:
    if tier not in seen or top not in seen:
        return None
    return seen[tier].label == seen[top].label


def replay(policy: Policy, records: Sequence[RecordedRequest]) -> Replay:
    """Estimates of what ``policy`` would have done with the recorded requests.

    A request whose budget is below every gear's is decided by nobody and has no support.

    Raises:
        PolicyError: the policy averages; what tiers hold likely is in no log.
    """
    averaging = [gear.name for gear in policy.gears if gear.averages]
    if averaging:
        raise PolicyError(
            f"{policy.name} averages the answers of tiers (gear {averaging[0]}), and logs hold "
            "labels and scores, no probabilities: judge it on labelled examples with "
            "`tierwise policy eval --policy`"
        )
    num = len(records)
    if not num:
        nothing = Interval(0.0, 0.0, 1.0)
        return Replay(0, 0, {}, nothing, nothing, 0.0, 0.0, _refusal(0, 0.0, 0, 0))
    chance = np.asarray([record.audit_chance for record in records])
    strata = _strata(policy.tiers[0], records)
    without, with_audit = [], []
    for record in records:
        gear = policy.gear_for(record.budget_ms)
        without.append(None if gear is None else follow(policy, gear, record.seen))
        with_audit.append(
            None if gear is None or record.audit is None else follow(policy, gear, record.audit)
        )

    def estimated(value: Callable[[Course], float | None]) -> tuple[Interval, Bools]:
        plain, audited = _values(without, value), _values(with_audit, value)
        audited[chance <= 0] = np.nan
        return _doubly_robust(plain, audited, chance, strata), np.isnan(plain)

    answered_by = {
        tier: estimated(lambda course, tier=tier: float(course.tier == tier))[0]  # type: ignore[misc]
        for tier in policy.tiers
    }
    cost, _ = estimated(lambda course: course.cost)
    agreement, inferred = estimated(
        lambda course: None if course.agrees is None else float(course.agrees)
    )
    unsupported = float((inferred & (chance <= 0)).mean())
    is_audited = np.asarray([record.audit is not None for record in records], np.bool_)
    num_audits = int((inferred & is_audited).sum())
    return Replay(
        num_requests=num,
        num_audits=num_audits,
        answered_by=answered_by,
        cost=cost,
        agreement=agreement,
        inferred=float(inferred.mean()),
        unsupported=unsupported,
        refusal=_refusal(num, unsupported, num_audits, int(inferred.sum())),
    )


def _values(courses: Sequence[Course | None], value: Callable[[Course], float | None]) -> Floats:
    """(n,) of every course, NaN where it is not known."""
    found = [None if course is None else value(course) for course in courses]
    return np.asarray([np.nan if one is None else one for one in found])


def _strata(lowest: str, records: Sequence[RecordedRequest]) -> Ints:
    """(n,) bin of the lowest tier's score: what a guess about a request may look at."""
    scores = np.asarray(
        [record.seen[lowest].score if lowest in record.seen else 0.0 for record in records]
    )
    edges = np.unique(np.quantile(scores, np.linspace(0, 1, NUM_STRATA + 1)[1:-1]))
    bins: Ints = np.searchsorted(edges, scores).astype(np.int64)
    return bins


def _doubly_robust(plain: Floats, audited: Floats, chance: Floats, strata: Ints) -> Interval:
    """The mean of a value that is known of some requests, and of the others when audited.

    Whether a value is known without an audit follows from the request alone, so the two kinds of
    requests are told apart before any chance plays its part.
    """
    inferred = np.isnan(plain)
    terms = np.where(inferred, 0.0, plain)
    shown = inferred & ~np.isnan(audited)
    weights = np.divide(1.0, chance, out=np.zeros_like(chance), where=shown)
    if not shown.any():
        return interval_of(terms)
    overall = float(np.average(audited[shown], weights=weights[shown]))
    for stratum in np.unique(strata[inferred]):
        chosen = inferred & (strata == stratum)
        heard = chosen & shown
        guess = overall
        if heard.sum() >= MIN_FOR_GUESS:
            guess = float(np.average(audited[heard], weights=weights[heard]))
        terms[chosen] = guess
        terms[heard] += weights[heard] * (audited[heard] - guess)
    found = interval_of(terms)
    if np.ptp(audited[shown]) > 0:
        return found
    # All audits say the same, which is no proof that there is nothing else (rule of three).
    room = float(inferred.mean()) * 3 / int(shown.sum())
    return Interval(found.mean, found.low - room, found.high + room)


def _refusal(num: int, unsupported: float, num_audits: int, num_inferred: int) -> str:
    if not num:
        return "the log holds no requests that can be replayed"
    if unsupported > MAX_UNSUPPORTED:
        return (
            f"{unsupported:.1%} of the requests would need answers that nobody gave and no audit "
            "could have: turn audits on (escalation.audit_rate) and record for longer"
        )
    if num_inferred and num_audits < MIN_AUDITS:
        return (
            f"only {num_audits} audits speak for what the log does not show; at least {MIN_AUDITS} "
            "are needed: record for longer, or audit more (escalation.audit_rate)"
        )
    return ""
