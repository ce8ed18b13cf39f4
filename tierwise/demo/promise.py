"""Whether the policy's predicted shares hold in a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypedDict

from runtime.policy import Policy

NUM_95 = 1.959964


class SharePrediction(TypedDict):
    """A tier's share of answers: as the policy predicts it for a run of this length, and as it was.

    ``low`` and ``high`` are the 95 % prediction interval.
    """

    predicted: float
    low: float
    high: float
    measured: float


class Promise(TypedDict):
    """What the policy in force said about the run, and whether it was so."""

    policy: str
    guarantee: str
    answered_by: dict[str, SharePrediction]
    holds: bool


def checked(policy: Policy, answered_by: Mapping[str, int], budget_ms: float) -> Promise | None:
    """Compares shares of answers with those of the policy's gear.

    Args:
        policy: in force.
        answered_by: answers by tier, without those during an outage.
        budget_ms: of the requests; None is returned where no gear is for it.
    """
    gear = policy.gear_for(budget_ms)
    num = sum(answered_by.values())
    if gear is None or num == 0:
        return None
    found: dict[str, SharePrediction] = {}
    for tier in policy.tiers:
        share = gear.promise.answered_by[tier]
        spread = 1 / policy.calibration.num_examples + 1 / num
        # A share of 0 or 1 of few examples is no certainty (Agresti and Coull, 1998).
        near = (share * num + 2) / (num + 4)
        half = NUM_95 * math.sqrt(near * (1 - near) * spread)
        found[tier] = SharePrediction(
            predicted=round(share, 4),
            low=round(max(0.0, share - half), 4),
            high=round(min(1.0, share + half), 4),
            measured=round(answered_by.get(tier, 0) / num, 4),
        )
    return Promise(
        policy=policy.name,
        guarantee=gear.guarantee.value,
        answered_by=found,
        holds=all(one["low"] <= one["measured"] <= one["high"] for one in found.values()),
    )
