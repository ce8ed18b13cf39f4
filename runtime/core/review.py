"""Whether a person is asked about the top tier's answer: where that is worth its price.

The rule is that of every other step of a gear: the gain in accuracy has to be more than the priced
cost. The gain is what people are right more often than the top tier is, for this label and score.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass

from runtime.policy import Gear, Review


@dataclass(frozen=True, slots=True)
class Weighed:
    """What a review wins and costs; ``chance`` is that of the top tier's answer to be right."""

    chance: float
    gain: float
    cost: float
    value: float

    @property
    def is_worth_it(self) -> bool:
        """Whether a person is asked."""
        return self.value > 0


def weigh_review(gear: Gear, label: int | None, score: float) -> Weighed | None:
    """What a review of an answer is worth; None where there is none: no review, or no label.

    A score that is not finite counts as least sure.
    """
    review = gear.review
    if review is None or label is None or not 0 <= label < len(review.rows):
        return None
    row = review.rows[label]
    cell = 0 if not math.isfinite(score) else bisect_right(review.edges[row], score)
    return _weighed(gear, review, row, cell)


def stands_from(gear: Gear, label: int | None) -> float | None:
    """The least score from which on nobody is asked about this label, None: asked at any score."""
    review = gear.review
    if review is None or label is None or not 0 <= label < len(review.rows):
        return None
    row = review.rows[label]
    edges = review.edges[row]
    asked = [cell for cell in range(len(edges) + 1) if _weighed(gear, review, row, cell).value > 0]
    last = max(asked, default=len(edges))
    return edges[last] if last < len(edges) else None


def _weighed(gear: Gear, review: Review, row: int, cell: int) -> Weighed:
    chance = review.chance[row][cell]
    gain = review.accuracy - chance
    return Weighed(chance, gain, review.price, gain - gear.penalty * review.price)
