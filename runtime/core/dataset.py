"""Which recorded examples are worth training on, with which label and how much weight.

Rules of this file:
  * what a person has said about an answer is a label of weight 1: the label that they have named,
    or the answer itself where they have called it right. Where they have only called it wrong,
    nobody knows what is right, and the example is left out;
  * else the answer that stood is the label, as heavy as it was likely to be right;
  * a payload goes no further than it may: what may not come along is left out and counted;
  * what was left out, and why, is part of the outcome; the same candidates give the same choice.
"""

from __future__ import annotations

import enum
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from runtime.messages import Residency

_REACH: dict[str, int] = {Residency.DEVICE: 0, Residency.REGION: 1, Residency.CLOUD: 2}


class Why(enum.StrEnum):
    """Why an example is in a dataset; the first that fits counts."""

    LABELLED = "labelled"
    DISAGREEMENT = "disagreement"
    HARD = "hard"


class LeftOut(enum.StrEnum):
    """Why an example is not."""

    RESIDENCY = "residency"
    CALLED_WRONG = "called_wrong"
    NO_LABEL = "no_label"
    UNREADABLE = "unreadable"
    OVER_LIMIT = "over_limit"


@dataclass(frozen=True, slots=True)
class Feedback:
    """What somebody has said about an answer; ``label`` counts before ``is_correct``."""

    label: int | None = None
    is_correct: bool | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A recorded example; ``label`` and ``chance`` are of the answer that stood (-1: none did).

    ``answers`` are the labels that tiers gave, upwards; ``agrees`` is what an audit said.
    """

    item: str
    wall_s: float
    residency: str
    label: int
    chance: float
    answers: tuple[int, ...] = ()
    agrees: bool | None = None
    feedback: Feedback | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """A candidate that is taken; ``weight`` lies in [0, 1]."""

    candidate: Candidate
    label: int
    weight: float
    why: Why


def choose(candidate: Candidate, reach: Residency) -> Chosen | LeftOut:
    """What to make of a candidate in a dataset that is taken as far as ``reach``."""
    # What is not understood stays where it is.
    if _REACH.get(candidate.residency, -1) < _REACH[reach]:
        return LeftOut.RESIDENCY
    said = candidate.feedback or Feedback()
    if said.label is not None:
        return _labelled(candidate, said.label)
    if said.is_correct is False:
        return LeftOut.CALLED_WRONG
    if said.is_correct:
        return _labelled(candidate, candidate.label)
    if candidate.label < 0 or not math.isfinite(candidate.chance):
        return LeftOut.NO_LABEL
    differs = candidate.agrees is False or len({*candidate.answers, candidate.label}) > 1
    weight = min(1.0, max(0.0, candidate.chance))
    why = Why.DISAGREEMENT if differs else Why.HARD
    return Chosen(candidate, candidate.label, weight, why)


def choose_all(
    candidates: Iterable[Candidate], reach: Residency, max_items: int
) -> tuple[list[Chosen], Counter[LeftOut]]:
    """At most so many, in the order in which they were recorded; and how many not, by why.

    Over the limit labelled ones come before disagreements and these before the rest, and of the
    same the newest.
    """
    left = Counter[LeftOut]()
    chosen: list[Chosen] = []
    for candidate in candidates:
        outcome = choose(candidate, reach)
        if isinstance(outcome, LeftOut):
            left[outcome] += 1
        else:
            chosen.append(outcome)
    order = list(Why)
    chosen.sort(key=lambda one: (one.candidate.wall_s, one.candidate.item), reverse=True)
    chosen.sort(key=lambda one: order.index(one.why))
    if len(chosen) > max_items:
        left[LeftOut.OVER_LIMIT] += len(chosen) - max_items
    return sorted(
        chosen[:max_items], key=lambda one: (one.candidate.wall_s, one.candidate.item)
    ), left


def _labelled(candidate: Candidate, label: int) -> Chosen | LeftOut:
    return Chosen(candidate, label, 1.0, Why.LABELLED) if label >= 0 else LeftOut.NO_LABEL
