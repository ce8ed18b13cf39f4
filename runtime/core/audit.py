"""Which answers are audited, with what chance, and what audits say about the rest.

An audit asks all tiers about a request whose answer stood without asking them. It is drawn by
chance, so that the few speak for all: each counts with the inverse of its chance (Horvitz and
Thompson, 1952). Rules of this file:
  * the chance depends on the answer and on what came before, never on the draw or what follows;
  * an unsure answer is drawn more often, because there the tiers above say something new: in
    proportion to ``sqrt(1 - confidence)``, half of it; the other half is for all alike, so that no
    audit counts for more than twice the average;
  * a request that could not be audited has the chance 0, whatever the draw said.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from runtime.core.escalation import Action, Decision
from runtime.messages import Outcome, Reason, Residency, Tier

# The mean of sqrt(1 - confidence) that is assumed at the start, as if it had been seen ten times:
# that of answers with a confidence of 0.94.
START_UNSURENESS = 0.25
START_WEIGHT = 10
# The mean follows traffic over about this many answers.
HORIZON = 10_000
# Where all answers have been sure a mean of nearly 0 would audit the first that is not for certain.
MIN_UNSURENESS = 1e-3
# Requests that the estimate of the loss looks back on.
LOSS_WINDOW = 10_000
MIN_WEIGHT = 0.5


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """``rate`` is the mean chance, 0 for none; ``budget_ms`` what an audit may take."""

    rate: float = 0.01
    budget_ms: float = 2000.0
    max_in_progress: int = 2


@dataclass(frozen=True, slots=True)
class Draw:
    """The chance to be audited, and what was drawn.

    ``is_skipped`` says that it would have been drawn, and that there was no place.
    """

    chance: float = 0.0
    is_drawn: bool = False
    is_skipped: bool = False


NOT_DRAWN = Draw()


def went_as_meant(outcome: Outcome, reason: Reason) -> bool:
    """Whether an answer came about as its policy meant: it stands, or only a person may better it.

    What is degraded for any other reason is what was left after something had gone wrong.
    """
    return outcome is Outcome.ANSWERED or (outcome is Outcome.DEGRADED and reason is Reason.REVIEW)


def is_auditable(
    decision: Decision,
    outcome: Outcome,
    *,
    seen: Iterable[str],
    residency: Residency,
    route: tuple[Tier, ...],
) -> bool:
    """Whether an answer stood without all tiers, and its payload may go to all an audit asks.

    ``seen`` are the tiers that have answered, by name.
    """
    stood = decision.action is Action.ESCALATE or decision.reason is Reason.CONFIDENT
    is_known = {tier.value for tier in route} <= set(seen)
    may_go = bool(route) and all(residency.allows(tier) for tier in route)
    return stood and outcome is Outcome.ANSWERED and may_go and not is_known


class AuditDraws:
    """Draws audits; ``chooser`` is the only source of chance."""

    def __init__(self, settings: AuditSettings, chooser: random.Random) -> None:
        self._settings, self._chooser = settings, chooser
        self._mean = START_UNSURENESS
        self._num = START_WEIGHT

    def draw(self, confidence: float, *, can_ask: bool, num_in_progress: int) -> Draw:
        """Draws for one answer that is auditable.

        Args:
            confidence: of the answer, calibrated; what is no probability counts as unsure.
            can_ask: whether an audit could be sent at all, as the link is now.
            num_in_progress: audits that are on their way.
        """
        chance = self._chance(confidence)
        if not can_ask or not chance > 0:
            return NOT_DRAWN
        is_hit = self._chooser.random() < chance
        if num_in_progress >= self._settings.max_in_progress:
            return Draw(is_skipped=is_hit)
        return Draw(chance, is_drawn=is_hit)

    def _chance(self, confidence: float) -> float:
        """The chance of this answer, by the mean of those before it; then it joins the mean."""
        unsureness = math.sqrt(1 - confidence) if 0 <= confidence <= 1 else 1.0
        share = 0.5 + 0.5 * unsureness / max(self._mean, MIN_UNSURENESS)
        self._num = min(self._num + 1, HORIZON)
        self._mean += (unsureness - self._mean) / self._num
        return min(1.0, self._settings.rate * share)


class LossEstimate:
    """The share of the answers that stood which the top tier disagrees with.

    Over the latest ``window`` answers that could have been audited. Audits that did not come back
    are taken to be like those that did.
    """

    def __init__(self, window: int = LOSS_WINDOW) -> None:
        self._window = window
        self._num = 0
        # Number of the request at the time, weight, weight if it came back, weight if it disagreed.
        self._audits: deque[tuple[int, float, float, float]] = deque()
        self._drawn = self._back = self._against = 0.0

    def note_request(self) -> None:
        """An answer that could have been audited."""
        self._num += 1
        while self._audits and self._audits[0][0] <= self._num - self._window:
            _, weight, back, against = self._audits.popleft()
            self._add(-weight, -back, -against)
        if not self._audits:
            # Whatever rounding has left of the sums.
            self._drawn = self._back = self._against = 0.0

    def note_audit(self, chance: float, *, agrees: bool | None) -> None:
        """An audit that ended; None when it did not come back."""
        weight = 1 / chance
        came_back = 0.0 if agrees is None else weight
        against = weight if agrees is False else 0.0
        self._audits.append((self._num, weight, came_back, against))
        self._add(weight, came_back, against)

    def _add(self, drawn: float, back: float, against: float) -> None:
        self._drawn += drawn
        self._back += back
        self._against += against

    @property
    def value(self) -> float | None:
        """The estimate, 0 to 1; None before any audit came back."""
        # Weights are at least 1; anything less is rounding.
        if self._back < MIN_WEIGHT or not self._num:
            return None
        share = self._against / min(self._num, self._window) * (self._drawn / self._back)
        return min(1.0, max(0.0, share))
