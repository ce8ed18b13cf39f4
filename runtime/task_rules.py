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
    is_usable_interval,
    regression_confidence,
)
from runtime.manifest import ModelManifest


class TaskRule(Protocol):
    """What a task makes of ``(batch, scores)``."""

    def confidence(self, scores: Floats, agreement: float = 1.0) -> Confidence:
        """That of the weakest row; invalid, and no error, where the scores are none."""
        ...

    def combine(self, scores: Sequence[Floats], weights: Sequence[float]) -> CombinedScores | None:
        """Several members' scores as one; None where none is usable."""
        ...

    def result(self, scores: Floats) -> str:
        """What an answer of one example says, as JSON; empty where the label says it all."""
        ...


class Classification:
    """One of several labels; ensembles of it are ``runtime.core.ensemble``'s."""

    def __init__(self, manifest: ModelManifest) -> None:
        self._temperature = manifest.temperature

    def confidence(self, scores: Floats, agreement: float = 1.0) -> Confidence:
        """See ``TaskRule``."""
        return confidence_of_batch(scores, self._temperature, agreement=agreement)

    def combine(
        self,
        scores: Sequence[Floats],  # noqa: ARG002 - the protocol's
        weights: Sequence[float],  # noqa: ARG002 - the same
    ) -> CombinedScores | None:
        """Nothing: members vote."""
        return None

    def result(self, scores: Floats) -> str:  # noqa: ARG002 - the protocol's
        """Nothing: the label says it."""
        return ""


class Multilabel:
    """Any number of labels."""

    def __init__(self, manifest: ModelManifest) -> None:
        self._temperature, self._labels = manifest.temperature, manifest.labels
        self._thresholds = manifest.label_thresholds or (0.5,) * len(manifest.labels)

    def confidence(self, scores: Floats, agreement: float = 1.0) -> Confidence:
        """See ``TaskRule``."""
        return multilabel_confidence(
            scores, self._thresholds, self._temperature, agreement=agreement
        )

    def combine(self, scores: Sequence[Floats], weights: Sequence[float]) -> CombinedScores | None:
        """See ``TaskRule``."""
        return combine_labels(scores, weights, self._thresholds)

    def result(self, scores: Floats) -> str:
        """The labels that hold, and the chance of each of them."""
        if len(scores) != 1 or not self.confidence(scores).is_valid:
            return ""
        row = chances(scores[0], self._temperature)
        places = labels_of(scores[0], self._thresholds, self._temperature)
        return json.dumps(
            {"labels": {self._labels[place]: round(float(row[place]), 6) for place in places}}
        )


class Regression:
    """A number with an interval."""

    def __init__(self, manifest: ModelManifest) -> None:
        self._tolerance = manifest.tolerance

    def confidence(self, scores: Floats, agreement: float = 1.0) -> Confidence:
        """See ``TaskRule``."""
        return regression_confidence(scores, self._tolerance, agreement=agreement)

    def combine(self, scores: Sequence[Floats], weights: Sequence[float]) -> CombinedScores | None:
        """See ``TaskRule``."""
        return combine_intervals(scores, weights)

    def result(self, scores: Floats) -> str:
        """The value and its interval."""
        if len(scores) != 1 or not is_usable_interval(scores):
            return ""
        low, value, high = (float(scores[0, place]) for place in (LOW, VALUE, HIGH))
        return json.dumps({"value": value, "low": low, "high": high})


def rule_of(manifest: ModelManifest) -> TaskRule:
    """The rule of a model's task."""
    match manifest.task:
        case "classification":
            return Classification(manifest)
        case "multilabel":
            return Multilabel(manifest)
        case "regression":
            return Regression(manifest)
