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
from runtime.core.review import weigh_review
from runtime.deadline import Deadline
from runtime.exchange.course import Course, Identity
from runtime.local_model import LocalResult
from runtime.manifest import ModelManifest
from runtime.messages import Outcome, Reason, Tier
from runtime.ports import Clock, ReviewItem, ReviewQueue
from runtime.review_report import Source
from runtime.tensors import num_examples

# A disk that takes longer is in trouble, and a request is not to pay for that.
MAX_WAIT_S = 0.25
# Within a day: no gear says how soon people look at what is left over.
LAST_RESORT_MS = 86_400_000.0
# Of an item that no model has answered.
NO_LABEL = -1
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
        gear, own = course.engaged.gear, course.result
        if gear is None or gear.review is None or own is None or not self._is_asked(course):
            return course
        confidence = own.confidence
        weighed = weigh_review(gear, confidence.label, confidence.score(gear.review.score))
        if weighed is None or not weighed.is_worth_it:
            return course
        score, latency_ms = confidence.score(gear.review.score), gear.review.latency_ms
        item = self._item(
            course,
            own,
            score=score,
            chance=weighed.chance,
            latency_ms=latency_ms,
            source=Source.POLICY,
        )
        if not await self._is_queued(item, until):
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

    async def takes(self, course: Course, until: Deadline) -> bool:
        """Whether a request that has no answer that stands is durably in the queue now."""
        own, request = course.result, course.request
        if num_examples(request.inputs) != 1 or not request.residency.allows(self._identity.tier):
            return False
        chance = own.confidence.probability if own and own.confidence.is_valid else 0.0
        item = self._item(
            course,
            own,
            score=None,
            chance=chance,
            latency_ms=LAST_RESORT_MS,
            source=Source.LAST_RESORT,
        )
        return await self._is_queued(item, until)

    async def samples(
        self, course: Course, source: Source, sla_s: float, above: tuple[Tier, int] | None = None
    ) -> bool:
        """Whether an answer that nobody doubted is in the queue now; ``above`` says otherwise."""
        own = course.result
        if num_examples(course.request.inputs) != 1 or own is None or not own.confidence.is_valid:
            return False
        item = self._item(
            course,
            own,
            score=None,
            chance=own.confidence.probability,
            latency_ms=sla_s * 1000,
            source=source,
        )
        if above is not None:
            tier, label = above
            answers = msgspec.json.decode(item.answers)
            answers.append({"tier": tier.value, "label": label})
            item = replace(item, answers=msgspec.json.encode(answers).decode())
        result = await self._queue.put(item, MAX_WAIT_S)
        self._metrics.count_review(result)
        return result in ("queued", "known")

    async def _is_queued(self, item: ReviewItem, until: Deadline) -> bool:
        wait_s = until.remaining_ms(self._clock.monotonic_s()) / 1000
        if wait_s <= 0:
            self._metrics.count_review("unconfirmed")
            return False
        result = await self._queue.put(item, min(wait_s, MAX_WAIT_S))
        self._metrics.count_review(result)
        if result in ("queued", "known"):
            return True
        _log.warning("review.not_queued", request_id=item.request_id, result=result)
        return False

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
        own: LocalResult | None,
        *,
        score: float | None,
        chance: float,
        latency_ms: float,
        source: Source,
    ) -> ReviewItem:
        request, identity = course.request, self._identity
        body, header_length = encode_request(request.inputs, request_id=request.request_id)
        valid = own.confidence if own is not None and own.confidence.is_valid else None
        label = NO_LABEL if valid is None else valid.label or 0
        answers: list[dict[str, Any]] = [
            {"tier": tier.value, "label": said} for tier, said in request.earlier
        ]
        if valid is not None:
            said = {"tier": identity.tier.value, "label": label}
            answers.append(said if score is None else {**said, "score": score})
        policy, _, gear = course.engaged.label.partition("/")
        now_s = self._clock.wall_s()
        return ReviewItem(
            item=hashlib.blake2b(body, digest_size=8).hexdigest(),
            request_id=request.request_id,
            wall_s=now_s,
            due_s=now_s + latency_ms / 1000,
            tier=identity.tier.value,
            site=identity.site,
            region=identity.region,
            model=self._manifest.name,
            model_version=self._manifest.version,
            policy=policy,
            gear=gear,
            label=label,
            label_name="" if valid is None else self._manifest.labels[label],
            confidence=0.0 if valid is None else valid.probability,
            chance=chance,
            answers=msgspec.json.encode(answers).decode(),
            residency=request.residency.value,
            header_length=header_length,
            body=body,
            source=source.value,
            labels=self._manifest.labels,
        )
