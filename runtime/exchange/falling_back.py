"""What is done where no answer stands: the last resorts of the policy, in their order.

Rules of this file:
  * it is asked once a request, at the tier where its journey begins, when all else is over: a
    climb that failed, a model that broke or is left out, an answer that is too unsure to give;
  * a resort that has nothing to give leaves it to the next; after the last one what is in hand is
    withheld, and a failure stays a failure;
  * nothing that a resort gives keeps a promise: what was fitted has not happened.
"""

from __future__ import annotations

from dataclasses import replace

from runtime.adapters.metrics import TierMetrics
from runtime.core.escalation import Settlement
from runtime.core.gearbox import Gearbox
from runtime.deadline import Deadline
from runtime.exchange.context import context_of
from runtime.exchange.course import Course, FellBack
from runtime.exchange.reviewing import Reviewer
from runtime.exchange.ruling import one_hot
from runtime.manifest import ModelManifest
from runtime.messages import Outcome, Reason
from runtime.policy_rules import Resort
from runtime.tensors import num_examples

_BY_RULE = Settlement(takes_upstream=False, outcome=Outcome.DEGRADED, reason=Reason.RULE)


class LastResorts:
    """Follows a policy's ``fallback``; without one a course is left as it is."""

    def __init__(
        self,
        gearbox: Gearbox,
        manifest: ModelManifest,
        metrics: TierMetrics,
        reviewer: Reviewer | None,
    ) -> None:
        self._gearbox, self._manifest = gearbox, manifest
        self._metrics, self._reviewer = metrics, reviewer

    async def fallen_back(self, course: Course, until: Deadline) -> Course:
        """The course, with what the first resort that has anything gives where no answer stands."""
        if not self._gearbox.fallback or not self._is_lost(course):
            return course
        for resort in self._gearbox.fallback:
            found = await self._try(resort, course, until)
            if found is not None:
                self._metrics.count_fallback(resort)
                return found
        self._metrics.count_fallback("none")
        settlement = course.settlement
        if settlement.outcome is Outcome.FAILED:
            return course
        return _withheld(course, "")

    def _is_lost(self, course: Course) -> bool:
        request, settlement = course.request, course.settlement
        is_ours = self._gearbox.begins(request.hop) and not request.audit
        is_reviewed = settlement.reason is Reason.REVIEW
        return is_ours and settlement.outcome is not Outcome.ANSWERED and not is_reviewed

    async def _try(self, resort: Resort, course: Course, until: Deadline) -> Course | None:
        """What a resort makes of it; None when it has nothing."""
        match resort:
            case "lower":
                return course if course.settlement.outcome is Outcome.DEGRADED else None
            case "rules":
                return self._by_rule(course)
            case "review":
                return await self._to_review(course, until)
            case "abstain":
                return _withheld(course, resort)

    def _by_rule(self, course: Course) -> Course | None:
        request = course.request
        verdict = self._gearbox.fallback_rules.decide(request.inputs, context_of(request))
        for name in verdict.unusable:
            self._metrics.count_unusable_rule_value(name)
        ruling = verdict.ruling
        if ruling is None:
            return None
        self._metrics.count_rule(ruling.rule)
        given = one_hot(self._manifest, ruling.label or 0, num_examples(request.inputs))
        return replace(
            course, settlement=_BY_RULE, given=given, fell_back=FellBack("rules", ruling)
        )

    async def _to_review(self, course: Course, until: Deadline) -> Course | None:
        if self._reviewer is None or not await self._reviewer.takes(course, until):
            return None
        is_given = course.settlement.outcome is Outcome.DEGRADED
        outcome = Outcome.DEGRADED if is_given else Outcome.ABSTAINED
        settlement = Settlement(
            takes_upstream=course.settlement.takes_upstream and is_given,
            outcome=outcome,
            reason=Reason.REVIEW,
        )
        return replace(course, settlement=settlement, fell_back=FellBack("review"))


def _withheld(course: Course, resort: str) -> Course:
    settlement = replace(course.settlement, takes_upstream=False, outcome=Outcome.ABSTAINED)
    return replace(course, settlement=settlement, fell_back=FellBack(resort))
