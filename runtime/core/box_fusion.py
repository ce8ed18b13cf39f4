"""Boxes of several detectors as one list: weighted boxes fusion.

Solovyev, Wang and Gabruseva, "Weighted boxes fusion: Ensembling boxes from different object
detection models", Image and Vision Computing 107 (2021). Boxes of one label that overlap become
their mean, weighted by their scores; a box that only some members found loses score, so what
members disagree about is unsure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from runtime.core.candidates import Candidates
from runtime.core.detection import Float64s, overlap

# Below, products with weights may have no digits left.
LEAST_SCORE = 1e-9


@dataclass(frozen=True, slots=True)
class Fused:
    """The boxes, the best first; ``shares`` is which share of the members found each of them."""

    candidates: Candidates
    shares: Float64s


@dataclass
class _Cluster:
    label: int
    box: Float64s
    boxes: list[Float64s] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    members: set[int] = field(default_factory=set)

    def take(self, box: Float64s, score: float, member: int) -> None:
        self.boxes.append(box)
        self.scores.append(score)
        self.members.add(member)
        self.box = np.average(np.stack(self.boxes), axis=0, weights=self.scores)


def fuse(members: Sequence[Candidates], weights: Sequence[float], *, max_overlap: float) -> Fused:
    """The boxes of at least one member; weights are above 0.

    A score is the weighted mean of those in its cluster, times the share of the members that it has
    boxes of, at most 1. Candidates of next to no score are left out.
    """
    total = float(sum(weights))
    # Of all members together, the best first; the weight counts as part of the score.
    entries = sorted(
        (
            (float(score) * weight, number, place)
            for number, (one, weight) in enumerate(zip(members, weights, strict=True))
            for place, score in enumerate(one.scores)
            if score > LEAST_SCORE
        ),
        key=lambda entry: -entry[0],
    )
    clusters: list[_Cluster] = []
    for score, number, place in entries:
        box, label = members[number].corners[place], int(members[number].labels[place])
        home = _home(clusters, box, label, max_overlap)
        if home is None:
            home = _Cluster(label, box)
            clusters.append(home)
        home.take(box, score, number)
    num = len(members)
    scores = np.array(
        [np.mean(one.scores) * min(len(one.scores), num) / total for one in clusters], np.float64
    )
    order = np.argsort(-scores, kind="stable")
    return Fused(
        Candidates(
            np.array([clusters[place].box for place in order], np.float64).reshape(-1, 4),
            np.minimum(scores[order], 1.0),
            np.array([clusters[place].label for place in order], np.int64),
        ),
        np.array([len(clusters[place].members) / num for place in order], np.float64),
    )


def _home(
    clusters: Sequence[_Cluster], box: Float64s, label: int, max_overlap: float
) -> _Cluster | None:
    """The cluster of this label that a box overlaps most, if by enough."""
    same = [one for one in clusters if one.label == label]
    if not same:
        return None
    shares = overlap(box, np.stack([one.box for one in same]))
    best = int(shares.argmax())
    return same[best] if shares[best] > max_overlap else None
