"""Stops at which a gear averages: how much the probabilities of each tier count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

# A score of these kinds can be had of any probabilities; energy and agreement are of one model.
AVERAGED_SCORES = ("probability", "margin", "entropy")
# Weights are written down as decimal numbers.
TOLERANCE = 1e-6
# What is sent with a request stays small.
MAX_CLASSES = 64


class Average(msgspec.Struct, frozen=True):
    """What the last of ``tiers`` decides and answers on: a weighted mean of their probabilities."""

    tiers: Annotated[tuple[str, ...], msgspec.Meta(min_length=2, max_length=6)]
    weights: Annotated[tuple[float, ...], msgspec.Meta(min_length=2, max_length=6)]


def check_averages(averages: Sequence[Average], tiers: tuple[str, ...], num_labels: int) -> None:
    """Refuses averages that contradict their policy, or one another.

    Raises:
        ValueError: says which.
    """
    stops = [average.tiers for average in averages]
    if len(set(stops)) != len(stops):
        raise ValueError("two averages for the same tiers")
    if averages and num_labels > MAX_CLASSES:
        raise ValueError(f"averages of {num_labels} classes; at most {MAX_CLASSES} can be")
    for average in averages:
        if [tier for tier in tiers if tier in average.tiers] != list(average.tiers):
            raise ValueError(f"an average of {average.tiers} in a policy of {tiers}")
        if average.tiers[0] != tiers[0]:
            raise ValueError(f"an average of {average.tiers}: every request begins at {tiers[0]}")
        if len(average.weights) != len(average.tiers):
            raise ValueError(f"{len(average.weights)} weights for {len(average.tiers)} tiers")
        # A sum of what is not finite is not near 1, either.
        if min(average.weights) < 0 or not abs(sum(average.weights) - 1) <= TOLERANCE:
            raise ValueError("the weights of an average are negative or do not sum to 1")
