"""Hands answers of the top tier to people, where a review is worth its price.

Rules of this file:
  * nobody waits for a person: the answer goes out as the best so far, ``degraded`` with the reason
    ``review``; what it promises is unchanged, for it is the answer that was certified;
  * an answer says ``review`` only when its item is durably in the queue; where there is no room,
    or it cannot be known in time, the answer stands as it would without reviews, and is counted;
  * residency holds for the queue as for the tier: a payload that may not be here is not kept.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import msgspec
import structlog

from runtime.adapters.metrics import TierMetrics
from runtime.codec import encode_request
from runtime.core.escalation import Action, Decision, Settlement
from runtime.core.review import Weighed, weigh_review
from runtime.deadline import Deadline
from runtime.exchange.course import Course, Identity
from runtime.local_model import LocalResult
from runtime.manifest import ModelManifest
from runtime.messages import Outcome, Reason
from runtime.policy import Review
from runtime.ports import Clock, ReviewItem, ReviewQueue
from runtime.tensors import num_examples

# A disk that takes longer is in trouble, and a request is not to pay for that.
MAX_WAIT_S = 0.25
_log = structlog.get_logger()


class Reviewer:
    """Decides at the top tier of a policy which answers people look at."""

    def __init__(
        self,
        identity: Identity,
        queue: ReviewQueue,
        *,
        manifest: ModelManifest,
        clock: Clock,
        metrics: TierMetrics,
    ) -> None:
        self._identity, self._queue, self._manifest = identity, queue, manifest
        self._clock, self._metrics = clock, metrics

    async def reviewed(self, course: Course, until: Deadline) -> Course:
        """The course, with its answer in the review queue where that is worth it."""
        gear, own, request = course.engaged.gear, course.result, course.request
        if gear is None or gear.review is None or own is None or not self._is_asked(course):
            return course
        confidence = own.confidence
        weighed = weigh_review(gear, confidence.label, confidence.score(gear.review.score))
        if weighed is None or not weighed.is_worth_it:
            return course
        wait_s = until.remaining_ms(self._clock.monotonic_s()) / 1000
        if wait_s <= 0:
            self._metrics.count_review("unconfirmed")
            return course
        item = self._item(course, own, gear.review, weighed)
        result = await self._queue.put(item, min(wait_s, MAX_WAIT_S))
        self._metrics.count_review(result)
        if result not in ("queued", "known"):
            _log.warning("review.not_queued", request_id=request.request_id, result=result)
            return course
        as_fitted = course.decision.is_as_fitted
        return replace(
            course,
            decision=Decision(Action.ANSWER, Reason.REVIEW, Outcome.DEGRADED, (), as_fitted),
            settlement=Settlement(
                takes_upstream=False, outcome=Outcome.DEGRADED, reason=Reason.REVIEW
            ),
            review=weighed,
        )

    def _is_asked(self, course: Course) -> bool:
        """Whether it is an answer to one example that would stand, at the top of its gear."""
        request = course.request
        return (
            course.is_top
            and course.settlement.outcome is Outcome.ANSWERED
            and not request.audit
            and not request.stands
            and num_examples(request.inputs) == 1
            and request.residency.allows(self._identity.tier)
        )

    def _item(
        self,
        course: Course,
        own: LocalResult,
        review: Review,
        weighed: Weighed,
    ) -> ReviewItem:
        request, identity = course.request, self._identity
        body, header_length = encode_request(request.inputs, request_id=request.request_id)
        label = own.confidence.label or 0
        answers: list[dict[str, Any]] = [
            {"tier": tier.value, "label": said} for tier, said in request.earlier
        ]
        score = own.confidence.score(review.score)
        answers.append({"tier": identity.tier.value, "label": label, "score": score})
        policy, _, gear = course.engaged.label.partition("/")
        now_s = self._clock.wall_s()
        return ReviewItem(
            item=hashlib.blake2b(body, digest_size=8).hexdigest(),
            request_id=request.request_id,
            wall_s=now_s,
            due_s=now_s + review.latency_ms / 1000,
            tier=identity.tier.value,
            site=identity.site,
            region=identity.region,
            model=self._manifest.name,
            model_version=self._manifest.version,
            policy=policy,
            gear=gear,
            label=label,
            label_name=self._manifest.labels[label],
            confidence=own.confidence.probability,
            chance=weighed.chance,
            answers=msgspec.json.encode(answers).decode(),
            residency=request.residency.value,
            header_length=header_length,
            body=body,
        )
