"""What a policy keeps of its fit for live control: safer steps, score reference, trace medians."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np

from model_zoo.policies.predictions import Predictions
from model_zoo.policies.tables import Floats
from runtime.policy import ScoreReference, TraceFacts

# Each step has its own tables, so few of them.
MAX_STEPS = 3
# Cost of a gear that asks nobody, for ratios of costs.
LEAST_COST = 0.01
# From here on a step is hardly another one than the last resort, which needs no tables.
NEAR_TOP = 0.95
NUM_QUANTILES = 200


def spread(costs: Sequence[float]) -> list[int]:
    """Which of the steps before the last one to keep: their costs about evenly apart in ratio.

    Cheapest first, so the safest comes last. A step that is no dearer than the gear is none.
    """
    if not costs:
        return []
    *earlier, last = costs
    dearer = [index for index, cost in enumerate(earlier) if last < cost < NEAR_TOP]
    if not dearer:
        return []
    low, high = (max(cost, LEAST_COST) for cost in (last, max(costs[index] for index in dearer)))
    wanted = np.geomspace(low, high, MAX_STEPS + 1)[1:]
    distances = np.abs(np.asarray(costs)[dearer][:, None] - wanted)
    nearest = {dearer[position] for position in distances.argmin(axis=0).tolist()}
    return sorted(nearest, key=lambda index: costs[index])


def score_reference(calibration: Predictions) -> ScoreReference:
    """What the lowest tier's scores look like."""
    scores = calibration.score[0]
    quantiles = np.quantile(scores, np.linspace(0, 1, NUM_QUANTILES + 1), method="inverted_cdf")
    return ScoreReference(
        tier=calibration.tiers[0],
        kind=calibration.kind_at(0),
        num_examples=calibration.num_examples,
        quantiles=tuple(quantiles.tolist()),
    )


def trace_facts(trace: Floats, tiers: Sequence[str]) -> TraceFacts:
    """The medians of a trace; a hop whose replies are mostly lost has none."""
    medians = np.median(trace, axis=0).tolist()
    return TraceFacts(
        digest=hashlib.sha256(np.ascontiguousarray(trace, np.float64).tobytes()).hexdigest(),
        num_rows=len(trace),
        median_ms={
            tier: ms for tier, ms in zip(tiers[1:], medians, strict=True) if math.isfinite(ms)
        },
    )
