"""Calibrated confidence and accept thresholds from labelled calibration data (numpy only).

Functions take logits ``(n, classes)`` and labels ``(n,)`` and return plain numbers or arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Float64s = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
NUM_BINS = 15
MIN_TEMPERATURE = 0.05
MAX_TEMPERATURE = 20.0
_BISECTIONS = 60


def softmax(logits: Floats, temperature: float = 1.0) -> Float64s:
    """Probabilities ``(n, classes)`` in double precision."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    powers = np.exp(scaled)
    probabilities: Float64s = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def confidence_of(logits: Floats, temperature: float = 1.0) -> Float64s:
    """Probability ``(n,)`` of the most probable class."""
    highest: Float64s = softmax(logits, temperature).max(axis=1)
    return highest


def accuracy_of(logits: Floats, labels: Labels) -> float:
    """Share of examples whose highest logit is the labelled one."""
    return float((logits.argmax(axis=1) == labels).mean())


def log_loss(logits: Floats, labels: Labels, temperature: float = 1.0) -> float:
    """Mean negative log likelihood in nats."""
    scaled = logits.astype(np.float64) / temperature
    highest = scaled.max(axis=1)
    log_sum = highest + np.log(np.exp(scaled - highest[:, None]).sum(axis=1))
    return float((log_sum - scaled[np.arange(len(labels)), labels]).mean())


def fit_temperature(logits: Floats, labels: Labels) -> float:
    """The temperature with the lowest log loss, within 0.05..20 (Guo et al., ICML 2017).

    In b = 1 / temperature the log loss is convex; its slope is the mean of (expected logit under
    the softmax - labelled logit), which grows with b, so its zero is found by bisection.
    """
    scores = logits.astype(np.float64)
    labelled = scores[np.arange(len(labels)), labels]

    def slope(inverse: float) -> float:
        return float(((softmax(scores, 1 / inverse) * scores).sum(axis=1) - labelled).mean())

    low, high = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if slope(middle) > 0:
            high = middle
        else:
            low = middle
    return 2 / (low + high)


def calibration_error(
    logits: Floats, labels: Labels, temperature: float = 1.0, num_bins: int = NUM_BINS
) -> float:
    """Expected calibration error: mean gap of confidence and accuracy over equal-width bins.

    Weighted by the examples in each bin (Naeini et al., AAAI 2015); 0 is perfect, at most 1.
    """
    confidence = confidence_of(logits, temperature)
    correct = logits.argmax(axis=1) == labels
    bins = np.minimum((confidence * num_bins).astype(np.int64), num_bins - 1)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(labels))


@dataclass(frozen=True, slots=True)
class AcceptCurve:
    """What a tier answers by itself at every useful threshold, thresholds falling.

    ``share[i]`` of all examples have a confidence of at least ``thresholds[i]``; ``accuracy[i]`` of
    those are answered rightly.
    """

    thresholds: Float64s
    share: Float64s
    accuracy: Float64s


def accept_curve(confidence: Float64s, correct: npt.NDArray[np.bool_]) -> AcceptCurve:
    """The curve over all confidences that occur; equal confidences are accepted together."""
    order = np.argsort(-confidence, kind="stable")
    falling = confidence[order]
    last_of_ties = np.append(falling[1:] != falling[:-1], True)
    counts = np.arange(1, len(falling) + 1)
    rightly = np.cumsum(correct[order])
    return AcceptCurve(
        thresholds=falling[last_of_ties],
        share=(counts / len(falling))[last_of_ties],
        accuracy=(rightly / counts)[last_of_ties],
    )


@dataclass(frozen=True, slots=True)
class TierScores:
    """What one tier makes of the same examples: calibrated confidence and whether it is right."""

    confidence: Float64s
    correct: npt.NDArray[np.bool_]


class CascadeScores(NamedTuple):
    """The scores of all tiers on the same examples."""

    edge: TierScores
    regional: TierScores
    cloud: TierScores


@dataclass(frozen=True, slots=True)
class CascadeResult:
    """A cascade of three tiers at two thresholds: who answers how much, and how well it ends."""

    edge_accept_at: float
    regional_accept_at: float
    accuracy: float
    edge_share: float
    regional_share: float
    cloud_share: float

    @property
    def mean_climbs(self) -> float:
        """Tiers that an example climbs on average: the cost that the thresholds minimise."""
        return self.regional_share + 2 * self.cloud_share


def cascade(
    scores: CascadeScores, edge_accept_at: float, regional_accept_at: float
) -> CascadeResult:
    """Each example is answered by the lowest tier that is confident enough; by the cloud else."""
    edge, regional, cloud = scores
    stands_at_edge = edge.confidence >= edge_accept_at
    stands_at_regional = ~stands_at_edge & (regional.confidence >= regional_accept_at)
    correct = np.where(
        stands_at_edge,
        edge.correct,
        np.where(stands_at_regional, regional.correct, cloud.correct),
    )
    edge_share, regional_share = float(stands_at_edge.mean()), float(stands_at_regional.mean())
    return CascadeResult(
        edge_accept_at=edge_accept_at,
        regional_accept_at=regional_accept_at,
        accuracy=float(correct.mean()),
        edge_share=edge_share,
        regional_share=regional_share,
        cloud_share=max(0.0, 1.0 - edge_share - regional_share),
    )


THRESHOLD_RULE = (
    "On the calibration pictures, of all pairs of thresholds 0.50, 0.51 .. 0.99 for edge and "
    "regional whose cascade is at most 0.5 points less accurate than the cloud's ensemble: the one "
    "with the fewest climbs (tiers climbed per picture), preferring pairs that answer at least "
    "65 % at the edge; if there is no such pair, the most accurate one. A starting point, without "
    "a guarantee."
)
ALLOWED_LOSS = 0.005
WANTED_EDGE_SHARE = 0.65
_GRID = tuple(step / 100 for step in range(50, 100))


def choose_thresholds(scores: CascadeScores) -> CascadeResult:
    """The accept thresholds of edge and regional by ``THRESHOLD_RULE``, and what they come to."""
    results = [cascade(scores, low, high) for low in _GRID for high in _GRID]
    needed = float(scores.cloud.correct.mean()) - ALLOWED_LOSS
    good = [result for result in results if result.accuracy >= needed]
    if not good:
        return max(results, key=lambda result: (result.accuracy, -result.mean_climbs))
    return min(
        good,
        key=lambda result: (
            result.edge_share < WANTED_EDGE_SHARE,
            result.mean_climbs,
            -result.accuracy,
        ),
    )
