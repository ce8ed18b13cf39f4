"""Whose answer goes out at the end, from values that the request's story has come to."""

from __future__ import annotations

from runtime.core.escalation import Decision, EscalationPolicy, Settlement, keep, settle
from runtime.exchange.course import with_own_reason
from runtime.exchange.uplink import UpstreamReply
from runtime.local_model import LocalResult
from runtime.messages import Guarantee, Outcome, Reason

_FITTED = (Guarantee.CERTIFIED, Guarantee.EXPECTATION)
HAS_COME = (Outcome.ANSWERED, Outcome.DEGRADED)


def settled(
    policy: EscalationPolicy,
    own: LocalResult | Reason,
    decision: Decision,
    reply: UpstreamReply,
    *,
    has_gear: bool,
) -> Settlement:
    """Chooses between our own answer and what came back."""
    theirs = reply.answer
    is_fitted = theirs is not None and theirs.guarantee in _FITTED
    settlement = settle(
        policy,
        own.confidence if isinstance(own, LocalResult) else None,
        upstream_outcome=reply.outcome,
        upstream_reason=reply.reason,
        upstream_confidence=theirs.confidence if theirs else None,
        is_as_fitted=is_fitted and decision.is_as_fitted and has_gear,
    )
    return with_own_reason(settlement, own)


def kept_alone(policy: EscalationPolicy, own: LocalResult | Reason, reason: Reason) -> Settlement:
    """Our own answer where the route wanted another."""
    kept = keep(policy, own.confidence if isinstance(own, LocalResult) else None, reason)
    settlement = Settlement(takes_upstream=False, outcome=kept.outcome, reason=kept.reason)
    return with_own_reason(settlement, own)
