"""How sure anomaly scores and embeddings are: by their distance to what decides.

An anomaly score is compared with a threshold, in units of how far scores of ordinary examples
scatter; an embedding with prototypes, of which the nearest wins. What is not finite is invalid.
"""

from __future__ import annotations

import math

import numpy as np

from runtime.core.confidence import INVALID, MIN_CLASSES, Confidence, Floats

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
