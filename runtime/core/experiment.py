"""A/B tests, and those of more arms: who gets which arm, and when the question is answered.

Rules of this file:
  * the arm depends on experiment and key alone, whoever asks; experiments are independent of one
    another, and raising an arm's weight only brings keys to it (weighted rendezvous hashing);
  * one may look at any time: all intervals hold at all times at once, and the chance of a wrong
    word on any metric of any arm is ``alpha`` in all;
  * an arm wins on the primary metric against every other one, and only if no guardrail can be worse
    than allowed. A broken guardrail is said first;
  * where arms did not get the traffic that they were meant to get, nothing else is said: whatever
    lost the requests has chosen which ones;
  * where each unit has been in both arms of two, they are compared within units (``paired``), which
    takes out all that units differ by; the shares of units say nothing about the split then;
  * metrics are values from 0 to 1; larger is better unless it says otherwise.
"""

from __future__ import annotations

import enum
import itertools
import math
from collections.abc import Mapping, Sequence

import msgspec

from runtime.core.cohorts import draw
from runtime.core.confidence_sequence import (
    Interval,
    Moments,
    difference_of,
    mean_of,
    paired_of,
)

# A split is called broken by accident once in so many experiments.
_SPLIT_ODDS = 10_000.0


class Arm(msgspec.Struct, frozen=True):
    """One thing that is tried; ``weight`` is relative to the other arms."""

    name: str
    weight: float = 1.0


class Goal(msgspec.Struct, frozen=True, omit_defaults=True):
    """A metric; ``allowed`` is how much worse than the control a guardrail may be."""

    name: str
    larger_is_better: bool = True
    allowed: float = 0.01


class Experiment(msgspec.Struct, frozen=True):
    """What is asked. The first arm is the control.

    Arms whose primary means differ by less than ``least_difference`` are the same for all that
    matters. Nothing is said before each arm has ``min_num`` observations, and after ``max_num`` in
    an arm the question is given up. Intervals are narrowest near ``min_num`` times ten.

    Raises:
        ValueError: there is nothing to compare, or a number is out of its range.
    """

    id: str
    arms: tuple[Arm, ...]
    primary: Goal
    guardrails: tuple[Goal, ...]
    alpha: float = 0.05
    least_difference: float = 0.005
    min_num: int = 300
    max_num: int = 1_000_000

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        if len(names) < 2 or len(set(names)) < len(names):  # noqa: PLR2004
            raise ValueError("an experiment has two arms or more, each with a name of its own")
        if not all(0 < arm.weight < math.inf for arm in self.arms):
            raise ValueError("the weight of an arm is a positive number; leave out what has none")
        goals = [goal.name for goal in (self.primary, *self.guardrails)]
        if not self.guardrails or len(set(goals)) < len(goals):
            raise ValueError("one metric is never enough: name guardrails beside the primary one")
        if not 0 < self.alpha < 1 or not 0 < self.least_difference < 1:
            raise ValueError("alpha and the least difference are between 0 and 1")
        if not all(0 <= goal.allowed < 1 for goal in self.guardrails):
            raise ValueError("how much worse a guardrail may be is from 0 to below 1")
        if not 1 < self.min_num <= self.max_num:
            raise ValueError("1 < min_num <= max_num does not hold")


