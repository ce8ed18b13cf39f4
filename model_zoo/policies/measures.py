"""What the ideal would cost, and how well a tier's score tells right answers from wrong ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from model_zoo.calibrate import chance_error
from model_zoo.policies.predictions import Predictions
from model_zoo.policies.stages import Stage
from model_zoo.policies.tables import Floats
from runtime.policy import Score


def oracle_cost(stage: Stage, max_loss: float) -> float:
    """The least mean cost of anyone who sees the labels and loses at most ``max_loss``.

    The lowest tier is always paid. Of its wrong answers those are corrected that a dearer tier has
    right, by the cheapest such tier, cheapest corrections first, until the target is met.
    """
    first_right, right = stage.correct[0] > 0, stage.correct > 0
    prices = np.where(right[1:], stage.price[1:, None], np.inf).min(axis=0)
    useful = np.sort(prices[~first_right & np.isfinite(prices)])
    wanted = float(stage.correct[-1].sum()) - max_loss * stage.num - float(first_right.sum())
    # Half an example of room for a product that is a whole number but for its rounding.
    num_corrected = min(len(useful), max(0, math.ceil(wanted - 1e-9)))
    return float(stage.price[0] + useful[:num_corrected].sum() / stage.num)


# Another kind of score must rank better by this share of the excess, or it is noise.
WORTH_A_CHANGE = 0.05


def best_scores(train: Predictions) -> dict[str, Score]:
    """For every tier the kind of score that ranks right answers above wrong ones best."""
    best: dict[str, Score] = {}
    for tier, name in enumerate(train.tiers):
        correct = train.correct[tier].astype(np.float64)
        usual = train.kind_at(tier)
        excess = {
            kind: excess_aurc(scores[tier], correct)
            for kind, scores in train.scores.items()
            if np.ptp(scores[tier]) > 0
        }
        bar = (1 - WORTH_A_CHANGE) * excess_aurc(train.score[tier], correct)
        kind = min(excess, key=lambda one: excess[one], default=usual)
        best[name] = kind if kind in excess and excess[kind] < bar else usual
    return best


@dataclass(frozen=True, slots=True)
class ScoreQuality:
    """How good a tier's score is.

    ``e_aurc``: area under the risk-coverage curve above that of a perfect ranking (Geifman et al.,
    ICLR 2019). ``augrc``: mean share of undetected failures (Traub et al., NeurIPS 2024). ``ece``:
    expected calibration error of the score as it is, and after the fitted tables.
    """

    accuracy: float
    e_aurc: float
    augrc: float
    ece_before: float
    ece_after: float


def risk_coverage(score: Floats, correct: Floats) -> tuple[Floats, Floats]:
    """(n,) share of failures among the accepted and among all, the most confident first.

    Equal scores are accepted together.
    """
    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    failures = np.cumsum(1 - correct[order])
    # Of examples that score the same, each sees the average of the group.
    ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(score) - 1)
    starts = np.concatenate([[-1], ends[:-1]])
    before = np.concatenate([[0.0], failures[ends[:-1]]])
    sizes = ends - starts
    group = np.repeat(np.arange(len(ends)), sizes)
    inside = np.arange(len(score)) - starts[group]
    expected = before[group] + (failures[ends] - before)[group] * inside / sizes[group]
    counts = np.arange(1, len(score) + 1)
    return expected / counts, expected / len(score)


def excess_aurc(score: Floats, correct: Floats) -> float:
    """e-AURC: 0 for a score that ranks every right answer above every wrong one."""
    selective, _ = risk_coverage(score, correct)
    perfect, _ = risk_coverage(correct, correct)
    return float(selective.mean() - perfect.mean())


def generalized_aurc(score: Floats, correct: Floats) -> float:
    """AUGRC: mean over coverage of the failures that are let through."""
    return float(risk_coverage(score, correct)[1].mean())


def calibration_error(probability: Floats, correct: Floats) -> float:
    """ECE of (n,) chances of being right; scores outside 0..1 are brought to its ends."""
    return chance_error(np.clip(probability, 0, 1), correct)
