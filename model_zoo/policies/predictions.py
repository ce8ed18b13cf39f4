"""Predictions of every tier on the same labelled examples: what policies are fitted on.

What no policy can be fitted on is refused here, with what to do about it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np
import numpy.typing as npt

from runtime.core.beliefs import Belief
from runtime.errors import PolicyError
from runtime.policy import Name, Score

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
MAX_TIERS = 6
MIN_TIERS = 2
REMEDY = "make it with `tierwise policy collect`"


@dataclass(frozen=True, slots=True)
class Predictions:
    """Every tier's answers to n labelled examples, tiers from the device upwards.

    ``price`` (k,) is per call, in any unit. ``predicted`` and ``score`` are (k, n);
    ``service_ms`` (k, n) or None; ``example_id`` (n,) tells examples apart, so that splits which
    overlap are seen. ``models`` are digests by tier, empty where unknown. ``kinds`` says by tier
    which kind of score is in use (empty: all are probabilities); ``scores`` are all kinds that were
    collected, (k, n) each, rising with sureness. ``beliefs`` (k, n, c) are all probabilities, as
    tiers tell them to one another; None where they were not collected.
    """

    tiers: tuple[str, ...]
    label_names: tuple[str, ...]
    label: Ints
    price: Floats
    predicted: Ints
    score: Floats
    example_id: npt.NDArray[np.bytes_]
    service_ms: Floats | None = None
    models: dict[str, str] = field(default_factory=dict)
    source: str = ""
    kinds: tuple[Score, ...] = ()
    scores: dict[Score, Floats] = field(default_factory=dict)
    beliefs: Belief | None = None

    def without_beliefs(self) -> Predictions:
        """The same with nothing to average."""
        return replace(self, beliefs=None)

    def kind_at(self, tier: int) -> Score:
        """The kind of score in use at a tier."""
        return self.kinds[tier] if self.kinds else "probability"

    def using(self, kinds: Mapping[str, Score]) -> Predictions:
        """The same with other kinds of scores, by tier; tiers that are not named keep theirs.

        Raises:
            PolicyError: a kind was not collected.
        """
        wanted = tuple(kinds.get(tier, self.kind_at(k)) for k, tier in enumerate(self.tiers))
        if wanted == tuple(self.kind_at(tier) for tier in range(len(self.tiers))):
            return self
        score = self.score.copy()
        for tier, kind in enumerate(wanted):
            if kind == self.kind_at(tier):
                continue
            if kind not in self.scores:
                raise PolicyError(f"{self.source} has no {kind} scores; {REMEDY}")
            score[tier] = self.scores[kind][tier]
        return replace(self, score=score, kinds=wanted)

    @property
    def num_examples(self) -> int:
        """Examples that all tiers have answered."""
        return len(self.label)

    @property
    def correct(self) -> Bools:
        """(k, n): whether a tier's answer is the label."""
        right: Bools = self.predicted == self.label
        return right

    @property
    def relative_price(self) -> Floats:
        """(k,) in prices of the top tier."""
        relative: Floats = self.price / self.price[-1]
        return relative

    @property
    def digest(self) -> str:
        """Names the examples with their labels, whatever their order."""
        both = sorted(
            example + b":" + str(label).encode()
            for example, label in zip(self.example_id.tolist(), self.label.tolist(), strict=True)
        )
        return hashlib.sha256(b"\n".join(both)).hexdigest()

    def take(self, chosen: npt.NDArray[np.int64]) -> Predictions:
        """The same for some of the examples."""
        return replace(
            self,
            label=self.label[chosen],
            predicted=self.predicted[:, chosen],
            score=self.score[:, chosen],
            scores={kind: scores[:, chosen] for kind, scores in self.scores.items()},
            beliefs=None if self.beliefs is None else self.beliefs[:, chosen],
            example_id=self.example_id[chosen],
            service_ms=None if self.service_ms is None else self.service_ms[:, chosen],
        )


