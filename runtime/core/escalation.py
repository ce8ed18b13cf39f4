"""Whether a tier's answer stands or the request climbs, and what is kept when the climb fails.

The order of the rules is the policy: a confident answer stands; residency is obeyed before anything
that could send the payload away; then time, then the link. Nothing here ever turns a failed climb
into an upper-tier answer, or throws away an answer in hand.

Whether an answer is confident says a fitted gear's advice, or, without one, a threshold.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from functools import cache

from runtime.core.confidence import Confidence
from runtime.core.gears import Advice
from runtime.messages import Outcome, Reason, Residency, Tier


class Action(enum.StrEnum):
    """What a tier does with a request after its own model ran."""

    ANSWER = "answer"
    ESCALATE = "escalate"


@dataclass(frozen=True, slots=True)
class EscalationPolicy:
    """The numbers of the decision.

    ``accept_at``: confidence at or above which an answer stands. ``min_chance``: below this chance
    of a reply in time nothing is sent, except probes. ``margin_ms``: what a tier needs after the
    climb to hand its answer over. ``abstain_below``: confidence under which an unimproved answer is
    withheld.
    """

    accept_at: float
    min_chance: float = 0.25
    margin_ms: float = 5.0
    abstain_below: float = 0.0


@dataclass(frozen=True, slots=True)
class Situation:
    """All that the decision may look at.

    ``confidence`` is None when the tier's own model failed. ``tier_above`` is None at the top.
    """

    confidence: Confidence | None
    tier_above: Tier | None
    residency: Residency
    remaining_ms: float
    upstream_is_reachable: bool
    chance_in_time: float
    probe_is_due: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """The action and why; ``outcome`` is set when the action is to answer.

    ``route`` names the tiers to ask, empty for the next one above. ``is_as_fitted`` says that a
    gear advised this and that the fit would have done the same.
    """

    action: Action
    reason: Reason
    outcome: Outcome | None = None
    route: tuple[Tier, ...] = ()
    is_as_fitted: bool = False


_CONFIDENT = Decision(Action.ANSWER, Reason.CONFIDENT, Outcome.ANSWERED)
_CONFIDENT_AS_FITTED = replace(_CONFIDENT, is_as_fitted=True)
_TOP_TIER = Decision(Action.ANSWER, Reason.TOP_TIER, Outcome.ANSWERED)
# The tier below hears that nothing better was found here, and lets its own answer stand.
_LOWER_STANDS = Decision(Action.ANSWER, Reason.LOWER_STANDS, Outcome.ABSTAINED, is_as_fitted=True)


def decide(
    policy: EscalationPolicy, situation: Situation, advice: Advice | None = None
) -> Decision:
    """Answers now or escalates: as a gear advises, else by the threshold.

    A confidence that says nothing is no case for advice; it escalates like any failure.
    """
    confidence = situation.confidence
    if confidence is None or not confidence.is_valid:
        if situation.tier_above is None:
            return _answer(keep(policy, confidence, Reason.NO_CONFIDENCE))
        return _climb(policy, situation, Reason.NO_CONFIDENCE)
    if advice is not None:
        return _follow(policy, situation, advice)
    if confidence.probability >= policy.accept_at:
        return _CONFIDENT
    if situation.tier_above is None:
        return _TOP_TIER
    return _climb(policy, situation, Reason.UNSURE)


def _follow(policy: EscalationPolicy, situation: Situation, advice: Advice) -> Decision:
    """What a gear advises about a valid answer, as far as it can be done."""
    choice, fitted = advice.choice, advice.fitted
    if choice is fitted:
        if choice is None:
            return _CONFIDENT_AS_FITTED
        if choice.answer:
            return _LOWER_STANDS
    if situation.tier_above is None:
        return _TOP_TIER
    # The fit would have asked and the link says that it is not worth it: asking is tried as a
    # probe, and the answer does not count as confident.
    asks = choice if choice is not None and choice.to else fitted
    decision = _climb(
        policy,
        situation,
        Reason.UNSURE,
        route=_tiers(asks.to) if asks is not None else (),
        is_worth_it=asks is choice,
        is_as_fitted=advice.as_fitted,
    )
    if decision.action is Action.ANSWER and choice is not None and choice.answer:
        # The answer below is the better one to keep; why nobody else was asked is told.
        return Decision(Action.ANSWER, decision.reason, Outcome.ABSTAINED)
    return decision


@cache
def _tiers(names: tuple[str, ...]) -> tuple[Tier, ...]:
    """Tiers by name; there are only a few routes, and each is named in every request."""
    return tuple(map(Tier, names))


def pass_on(policy: EscalationPolicy, situation: Situation, route: tuple[Tier, ...]) -> Decision:
    """Whether a request goes on along the route that it came with, before a model has run here.

    When it does not, the reason says why, and this tier's own model has to answer.
    """
    obstacle = _obstacle(policy, situation, route)
    if obstacle is None or _may_probe(situation, obstacle):
        reason = Reason.PROBE if obstacle else Reason.ROUTED
        return Decision(Action.ESCALATE, reason, route=route, is_as_fitted=True)
    return Decision(Action.ANSWER, obstacle, Outcome.DEGRADED)


def _climb(
    policy: EscalationPolicy,
    situation: Situation,
    reason: Reason,
    *,
    route: tuple[Tier, ...] = (),
    is_worth_it: bool = True,
    is_as_fitted: bool = False,
) -> Decision:
    """Escalates for this reason, unless something is in the way."""
    obstacle = _obstacle(policy, situation, route)
    if obstacle is None and not is_worth_it:
        obstacle = Reason.UNLIKELY_IN_TIME
    if obstacle is None or _may_probe(situation, obstacle):
        reason = Reason.PROBE if obstacle else reason
        return Decision(Action.ESCALATE, reason, route=route, is_as_fitted=is_as_fitted)
    return _answer(keep(policy, situation.confidence, obstacle))


def _may_probe(situation: Situation, obstacle: Reason) -> bool:
    return obstacle is Reason.UNLIKELY_IN_TIME and situation.probe_is_due


# For every residency the tiers that it allows.
_WITHIN = {one: frozenset(tier for tier in Tier if one.allows(tier)) for one in Residency}


def _obstacle(
    policy: EscalationPolicy, situation: Situation, route: tuple[Tier, ...]
) -> Reason | None:
    """Why the request cannot climb; residency first, because it holds whatever the link is like."""
    above = situation.tier_above
    if above is None:
        return Reason.NO_UPSTREAM
    if not _WITHIN[situation.residency].issuperset((above, *route)):
        return Reason.RESIDENCY
    if not situation.remaining_ms > policy.margin_ms:
        return Reason.NO_TIME
    if not situation.upstream_is_reachable:
        return Reason.NO_UPSTREAM
    # A chance that is NaN must close the gate, hence "not ... >=".
    if not situation.chance_in_time >= policy.min_chance:
        return Reason.UNLIKELY_IN_TIME
    return None


@dataclass(frozen=True, slots=True)
class Kept:
    """What a tier makes of its own unsure answer."""

    outcome: Outcome
    reason: Reason


def _answer(kept: Kept) -> Decision:
    return Decision(Action.ANSWER, kept.reason, kept.outcome)


def keep(policy: EscalationPolicy, confidence: Confidence | None, reason: Reason) -> Kept:
    """What a tier says with only its own unsure answer; ``reason`` is why it has no better."""
    if confidence is None:
        return Kept(Outcome.FAILED, Reason.LOCAL_FAILED)
    if not confidence.is_valid:
        return Kept(Outcome.ABSTAINED, Reason.NO_CONFIDENCE)
    if confidence.probability < policy.abstain_below:
        return Kept(Outcome.ABSTAINED, Reason.BELOW_FLOOR)
    return Kept(Outcome.DEGRADED, reason)


@dataclass(frozen=True, slots=True)
class Settlement:
    """The end of a climb: whose answer goes out, as what, and why."""

    takes_upstream: bool
    outcome: Outcome
    reason: Reason


def settle(
    policy: EscalationPolicy,
    own: Confidence | None,
    *,
    upstream_outcome: Outcome,
    upstream_reason: Reason,
    upstream_confidence: float | None,
    is_as_fitted: bool = False,
) -> Settlement:
    """Chooses between a tier's own answer and what came back from above.

    An upper tier's answer that stands always wins. A degraded one wins when it is at least as
    confident as our own, or where the gear's fit had it win. When the tier above finds that our
    own answer is the better one, it stands. Without an answer from above our own is kept, marked
    with why.
    """
    if upstream_outcome is Outcome.ANSWERED:
        return Settlement(takes_upstream=True, outcome=Outcome.ANSWERED, reason=upstream_reason)
    kept = keep(policy, own, upstream_reason)
    is_degraded = kept.outcome is Outcome.DEGRADED
    if upstream_outcome is Outcome.ABSTAINED and upstream_reason is Reason.LOWER_STANDS:
        outcome = Outcome.ANSWERED if is_degraded else kept.outcome
        return Settlement(takes_upstream=False, outcome=outcome, reason=kept.reason)
    own_probability = own.probability if own is not None and own.is_valid else -1.0
    theirs = -1.0 if upstream_confidence is None else upstream_confidence
    has_theirs = upstream_outcome is Outcome.DEGRADED
    if has_theirs and (not is_degraded or theirs >= own_probability or is_as_fitted):
        return Settlement(takes_upstream=True, outcome=Outcome.DEGRADED, reason=upstream_reason)
    if upstream_outcome is Outcome.ABSTAINED and kept.outcome is Outcome.FAILED:
        return Settlement(takes_upstream=True, outcome=Outcome.ABSTAINED, reason=upstream_reason)
    return Settlement(takes_upstream=False, outcome=kept.outcome, reason=kept.reason)
