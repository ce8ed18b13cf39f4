"""The walk along a fixed path on the calibration split, and what it may promise.

Fixed-sequence testing: go from the dearest configuration to cheaper ones as long as every null
hypothesis is rejected at ``delta``; the last one that was is certified. The loss is paired with the
top tier's on the same example, so most examples say 0 and the test has power. Several targets are
tested together by the largest of their p-values (intersection-union). With fewer than
``MIN_CERTIFIED`` examples conformal risk control bounds the expected loss instead (Angelopoulos et
al., ICLR 2024), on the harm made monotone along the path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model_zoo.policies.betting import p_mean_below, p_share_below
from model_zoo.policies.stages import Journeys
from model_zoo.policies.tables import Floats
from runtime.policy import Targets

MIN_CERTIFIED = 1000


@dataclass(frozen=True, slots=True)
class Walk:
    """How far the walk came: the index of the certified step, -1 for none, and its p-value."""

    last: int
    p_value: float


def p_value_of(top_correct: Floats, ends: Journeys, targets: Targets, delta: float) -> float:
    """p-value of the null that a configuration misses at least one of the targets.

    Args:
        top_correct: (n,) whether the top tier is right.
        ends: of the same examples.
        targets: the loss allowed, and what else is asked for.
        delta: the level that bets are sized for.
    """
    num = len(top_correct)
    p_value = 0.0
    # Nobody loses more than 1, nor pays more than for the dearest journey: nothing to be tested.
    if targets.max_loss < 1:
        # From -1..1 to 0..1.
        worse = (top_correct - ends.correct + 1) / 2
        p_value = p_mean_below(worse, (targets.max_loss + 1) / 2, delta)
    if targets.max_late is not None:
        p_value = max(p_value, p_share_below(int(ends.late.sum()), num, targets.max_late))
    if targets.min_accuracy is not None:
        wrong = num - int(ends.correct.sum())
        p_value = max(p_value, p_share_below(wrong, num, 1 - targets.min_accuracy))
    if targets.max_cost is not None and targets.max_cost < ends.dearest:
        # A bound that is known beforehand: the dearest journey seen would hide dearer, rarer ones.
        shares = np.minimum(ends.cost / ends.dearest, 1)
        p_value = max(p_value, p_mean_below(shares, targets.max_cost / ends.dearest, delta))
    return p_value


def walk(top_correct: Floats, path: Sequence[Journeys], targets: Targets, delta: float) -> Walk:
    """Walks the path, dearest first; stops at the first step that is not certain enough."""
    last = Walk(-1, 1.0)
    for index, ends in enumerate(path):
        p_value = p_value_of(top_correct, ends, targets, delta)
        if p_value > delta:
            break
        last = Walk(index, p_value)
    return last


def walk_in_expectation(top_correct: Floats, path: Sequence[Journeys], targets: Targets) -> Walk:
    """The last step whose expected harm is bounded by the allowed loss; for few examples.

    Harm is an answer that is wrong where the top tier's is right, counted from the step on which it
    first occurs: never less than the loss, and monotone along the path as the method needs. So are
    late and wrong answers counted. Cost falls along the path: a step that is too dear is passed by.
    """
    num = len(top_correct)
    harm = np.zeros(num)
    missed = np.zeros(num)
    wrong = np.zeros(num)
    last = Walk(-1, 1.0)
    for index, ends in enumerate(path):
        harm = np.maximum(harm, (top_correct > ends.correct).astype(np.float64))
        missed = np.maximum(missed, ends.late.astype(np.float64))
        wrong = np.maximum(wrong, 1 - ends.correct)
        if (
            _expected(harm) > targets.max_loss
            or (targets.max_late is not None and _expected(missed) > targets.max_late)
            or (targets.min_accuracy is not None and _expected(wrong) > 1 - targets.min_accuracy)
        ):
            break
        if targets.max_cost is None or _expected(ends.cost, ends.dearest) <= targets.max_cost:
            last = Walk(index, 1.0)
    return last


def _expected(losses: Floats, highest: float = 1.0) -> float:
    """What the next example's loss is expected to be at most, when it can be any of 0..highest."""
    return (float(losses.sum()) + highest) / (len(losses) + 1)
