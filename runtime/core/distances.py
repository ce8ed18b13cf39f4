"""How sure anomaly scores and embeddings are: by their distance to what decides.

An anomaly score is compared with a threshold, in units of how far scores of ordinary examples
scatter; an embedding with prototypes, of which the nearest wins. What is not finite is invalid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from runtime.core.confidence import INVALID, MIN_CLASSES, Confidence, Floats
from runtime.core.multilabel import CombinedScores

_MATRIX = 2


def anomaly_confidence(score: float, threshold: float, scale: float) -> Confidence:
    """Confidence that an example is rightly on its side of the threshold.

    ``probability`` is the logistic function of the distance in units of ``scale`` > 0: 0.5 at the
    threshold. The label is 1 for an anomaly (at or above it) and 0 for none.
    """
    distance = (score - threshold) / scale
    if not math.isfinite(distance):
        return INVALID
    probability = 1.0 / (1.0 + math.exp(-min(abs(distance), 700.0)))
    margin = 2 * probability - 1
    return Confidence(
        label=int(score >= threshold),
        probability=probability,
        margin=margin,
        entropy=1.0 - margin,
        is_valid=True,
    )


def embedding_confidence(embedding: Floats, prototypes: Floats) -> Confidence:
    """Confidence that the nearest of ``(k, d)`` prototypes is the right one for ``(d,)``.

    By cosine similarity. ``margin`` is the distance to the second nearest, as a share of the
    distance to it: 0 where both are equally near, 1 where the nearest is met exactly.
    ``probability`` is ``(1 + margin) / 2``. A vector of length 0 points nowhere, and is invalid.
    """
    known = np.asarray(prototypes, np.float64)
    vector = np.asarray(embedding, np.float64)
    if known.ndim != _MATRIX or len(known) < MIN_CLASSES or vector.shape != known.shape[1:]:
        return INVALID
    lengths, length = np.linalg.norm(known, axis=1), float(np.linalg.norm(vector))
    # A sum of squares of finite numbers may overflow.
    if not (0 < length < math.inf and np.isfinite(lengths).all() and (lengths > 0).all()):
        return INVALID
    distances = 1.0 - np.clip((known / lengths[:, None]) @ (vector / length), -1.0, 1.0)
    label = int(distances.argmin())
    nearest, second = np.partition(distances, 1)[:2]
    margin = float((second - nearest) / second) if second > 0 else 0.0
    return Confidence(
        label=label,
        probability=(1 + margin) / 2,
        margin=margin,
        entropy=1.0 - margin,
        is_valid=True,
    )


def weakest_of(found: Sequence[Confidence], agreement: float = 1.0) -> Confidence:
    """That of a batch: of its least sure example, invalid where one is; only one has a label.

    What members disagree about is less sure: margin and distance from a half shrink with
    ``agreement``.
    """
    if not found or not all(one.is_valid for one in found):
        return INVALID
    weakest = min(found, key=lambda one: one.probability)
    margin = weakest.margin * agreement
    return replace(
        weakest,
        label=weakest.label if len(found) == 1 else None,
        probability=0.5 + (weakest.probability - 0.5) * agreement,
        margin=margin,
        entropy=1.0 - margin,
        agreement=agreement,
    )


def nearest_of(embedding: Floats, prototypes: Floats) -> tuple[int, float]:
    """The nearest of ``(k, d)`` prototypes to ``(d,)``, and the cosine similarity to it.

    Both are usable, as ``embedding_confidence`` has it.
    """
    known, vector = np.asarray(prototypes, np.float64), np.asarray(embedding, np.float64)
    near = (known / np.linalg.norm(known, axis=1)[:, None]) @ (vector / np.linalg.norm(vector))
    label = int(near.argmax())
    return label, float(np.clip(near[label], -1.0, 1.0))


def combine_anomalies(
    scores: Sequence[Floats], weights: Sequence[float], threshold: float
) -> CombinedScores | None:
    """The weighted mean of members' ``(batch, 1)`` scores; None where no member is usable.

    ``agreement`` is the share of members, by weight, on the side of the mean, the smallest over the
    batch.
    """
    used = _alike(scores, 1)
    if not used:
        return None
    stack = np.stack([np.asarray(scores[place], np.float64) for place in used])
    shares = np.array([weights[place] for place in used], np.float64)
    shares /= shares.sum()
    mean = np.tensordot(shares, stack, axes=1)
    alike = np.tensordot(shares, (stack >= threshold) == (mean >= threshold), axes=1)
    return CombinedScores(mean.astype(np.float32), min(1.0, float(alike.min())), used)


def combine_embeddings(
    scores: Sequence[Floats], weights: Sequence[float], prototypes: Floats
) -> CombinedScores | None:
    """The weighted mean of members' ``(batch, d)`` vectors of length 1; None where none is usable.

    They lie in one space, that of the prototypes. ``agreement`` is the share of members, by weight,
    that have the same nearest prototype as the mean, the smallest over the batch.
    """
    dimensions = np.asarray(prototypes).shape[1]
    used = tuple(
        place
        for place in _alike(scores, dimensions)
        if (np.linalg.norm(np.asarray(scores[place], np.float64), axis=1) > 0).all()
    )
    if not used:
        return None
    stack = np.stack([np.asarray(scores[place], np.float64) for place in used])
    stack /= np.linalg.norm(stack, axis=2, keepdims=True)
    shares = np.array([weights[place] for place in used], np.float64)
    shares /= shares.sum()
    mean = np.tensordot(shares, stack, axes=1)
    known = np.asarray(prototypes, np.float64)
    known = known / np.linalg.norm(known, axis=1)[:, None]
    alike = (stack @ known.T).argmax(axis=2) == (mean @ known.T).argmax(axis=1)
    agreement = min(1.0, float(np.tensordot(shares, alike, axes=1).min()))
    return CombinedScores(mean.astype(np.float32), agreement, used)


def _alike(scores: Sequence[Floats], columns: int) -> tuple[int, ...]:
    """Places of those that are ``(batch, columns)`` of finite numbers, in the shape of the first.

    Numbers of float64 that float32 does not have are none here either.
    """
    usable = [
        place
        for place, one in enumerate(scores)
        if one.ndim == _MATRIX
        and one.size
        and one.shape[1] == columns
        and (np.abs(np.asarray(one, np.float64)) <= np.finfo(np.float32).max).all()
    ]
    return tuple(place for place in usable if scores[place].shape == scores[usable[0]].shape)
