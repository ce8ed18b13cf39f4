"""Averages of tiers' probabilities: how much each counts, and what a tier then answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from model_zoo.policies.placements import Stop
from model_zoo.policies.predictions import REMEDY, Predictions
from model_zoo.policies.tables import Floats, Ints
from runtime.averages import AVERAGED_SCORES
from runtime.core.beliefs import Belief, average, probabilities
from runtime.errors import PolicyError
from runtime.policy import Score

Weights = Mapping[Stop, tuple[float, ...]]
MAX_ROUNDS = 500
# Written down with so many decimals; the average does not feel the rest.
DECIMALS = 4
# What rounds to nothing may still be so likely.
LEAST_LIKELY = 1e-5


class Answers(NamedTuple):
    """(n,) each: what the last tier of a stop answers, how sure it is, and whether it is right."""

    predicted: Ints
    score: Floats
    correct: Floats


def beliefs_of(predictions: Predictions) -> Belief:
    """(k, n, c) of all tiers.

    Raises:
        PolicyError: they were not collected.
    """
    if predictions.beliefs is None:
        raise PolicyError(f"{predictions.source} has no beliefs, so nothing averages; {REMEDY}")
    return predictions.beliefs


def can_average(train: Predictions, calibration: Predictions) -> bool:
    """Whether both splits hold what averages are learned from and certified on."""
    return train.beliefs is not None and calibration.beliefs is not None


def averaged_kind(predictions: Predictions, tier: int) -> Score:
    """The kind of score that a tier's average is looked up with."""
    kind = predictions.kind_at(tier)
    return kind if kind in AVERAGED_SCORES else "probability"


def learned_weights(predictions: Predictions, stop: Stop) -> tuple[float, ...]:
    """The weights that make the labels likeliest: a mixture's, by expectation maximization."""
    beliefs, rows = beliefs_of(predictions), np.arange(predictions.num_examples)
    likelihood = np.stack([probabilities(beliefs[tier])[rows, predictions.label] for tier in stop])
    likelihood = np.maximum(likelihood, LEAST_LIKELY)
    weights: Floats = np.full(len(stop), 1 / len(stop))
    for _ in range(MAX_ROUNDS):
        shares = weights[:, None] * likelihood
        found: Floats = (shares / shares.sum(axis=0)).mean(axis=1)
        is_settled = np.abs(found - weights).max() < 0.1**DECIMALS / 10
        weights = found
        if is_settled:
            break
    below = np.round(weights[:-1], DECIMALS).tolist()
    return (*below, round(1 - sum(below), DECIMALS))


def averaged_answers(predictions: Predictions, stop: Stop, weights: tuple[float, ...]) -> Answers:
    """What the last tier of a stop answers on the average; as ``runtime.core`` works it out."""
    beliefs = beliefs_of(predictions)
    mean = average([beliefs[tier] for tier in stop], weights)
    shares = mean / mean.sum(axis=1, keepdims=True)
    predicted: Ints = shares.argmax(axis=1).astype(np.int64)
    score = _scores(shares, averaged_kind(predictions, stop[-1]))
    return Answers(predicted, score, (predicted == predictions.label).astype(np.float64))


def _scores(shares: Floats, kind: Score) -> Floats:
    """(n,) rising with sureness."""
    score: Floats
    if kind == "entropy":
        logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
        entropy = -(shares * logs).sum(axis=1) / np.log(shares.shape[1])
        score = 1 - np.clip(entropy, 0, 1)
        return score
    second, first = np.partition(shares, -2, axis=1)[:, -2:].T
    score = first - second if kind == "margin" else first
    return score
