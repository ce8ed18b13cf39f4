"""Calibrated confidence and accept thresholds from labelled calibration data (numpy only).

A tier's logits are the logarithm of the weighted mean of its members' ``softmax(logits)``, which
for one member are its own but for a constant; its probabilities ``softmax(logits / temperature)``:
first pooled, then calibrated (Rahaman and Thiery, NeurIPS 2021). Logits and probabilities are
``(n, classes)``, labels ``(n,)``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from runtime.core.confidence import softmax

Float64s = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.int64]
NUM_BINS = 15
WEIGHT_STEPS = 20
MIN_TEMPERATURE = 0.05
MAX_TEMPERATURE = 20.0
_GOLDEN = (math.sqrt(5) - 1) / 2
_SEARCH_STEPS = 40


def pooled_logits(members: Sequence[Floats], weights: Sequence[float] | None = None) -> Float64s:
    """Logits of a tier from its members'; equal weights when there are none."""
    shares = np.stack([softmax(logits) for logits in members])
    mean = np.average(shares, axis=0, weights=weights)
    logits: Float64s = np.log(np.maximum(mean, np.finfo(np.float64).tiny))
    return logits


def probabilities_of(
    members: Sequence[Floats], temperature: float = 1.0, weights: Sequence[float] | None = None
) -> Float64s:
    """Probabilities of a tier from its members' logits; equal weights when there are none."""
    return softmax(pooled_logits(members, weights), temperature)


def accuracy_of(scores: Floats, labels: Labels) -> float:
    """Share of examples whose highest score (logit or probability) is the labelled one."""
    return float((scores.argmax(axis=1) == labels).mean())


def log_loss(probabilities: Float64s, labels: Labels) -> float:
    """Mean negative log likelihood in nats; a probability of 0 counts as the smallest number."""
    labelled = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(labelled, np.finfo(np.float64).tiny)).mean())


def fit_temperature(
    members: Sequence[Floats], labels: Labels, weights: Sequence[float] | None = None
) -> float:
    """The temperature with the lowest log loss, within 0.05..20 (Guo et al., ICML 2017).

    Golden-section search over its logarithm: the log loss is convex in 1 / temperature, so there
    is one minimum.
    """
    pooled = pooled_logits(members, weights)

    def loss(log_temperature: float) -> float:
        return log_loss(softmax(pooled, math.exp(log_temperature)), labels)

    low, high = math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE)
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    loss_left, loss_right = loss(left), loss(right)
    for _ in range(_SEARCH_STEPS):
        if loss_left <= loss_right:
            high, right, loss_right = right, left, loss_left
            left = high - _GOLDEN * (high - low)
            loss_left = loss(left)
        else:
            low, left, loss_left = left, right, loss_right
            right = low + _GOLDEN * (high - low)
            loss_right = loss(right)
    return math.exp((low + high) / 2)


def fit_weights(members: Sequence[Floats], labels: Labels) -> tuple[float, ...]:
    """Weights of an ensemble's members with the lowest log loss at the best temperature.

    Searched on multiples of 1/20 that sum to 1; every member keeps at least 1/20, so that its
    opinion is still heard where the others agree on what they know least.
    """
    if len(members) == 1:
        return (1.0,)
    shares = range(1, WEIGHT_STEPS)
    candidates = [
        tuple(share / WEIGHT_STEPS for share in chosen)
        for chosen in itertools.product(shares, repeat=len(members))
        if sum(chosen) == WEIGHT_STEPS
    ]

    def loss(weights: tuple[float, ...]) -> float:
        temperature = fit_temperature(members, labels, weights)
        return log_loss(probabilities_of(members, temperature, weights), labels)

    return min(candidates, key=loss)


def calibration_error(probabilities: Float64s, labels: Labels, num_bins: int = NUM_BINS) -> float:
    """Expected calibration error: mean gap of confidence and accuracy over equal-width bins.

    Weighted by the examples in each bin (Naeini et al., AAAI 2015); 0 is perfect, 1 the worst.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    return chance_error(confidence, correct, num_bins)


def chance_error(chance: Float64s, correct: Floats | Bools, num_bins: int = NUM_BINS) -> float:
    """The same of ``(n,)`` stated chances of being right, each in 0..1."""
    bins = np.minimum((chance * num_bins).astype(np.int64), num_bins - 1)
    gaps = np.bincount(bins, weights=correct - chance, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(correct))


@dataclass(frozen=True, slots=True)
class AcceptCurve:
    """What a tier answers by itself at every useful threshold, thresholds falling.

    ``share[i]`` of all examples have a confidence of at least ``thresholds[i]``; ``accuracy[i]`` of
    those are answered rightly.
    """

    thresholds: Float64s
    share: Float64s
    accuracy: Float64s


def accept_curve(confidence: Float64s, correct: Bools) -> AcceptCurve:
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


class TierScores(NamedTuple):
    """What one tier makes of ``(n,)`` examples: calibrated confidence and whether it is right."""

    confidence: Float64s
    correct: Bools


class CascadeScores(NamedTuple):
    """The scores of all tiers on the same examples."""

    edge: TierScores
    regional: TierScores
    cloud: TierScores


def scores_of(probabilities: Float64s, labels: Labels) -> TierScores:
    """Confidence and correctness of every example."""
    return TierScores(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels)


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
    at_edge = edge.confidence >= edge_accept_at
    at_regional = ~at_edge & (regional.confidence >= regional_accept_at)
    at_cloud = ~(at_edge | at_regional)
    correct = np.select([at_edge, at_regional], [edge.correct, regional.correct], cloud.correct)
    return CascadeResult(
        edge_accept_at=edge_accept_at,
        regional_accept_at=regional_accept_at,
        accuracy=float(correct.mean()),
        edge_share=float(at_edge.mean()),
        regional_share=float(at_regional.mean()),
        cloud_share=float(at_cloud.mean()),
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


def choose_thresholds(
    scores: CascadeScores,
    *,
    edge_at: Sequence[float] = _GRID,
    regional_at: Sequence[float] = _GRID,
) -> CascadeResult:
    """The accept thresholds of edge and regional by ``THRESHOLD_RULE``, and what they come to.

    ``edge_at`` and ``regional_at`` are those that may be chosen.
    """
    results = [cascade(scores, low, high) for low in edge_at for high in regional_at]
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