def check(predictions: Predictions) -> None:
    """Refuses what no policy can be fitted on.

    Raises:
        PolicyError: says what is wrong and what to do.
    """
    where = predictions.source or "the predictions"
    num_tiers, num_examples = predictions.predicted.shape
    if not MIN_TIERS <= num_tiers <= MAX_TIERS:
        raise PolicyError(f"{where}: {num_tiers} tiers; between {MIN_TIERS} and {MAX_TIERS} can be")
    if num_examples == 0:
        raise PolicyError(f"{where} is empty; {REMEDY}")
    try:
        msgspec.convert(predictions.tiers, tuple[Name, ...])
    except msgspec.ValidationError as error:
        raise PolicyError(f"{where}: the tiers are {predictions.tiers}: {error}") from error
    if len(set(predictions.tiers)) != num_tiers:
        raise PolicyError(f"{where}: a tier is there twice in {', '.join(predictions.tiers)}")
    _check_labels(predictions, where)
    _check_prices(predictions.price, where)
    for tier, scores in zip(predictions.tiers[:-1], predictions.score[:-1], strict=True):
        _check_scores(scores, tier, where)


def _check_labels(predictions: Predictions, where: str) -> None:
    num_labels = len(predictions.label_names)
    if (predictions.label < 0).any():
        missing = int((predictions.label < 0).sum())
        raise PolicyError(
            f"{where}: {missing} examples have no label; label them or leave them out"
        )
    if predictions.label.max() >= num_labels:
        raise PolicyError(
            f"{where}: label {predictions.label.max()} of {num_labels} classes; "
            "use the label names that the models were trained with"
        )
    strange = (predictions.predicted < 0) | (predictions.predicted >= num_labels)
    if strange.any():
        raise PolicyError(
            f"{where}: {int(strange.sum())} answers are none of the {num_labels} classes; "
            "leave out examples that not every tier has answered"
        )
    if len(np.unique(predictions.label)) < MIN_TIERS:
        raise PolicyError(f"{where}: all examples are of one class; nothing can be learned from it")


def _check_prices(price: Floats, where: str) -> None:
    if not np.isfinite(price).all() or (price < 0).any():
        raise PolicyError(f"{where}: a price is negative or not a number; state one for every tier")
    if price[-1] <= 0:
        raise PolicyError(f"{where}: the top tier is free, so nothing can be saved; ask it always")
    if not math.isfinite(float(price.max()) / float(price[-1])):
        raise PolicyError(f"{where}: the top tier is all but free; nothing can be saved")


def _check_scores(scores: Floats, tier: str, where: str) -> None:
    if not np.isfinite(scores).all():
        raise PolicyError(
            f"{where}: {int((~np.isfinite(scores)).sum())} scores of {tier} are not finite; "
            "find out what its model does with these examples"
        )
    if len(scores) > 1 and scores.min() == scores.max():
        raise PolicyError(
            f"{where}: the score of {tier} is always {scores[0]:g}; it tells nothing apart. "
            "Collect with the model's own confidences"
        )


def check_disjoint(train: Predictions, calibration: Predictions) -> None:
    """Refuses splits that a certificate cannot be built on.

    Raises:
        PolicyError: they share examples, or are of other tiers, labels or models.
    """
    if train.tiers != calibration.tiers:
        raise PolicyError(f"train is of {train.tiers}, calibration of {calibration.tiers}")
    if train.label_names != calibration.label_names:
        raise PolicyError("train and calibration have other classes; collect both with one task")
    if train.models != calibration.models:
        changed = [t for t in train.tiers if train.models.get(t) != calibration.models.get(t)]
        raise PolicyError(
            f"train and calibration were predicted by other models ({', '.join(changed)}); "
            "collect both again with the models that will serve"
        )
    shared = np.intersect1d(train.example_id, calibration.example_id)
    if len(shared):
        raise PolicyError(
            f"{len(shared)} examples are both in {train.source} and in {calibration.source}; "
            "a guarantee needs calibration examples that nothing was chosen on"
        )