class Outcome(enum.StrEnum):
    """What an experiment says."""

    KEEP_RUNNING = "keep_running"
    WINS = "wins"
    NO_DIFFERENCE = "no_difference"
    GUARDRAIL_BROKEN = "guardrail_broken"
    SPLIT_BROKEN = "split_broken"


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The outcome, of which arm and metric, with the intervals that people may look at.

    ``means`` are by arm and metric; ``gains`` are the arm's primary mean less the control's, with
    the sign turned where smaller is better.
    """

    outcome: Outcome
    why: str
    arm: str = ""
    metric: str = ""
    means: dict[str, dict[str, Interval]] = {}
    gains: dict[str, Interval] = {}


Kept = Mapping[str, Mapping[str, Moments]]


def arm_of(experiment: Experiment, key: str) -> str:
    """The arm of a caller's key: a device, a user, a session.

    Each arm draws from the key, and the least waiting time at the rate of its weight wins.
    """
    return min(
        experiment.arms,
        key=lambda arm: -math.log1p(-draw(experiment.id, arm.name, key)) / arm.weight,
    ).name


def noted(kept: Kept, arm: str, values: Mapping[str, float]) -> dict[str, dict[str, Moments]]:
    """With what was seen of one request: a value for each metric that is known of it.

    Raises:
        ValueError: a value is not a number from 0 to 1.
    """
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}; scale it to values from 0 to 1")
    metrics = dict(kept.get(arm, {}))
    for name, value in values.items():
        metrics[name] = metrics.get(name, Moments()).plus(value)
    return {**{one: dict(of) for one, of in kept.items()}, arm: metrics}


def answer(
    experiment: Experiment,
    kept: Kept,
    sizes: Mapping[str, int] | None = None,
    paired: Mapping[str, Moments] | None = None,
) -> Answer:
    """What is known now; ask as often as you like.

    Args:
        experiment: what is asked.
        kept: of each arm and metric.
        sizes: how many keys (or requests, where a key has one) each arm was given; without them
            the split is not checked.
        paired: of two arms, by metric, the second's value less the control's of the same unit;
            without it units are in one arm each.

    Raises:
        ValueError: pairs of more than two arms.
    """
    if paired is not None and len(experiment.arms) > 2:  # noqa: PLR2004
        raise ValueError("pairs are of two arms")
    seen = _Seen(experiment, kept, paired)
    if sizes is not None and log_odds_of_split(experiment, sizes) > math.log(_SPLIT_ODDS):
        return seen.says(Outcome.SPLIT_BROKEN, "arms did not get the shares they were meant to get")
    if seen.least < experiment.min_num:
        return seen.says(
            Outcome.KEEP_RUNNING, f"{seen.least} of {experiment.min_num} observations in an arm"
        )
    return (
        seen.broken()
        or seen.winner()
        or seen.given_up()
        or seen.says(Outcome.KEEP_RUNNING, "neither a difference nor its absence is sure yet")
    )


class _Seen:
    """Everything kept, and what follows; ``alpha`` is divided among all comparisons."""

    def __init__(
        self, experiment: Experiment, kept: Kept, paired: Mapping[str, Moments] | None = None
    ) -> None:
        self._experiment, self._kept, self._paired = experiment, kept, paired
        self._names = [arm.name for arm in experiment.arms]
        self._goals = (experiment.primary, *experiment.guardrails)
        num = len(self._names)
        # Primary: each pair; guardrails: each arm against the control.
        comparisons = num * (num - 1) // 2 + len(experiment.guardrails) * (num - 1)
        self._alpha = experiment.alpha / comparisons
        self.least = min(self._of(name, goal).num for name in self._names for goal in self._goals)
        self.most = max(self._of(name, experiment.primary).num for name in self._names)

    def _of(self, arm: str, goal: Goal) -> Moments:
        return self._kept.get(arm, {}).get(goal.name, Moments())

    def _gain(self, arm: str, other: str, goal: Goal) -> Interval:
        """How much better an arm is than another."""
        first, second = (arm, other) if goal.larger_is_better else (other, arm)
        if self._paired is not None:
            apart = paired_of(self._paired.get(goal.name, Moments()), self._alpha, self._best_at)
            is_control_first = first == self._names[0]
            return Interval(-apart.high, -apart.low) if is_control_first else apart
        return difference_of(
            self._of(first, goal), self._of(second, goal), self._alpha, self._best_at
        )

    @property
    def _best_at(self) -> float:
        return 10.0 * self._experiment.min_num

    def says(self, outcome: Outcome, why: str, arm: str = "", metric: str = "") -> Answer:
        control = self._names[0]
        return Answer(
            outcome,
            why,
            arm,
            metric,
            means={
                name: {
                    goal.name: mean_of(self._of(name, goal), self._alpha, self._best_at)
                    for goal in self._goals
                }
                for name in self._names
            },
            gains={
                name: self._gain(name, control, self._experiment.primary)
                for name in self._names[1:]
            },
        )

    def broken(self) -> Answer | None:
        control, *others = self._names
        for name, goal in itertools.product(others, self._experiment.guardrails):
            gain = self._gain(name, control, goal)
            if gain.high < -goal.allowed:
                why = f"{goal.name} of {name} is worse by {-gain.high:.4f} at least"
                return self.says(Outcome.GUARDRAIL_BROKEN, why, name, goal.name)
        return None

    def winner(self) -> Answer | None:
        goal, control = self._experiment.primary, self._names[0]
        for name in self._names:
            least = min(self._gain(name, other, goal).low for other in self._names if other != name)
            is_safe = name == control or all(
                self._gain(name, control, one).low >= -one.allowed
                for one in self._experiment.guardrails
            )
            if least > 0 and is_safe:
                why = f"{goal.name} of {name} is better than of every other arm, by {least:.4f}"
                return self.says(Outcome.WINS, f"{why} at least", name, goal.name)
        return None

    def given_up(self) -> Answer | None:
        goal, limit = self._experiment.primary, self._experiment.least_difference
        gains = [self._gain(a, b, goal) for a, b in itertools.combinations(self._names, 2)]
        if all(-limit < gain.low and gain.high < limit for gain in gains):
            why = f"all arms are within {limit:g} of one another in {goal.name}"
            return self.says(Outcome.NO_DIFFERENCE, why, metric=goal.name)
        if self.most >= self._experiment.max_num:
            why = f"no difference was found in {self.most} observations"
            return self.says(Outcome.NO_DIFFERENCE, why, metric=goal.name)
        return None


def log_odds_of_split(experiment: Experiment, sizes: Mapping[str, int]) -> float:
    """How much more likely a broken split makes these sizes; above log(1 / alpha) it is broken.

    The Dirichlet-multinomial e-process of Lindon and Malek, "Anytime-valid inference for
    multinomial count data" (NeurIPS, 2022), with a prior that is worth 100 keys.
    """
    counts = [max(0, sizes.get(arm.name, 0)) for arm in experiment.arms]
    shares = _shares(experiment.arms)
    prior = [100.0 * share for share in shares]
    total = math.lgamma(sum(prior)) - math.lgamma(sum(prior) + sum(counts))
    for num, before, share in zip(counts, prior, shares, strict=True):
        total += math.lgamma(before + num) - math.lgamma(before) - num * math.log(share)
    return total


def _shares(arms: Sequence[Arm]) -> list[float]:
    whole = sum(arm.weight for arm in arms)
    return [arm.weight / whole for arm in arms]
