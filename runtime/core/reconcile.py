"""Whether the counters of all tiers add up: what came in has gone out, and nothing was dropped.

Rules, for counters read at one moment each:
  * at every tier, requests received, now or late from an outbox, are answered, refused, copies of
    others, or in progress; one that ends while it is counted may be in two of these, so as many as
    are in progress may be over;
  * at every tier, a request that was sent up is an escalation that has ended, a hedge beside one,
    or in progress; one that ended without being sent says so in its result;
  * between tiers, what was sent and not received has been waited for in vain.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runtime.messages import Reason, Tier

# Results of escalations for which nothing was put on its way.
_UNSENT = (
    Reason.NO_UPSTREAM.value,
    Reason.NO_TIME.value,
    Reason.OVERLOADED.value,
    Reason.UPSTREAM_REFUSED.value,
)
# Results that leave open whether the tier above ever heard.
_UNHEARD = (Reason.UPSTREAM_TIMEOUT.value, Reason.NO_UPSTREAM.value)


@dataclass(frozen=True, slots=True)
class Counts:
    """What one process has counted since its start.

    ``escalations`` are those that ended, by result. ``cancelled`` are the refusals of requests
    whose caller went away, ``late`` requests from outboxes below, which nobody waits for.
    """

    tier: Tier
    where: str
    received: int
    answered: int
    refused: int
    duplicates: int
    pending: int
    sent: int
    hedges: int
    escalations: Mapping[str, int]
    cancelled: int = 0
    late: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule at one place: what should be in ``low`` .. ``high``, and what is."""

    where: str
    rule: str
    found: int
    low: int
    high: int

    @property
    def adds_up(self) -> bool:
        """Whether the rule holds."""
        return self.low <= self.found <= self.high


def reconcile(counts: Sequence[Counts]) -> list[Finding]:
    """All rules, tiers upwards."""
    ordered = sorted(counts, key=lambda one: (one.tier.height, one.where))
    findings = [finding for one in ordered for finding in _within(one)]
    heights = sorted({one.tier.height for one in ordered})
    for lower, upper in itertools.pairwise(heights):
        findings.append(
            _between(
                [one for one in ordered if one.tier.height == lower],
                [one for one in ordered if one.tier.height == upper],
            )
        )
    return findings


def _within(one: Counts) -> list[Finding]:
    ended = one.answered + one.refused + one.duplicates
    findings = [
        Finding(
            one.where,
            "received + late = answered + refused + copies + in progress",
            one.received + one.late,
            ended,
            ended + one.pending,
        )
    ]
    if one.escalations or one.sent:
        num_ended = sum(one.escalations.values())
        unsent = sum(one.escalations.get(result, 0) for result in _UNSENT)
        findings.append(
            Finding(
                one.where,
                "sent up = escalations that ended + hedges + in progress",
                one.sent,
                num_ended - unsent,
                num_ended + one.hedges + one.pending + one.cancelled,
            )
        )
    return findings


def _between(lower: Sequence[Counts], upper: Sequence[Counts]) -> Finding:
    sent, received = sum(one.sent for one in lower), sum(one.received for one in upper)
    unheard = sum(one.escalations.get(result, 0) for one in lower for result in _UNHEARD) + sum(
        one.pending + one.cancelled + one.hedges for one in lower
    )
    tiers = f"{lower[0].tier.value} to {upper[0].tier.value}"
    return Finding(
        tiers,
        "received above = sent up, less what was waited for in vain",
        received,
        sent - unheard,
        sent,
    )
