"""Anomaly scores and embeddings: what their confidence is, and what an answer says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from runtime.core.confidence import INVALID, Confidence, Floats
from runtime.core.distances import (
    anomaly_confidence,
    combine_anomalies,
    combine_embeddings,
    embedding_confidence,
    nearest_of,
    weakest_of,
)
from runtime.core.multilabel import CombinedScores
from runtime.errors import ArtifactError
from runtime.manifest import ModelManifest

_MATRIX = 2


class Anomaly:
    """A score that is compared with a threshold."""

    def __init__(self, manifest: ModelManifest) -> None:
        fields = manifest.anomaly
        if fields is None:
            raise ValueError("a manifest of this task has these fields")
        self._threshold, self._scale = fields.threshold, fields.scale

    def confidence(self, scores: Floats, agreement: float) -> Confidence:
        """Of the score that is nearest to the threshold; which side it is on, the result says."""
        columns = _as_column(scores)
        if columns.ndim != _MATRIX or columns.shape[1:] != (1,):
            return INVALID
        found = [
            anomaly_confidence(float(score), self._threshold, self._scale)
            for score in columns[:, 0]
        ]
        return replace(weakest_of(found, agreement), label=None)

    def combine(self, scores: Sequence[Floats], weights: Sequence[float]) -> CombinedScores | None:
        """The weighted mean of the members' scores."""
        columns = [_as_column(one) for one in scores]
        return combine_anomalies(columns, weights, self._threshold)

    def result(self, row: Floats) -> object:
        """The score, and whether it reaches the threshold."""
        score = float(row.reshape(-1)[0])
        return {"score": score, "is_anomalous": score >= self._threshold}


def checked_prototypes(manifest: ModelManifest, prototypes: Floats | None) -> Floats:
    """``(labels, d)`` prototypes of a model of embeddings, as 64-bit floats.

    Raises:
        ArtifactError: they are missing, of another shape, not finite, or point nowhere.
    """
    wanted = (len(manifest.labels), manifest.outputs[0].shape[1])
    known = np.zeros(0) if prototypes is None else np.asarray(prototypes, np.float64)
    if known.shape != wanted:
        raise ArtifactError(
            f"{manifest.name}: prototypes of shape {list(known.shape)}, where {list(wanted)} "
            "was announced: a row for each of `labels`, as long as a vector of the model"
        )
    lengths = np.linalg.norm(known, axis=1)
    if not (np.isfinite(lengths).all() and (lengths > 0).all()):
        raise ArtifactError(
            f"{manifest.name}: a prototype is not finite, or of length 0: it is near nothing"
        )
    return known


class Embedding:
    """A vector that is compared with prototypes, of which each has a label."""

    def __init__(self, manifest: ModelManifest, prototypes: Floats | None) -> None:
        self._labels = manifest.labels
        self._prototypes = checked_prototypes(manifest, prototypes)

    def confidence(self, scores: Floats, agreement: float) -> Confidence:
        """Of the vector that is least clearly nearest to one prototype; its label is that one's."""
        if scores.ndim != _MATRIX:
            return INVALID
        found = [embedding_confidence(row, self._prototypes) for row in scores]
        return weakest_of(found, agreement)

    def combine(self, scores: Sequence[Floats], weights: Sequence[float]) -> CombinedScores | None:
        """The weighted mean of the members' vectors, each of length 1."""
        return combine_embeddings(scores, weights, self._prototypes)

    def result(self, row: Floats) -> object:
        """The nearest prototype, and how near."""
        place, similarity = nearest_of(row, self._prototypes)
        return {"nearest": self._labels[place], "similarity": round(similarity, 6)}


def _as_column(scores: Floats) -> Floats:
    """``(batch, 1)`` also of ``(batch,)``."""
    return scores[:, None] if scores.ndim == 1 else scores
