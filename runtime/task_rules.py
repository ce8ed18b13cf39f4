"""The one place where a model's task decides what confidence is, and what an answer says.

``rule_of`` is asked once, when a model is loaded; everything above it sees a ``Confidence`` and
does not know the task.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Protocol

from runtime.core.confidence import Confidence, Floats, confidence_of_batch
from runtime.core.multilabel import (
    CombinedScores,
    chances,
    combine_labels,
    labels_of,
    multilabel_confidence,
)
from runtime.core.regression import (
    HIGH,
    LOW,
    VALUE,
    combine_intervals,
    regression_confidence,
)
from runtime.detection_rule import Detection
from runtime.distance_rules import Anomaly, Embedding
from runtime.manifest import ModelManifest
from runtime.messages import Tensors
from runtime.task_answers import Judged, TaskRule, Together


class Classification:
    """One of several labels; ensembles of it are ``runtime.core.ensemble``'s."""

    def __init__(self, manifest: ModelManifest) -> None:
        self._name, self._temperature = manifest.outputs[0].name, manifest.temperature

    def judge(self, outputs: Tensors, agreement: float = 1.0) -> Judged:
        """See ``TaskRule``; the label says it."""
        scores = outputs[self._name]
        confidence = confidence_of_batch(scores, self._temperature, agreement=agreement)
        return Judged(confidence, "", outputs)

    def judge_all(
        self,
        members: Sequence[Tensors],  # noqa: ARG002 - the protocol's
        weights: Sequence[float],  # noqa: ARG002 - the same
    ) -> None:
        """Nothing: members vote."""
        return


class Scores(Protocol):
    """What a task makes of ``(batch, n)`` scores in one output."""

    def confidence(self, scores: Floats, agreement: float) -> Confidence:
        """See ``TaskRule.judge``."""
        ...

    def combine(self, scores: Sequence[Floats], weights: Sequence[float]) -> CombinedScores | None:
        """Several members' scores as one; None where none is usable."""
        ...

    def result(self, row: Floats) -> object:
        """What usable scores of one example say."""
        ...


class ByScores:
    """Implements ``TaskRule`` for the tasks that need no more than scores."""

    def __init__(self, manifest: ModelManifest, scores: Scores) -> None:
        self._name, self._scores = manifest.outputs[0].name, scores

    def judge(self, outputs: Tensors, agreement: float = 1.0) -> Judged:
        """See ``TaskRule``."""
        scores = outputs[self._name]
        confidence = self._scores.confidence(scores, agreement)
        is_told = confidence.is_valid and len(scores) == 1
        told = json.dumps(self._scores.result(scores[0])) if is_told else ""
        return Judged(confidence, told, outputs)

    def judge_all(self, members: Sequence[Tensors], weights: Sequence[float]) -> Together | None:
        """See ``TaskRule``."""
        combined = self._scores.combine([one[self._name] for one in members], weights)
        if combined is None:
            return None
        judged = self.judge({self._name: combined.scores}, combined.agreement)
        return Together(judged, combined.used)


class Multilabel:
    """Any number of labels."""

    def __init__(self, manifest: ModelManifest) -> None:
        self._temperature, self._labels = manifest.temperature, manifest.labels
        self._thresholds = manifest.label_thresholds or (0.5,) * len(manifest.labels)

    def confidence(self, scores: Floats, agreement: float) -> Confidence:
        """See ``Scores``."""
        return multilabel_confidence(
            scores, self._thresholds, self._temperature, agreement=agreement
        )

    def combine(self, scores: Sequence[Floats], weights: Sequence[float]) -> CombinedScores | None:
        """See ``Scores``."""
        return combine_labels(scores, weights, self._thresholds)

    def result(self, row: Floats) -> object:
        """The labels that hold, and the chance of each of them."""
        found = chances(row, self._temperature)
        places = labels_of(row, self._thresholds, self._temperature)
        return {"labels": {self._labels[place]: round(float(found[place]), 6) for place in places}}


class Regression:
    """A number with an interval."""

    def __init__(self, manifest: ModelManifest) -> None:
        self._tolerance = manifest.tolerance

    def confidence(self, scores: Floats, agreement: float) -> Confidence:
        """See ``Scores``."""
        return regression_confidence(scores, self._tolerance, agreement=agreement)

    def combine(self, scores: Sequence[Floats], weights: Sequence[float]) -> CombinedScores | None:
        """See ``Scores``."""
        return combine_intervals(scores, weights)

    def result(self, row: Floats) -> object:
        """The value and its interval."""
        low, value, high = (float(row[place]) for place in (LOW, VALUE, HIGH))
        return {"value": value, "low": low, "high": high}


def rule_of(manifest: ModelManifest, prototypes: Floats | None = None) -> TaskRule:
    """The rule of a model's task; an embedding's needs its ``(labels, d)`` prototypes.

    Raises:
        ArtifactError: they are missing, or are none.
    """
    match manifest.task:
        case "classification":
            return Classification(manifest)
        case "multilabel":
            return ByScores(manifest, Multilabel(manifest))
        case "regression":
            return ByScores(manifest, Regression(manifest))
        case "detection":
            return Detection(manifest)
        case "anomaly":
            return ByScores(manifest, Anomaly(manifest))
        case "embedding":
            return ByScores(manifest, Embedding(manifest, prototypes))
