"""Hands answers to people that no policy has chosen: to see what nobody doubted.

Rules of this file:
  * it happens after the caller has its answer, and neither delays nor fails a request;
  * so many an hour at most, whatever happens to traffic; residency holds as in the queue;
  * an answer is handed over for one reason: an audit that disagrees, then tiers that do, then a
    drift alarm, then chance.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import msgspec

from runtime.core.audit import went_as_meant
from runtime.exchange.chores import Chores
from runtime.exchange.course import Course
from runtime.exchange.reviewing import Reviewer
from runtime.messages import Answer, Tier
from runtime.ports import Clock
from runtime.review_report import Source
from runtime.review_settings import ReviewSettings
from runtime.tensors import num_examples

_HOUR_S = 3600.0
# What has not been used up may be, but no more than this much of an hour at once.
_BURST_SHARE = 0.25


class Sampler:
    """Draws answers for people at the tier where journeys begin."""

    def __init__(
        self,
        reviewer: Reviewer,
        settings: ReviewSettings,
        clock: Clock,
        *,
        has_drifted: Callable[[], bool] = lambda: False,
        chooser: random.Random | None = None,
    ) -> None:
        self._reviewer, self._settings, self._clock = reviewer, settings, clock
        self._has_drifted = has_drifted
        # Nobody gains by guessing which answer is looked at.
        self._draw = (chooser or random.Random()).random  # noqa: S311
        self._burst = max(1.0, settings.sampled_per_hour * _BURST_SHARE)
        self._left, self._at_s = self._burst, clock.monotonic_s()
        self._chores = Chores()

    def note(self, course: Course, answer: Answer) -> None:
        """An answer that goes out; it may be handed over, soon."""
        request, own = course.request, course.result
        is_ours = not request.hop and not request.audit and course.stop is None
        if not is_ours or own is None or num_examples(request.inputs) != 1:
            return
        if not went_as_meant(answer.outcome, answer.reason):
            return
        above = self._above(course, answer)
        source = self._source(differs=above is not None)
        if source is not None and self._may():
            self._hand_over(_kept(course), source, above)

    def audited(self, course: Course, tier: Tier, label: int | None) -> None:
        """An audit that disagrees with an answer; ``label`` is what the top tier says."""
        if self._settings.audits and label is not None and self._may():
            self._hand_over(course, Source.AUDIT, (tier, label))

    def kept(self, course: Course) -> Course | None:
        """What ``audited`` is to be told later; None where it is of no use."""
        return _kept(course) if self._settings.audits else None

    async def close(self) -> None:
        """Finishes what has been begun."""
        await self._chores.close()

    def _hand_over(self, course: Course, source: Source, above: tuple[Tier, int] | None) -> None:
        work = self._reviewer.samples(course, source, self._settings.sla_s, above)
        self._chores.start(work, "review.sample")

    def _source(self, *, differs: bool) -> Source | None:
        settings = self._settings
        draw = self._draw()
        if differs and draw < settings.disagreement_share:
            return Source.DISAGREEMENT
        if draw < settings.drift_share and self._has_drifted():
            return Source.DRIFT
        return Source.RANDOM if draw < settings.random_share else None

    def _above(self, course: Course, answer: Answer) -> tuple[Tier, int] | None:
        """The tier whose answer went out, where it is another label than ours."""
        own = course.result
        if own is None or answer.tier is None or answer.label is None:
            return None
        if own.confidence.label is None or own.confidence.label == answer.label:
            return None
        return answer.tier, answer.label

    def _may(self) -> bool:
        now_s = self._clock.monotonic_s()
        grown = (now_s - self._at_s) * self._settings.sampled_per_hour / _HOUR_S
        self._left, self._at_s = min(self._burst, self._left + grown), now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True


def _kept(course: Course) -> Course:
    """With copies: the caller has its answer and may use its arrays for something else."""
    inputs = {name: array.copy() for name, array in course.request.inputs.items()}
    return replace(course, request=msgspec.structs.replace(course.request, inputs=inputs))
