"""Whether a tier's answer stands or the request climbs, and what is kept when the climb fails.

The order of the rules is the policy: a confident answer stands; residency is obeyed before anything
that could send the payload away; then time, then the link. Nothing here ever turns a failed climb
into an upper-tier answer, or throws away an answer in hand.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from runtime.core.confidence import Confidence
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
    """The action and why; ``outcome`` is set when the action is to answer."""

    action: Action
    reason: Reason
    outcome: Outcome | None = None


def decide(policy: EscalationPolicy, situation: Situation) -> Decision:
    """Answers now or escalates."""
    confidence = situation.confidence
    has_own_answer = confidence is not None and confidence.is_valid
    if confidence is not None and has_own_answer and confidence.probability >= policy.accept_at:
        return Decision(Action.ANSWER, Reason.CONFIDENT, Outcome.ANSWERED)
    if situation.tier_above is None:
        if has_own_answer:
            return Decision(Action.ANSWER, Reason.TOP_TIER, Outcome.ANSWERED)
        return _answer(keep(policy, confidence, Reason.NO_CONFIDENCE))
    obstacle = _obstacle(policy, situation, situation.tier_above)
    if obstacle is Reason.UNLIKELY_IN_TIME and situation.probe_is_due:
        return Decision(Action.ESCALATE, Reason.PROBE)
    if obstacle is not None:
        return _answer(keep(policy, confidence, obstacle))
    return Decision(Action.ESCALATE, Reason.UNSURE if has_own_answer else Reason.NO_CONFIDENCE)


def _obstacle(policy: EscalationPolicy, situation: Situation, above: Tier) -> Reason | None:
    """Why the request cannot climb; residency first, because it holds whatever the link is like."""
    if not situation.residency.allows(above):
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
) -> Settlement:
    """Chooses between a tier's own answer and what came back from above.

    An upper tier's answer that stands always wins. A degraded one wins when it is at least as
    confident as our own. Without an answer from above our own is kept, marked with why.
    """
    if upstream_outcome is Outcome.ANSWERED:
        return Settlement(takes_upstream=True, outcome=Outcome.ANSWERED, reason=upstream_reason)
    kept = keep(policy, own, upstream_reason)
    own_probability = own.probability if own is not None and own.is_valid else -1.0
    theirs = -1.0 if upstream_confidence is None else upstream_confidence
    has_theirs = upstream_outcome is Outcome.DEGRADED
    if has_theirs and (kept.outcome is not Outcome.DEGRADED or theirs >= own_probability):
        return Settlement(takes_upstream=True, outcome=Outcome.DEGRADED, reason=upstream_reason)
    if upstream_outcome is Outcome.ABSTAINED and kept.outcome is Outcome.FAILED:
        return Settlement(takes_upstream=True, outcome=Outcome.ABSTAINED, reason=upstream_reason)
    return Settlement(takes_upstream=False, outcome=kept.outcome, reason=kept.reason)
