"""Fits when a person is asked: the top tier's chance to be right, by label and score.

Learned on the training examples whose answer is the top tier's under the gear, for those are harder
than all; on all examples where they are too few. What would be reviewed is counted on calibration.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import msgspec
import numpy as np

from model_zoo.policies.journeys import Itinerary
from model_zoo.policies.stages import Bools, Journeys, Stage
from model_zoo.policies.tables import Floats, Grid, Ints, Placed, label_rows
from runtime.errors import PolicyError
from runtime.policy import Gear, Review

# Fewer that reach the top say too little about its labels.
MIN_REACHED = 200
MS_PER_S = 1000


@dataclass(frozen=True, slots=True)
class ReviewTerms:
    """What a person costs, in the unit of the tiers' prices, takes, and is worth."""

    price: float
    latency_s: float = 3600.0
    accuracy: float = 0.98


def with_review(gear: Gear, terms: ReviewTerms, train: Stage, held: Stage) -> Gear:
    """The gear with reviews, and its promise with the share of requests that go to people.

    A gear whose unit of cost has no price in accuracy gets none: everything would be worth it.

    Raises:
        PolicyError: the top tier has scores that are not finite.
    """
    if not gear.penalty > 0:
        return gear
    predictions = train.predictions
    top = len(predictions.tiers) - 1
    if not np.isfinite(predictions.score[top]).all():
        raise PolicyError(
            f"{predictions.source}: scores of {predictions.tiers[top]} are not finite, so nobody "
            "can be asked to review the least sure of its answers"
        )
    reached = np.flatnonzero(_reaches_top(_followed(gear, train), top))
    learned = train.take(reached) if len(reached) >= MIN_REACHED else train
    review = _fit(learned, terms, top)
    gear = msgspec.structs.replace(gear, review=review)
    share = reviewed_share(gear, held, _followed(gear, held))
    promise = msgspec.structs.replace(gear.promise, reviewed=share)
    return msgspec.structs.replace(gear, promise=promise)


def reviewed_share(gear: Gear, stage: Stage, ends: Journeys) -> float:
    """The share of examples whose answer a person is to look at."""
    review = gear.review
    if review is None:
        return 0.0
    top = len(stage.price) - 1
    sizes = [len(edges) + 1 for edges in review.edges]
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    grid = Grid(tuple(np.asarray(edges) for edges in review.edges), starts)
    predictions = stage.predictions.using({stage.predictions.tiers[top]: review.score})
    rows: Ints = np.asarray(review.rows, np.int64)[predictions.predicted[top]]
    chance: Floats = np.concatenate([np.asarray(row) for row in review.chance])
    gain = review.accuracy - chance[grid.cells(rows, predictions.score[top])]
    asked = _reaches_top(ends, top) & (gain - gear.penalty * review.price > 0)
    return float(asked.mean())


def _followed(gear: Gear, stage: Stage) -> Journeys:
    predictions = stage.predictions
    return Itinerary.of(gear, predictions.tiers, predictions.label_names).follow(stage)


def _reaches_top(ends: Journeys, top: int) -> Bools:
    reaches: Bools = ends.answered_by == top
    return reaches


def _fit(stage: Stage, terms: ReviewTerms, top: int) -> Review:
    predictions = stage.predictions
    predicted, scores = predictions.predicted[top], predictions.score[top]
    rows = label_rows(predicted, len(predictions.label_names))
    of_examples = rows[predicted]
    grid = Grid.fit(of_examples, scores, int(rows.max()) + 1)
    placed = Placed.of(grid, of_examples, scores)
    # What falls with the score is the chance to be wrong.
    wrong = placed.expectation(1 - stage.correct[top], falls=True)
    chance = np.clip(1 - wrong, 0, 1).tolist()
    return Review(
        price=terms.price / float(predictions.price[-1]),
        latency_ms=terms.latency_s * MS_PER_S,
        accuracy=terms.accuracy,
        rows=tuple(rows.tolist()),
        edges=tuple(tuple(edges.tolist()) for edges in grid.edges),
        chance=tuple(
            tuple(chance[start:end]) for start, end in itertools.pairwise(grid.starts.tolist())
        ),
        score=predictions.kind_at(top),
    )
