"""Tells the live control what happens at the tier where journeys begin, and others what it says."""

from __future__ import annotations

import math

import structlog

from runtime.adapters.metrics import TierMetrics
from runtime.core.ladder import step_of
from runtime.core.live import AS_IT_WAS_FITTED, LiveControl, Standing
from runtime.core.seen import parse_seen
from runtime.errors import OverloadedError, TooLateError
from runtime.exchange.course import Course
from runtime.exchange.uplink import UpstreamReply
from runtime.messages import Answer, InferenceRequest, Outcome, Reason, Tier
from runtime.policy import Policy
from runtime.ports import AuditRecord, Clock
from runtime.tensors import num_examples

_TOO_MUCH = (OverloadedError.code, TooLateError.code)
_log = structlog.get_logger()


class Pilot:
    """Live control of one process; one that is no lowest tier of a policy has none.

    Audits and requests that come from below are never noted: the tier that they come from does.
    """

    def __init__(
        self,
        tier: Tier,
        policy: Policy | None,
        *,
        audit_rate: float,
        clock: Clock,
        metrics: TierMetrics,
    ) -> None:
        self._tier, self._clock, self._metrics = tier, clock, metrics
        # What the metrics say; setting them costs more than comparing.
        self._shown: tuple[int, float, float | None, float | None] | None = None
        is_lowest = policy is not None and policy.tiers[0] == tier.value
        self.live = LiveControl(policy, audit_rate=audit_rate) if policy and is_lowest else None

    @property
    def has_drifted(self) -> bool:
        """Whether a drift alarm is on."""
        live = self.live
        return live is not None and live.drift is not None and live.drift.depth > 0

    def standing(self, request: InferenceRequest) -> Standing:
        """What holds for a request."""
        if self.live is None or request.hop:
            return AS_IT_WAS_FITTED
        return self.live.standing(self._clock.monotonic_s(), request.residency)

    def note(self, course: Course, answer: Answer, audit_chance: float) -> None:
        """A request that was answered here; ``audit_chance`` is 0 where no audit could be drawn."""
        request = course.request
        if self.live is None or request.audit or request.hop or num_examples(request.inputs) != 1:
            return
        self._note_score(self.live, course)
        if course.reply is not None:
            self._note_reply(self.live, course.reply, course.decision.route)
        if answer.outcome is Outcome.ANSWERED:
            seen = course.seen(self._tier)
            top = seen.get(self.live.top.value)
            self.live.note_answer(
                course.engaged.label.partition("/")[2],
                disagrees=None if top is None else top.label != answer.label,
                is_auditable=audit_chance > 0,
                seen=seen,
            )
        self._show(self.live, course)

    def note_audit(self, audited: AuditRecord, before: str) -> None:
        """An audit that ended; ``before`` is what had been seen with the answer."""
        live = self.live
        # What the top tier said at once has been noted with the answer.
        if live is None or live.top.value in parse_seen(before):
            return
        if live.note_audit(
            audited.gear, audited.chance, agrees=audited.agrees, seen=parse_seen(audited.seen)
        ):
            self._metrics.count_drift_alarm("audits")
            _log.warning(
                "policy.outdated",
                remedy="answers differ from the top tier's more often than the policy promises; "
                "label recent requests, `tierwise policy collect` and `fit` again",
            )

    def _note_score(self, live: LiveControl, course: Course) -> None:
        if live.score_kind is None or course.result is None:
            return
        confidence = course.result.confidence
        score = confidence.score(live.score_kind) if confidence.is_valid else -math.inf
        if not live.note_score(score) or live.drift is None:
            return
        depth, p_value = live.drift.depth, live.drift.p_value
        if depth:
            self._metrics.count_drift_alarm("scores")
            _log.warning("drift.found", steps_safer=depth, p_value=p_value)
        else:
            _log.info("drift.ended", p_value=p_value)

    def _note_reply(self, live: LiveControl, reply: UpstreamReply, route: tuple[Tier, ...]) -> None:
        if reply.elapsed_ms is None:
            return
        now_s = self._clock.monotonic_s()
        if reply.answer is not None and reply.answer.error_code in _TOO_MUCH:
            live.load.note_refused(now_s)
        elif reply.answer is not None:
            live.load.note_reply(now_s, reply.elapsed_ms, reply.answer.hops)
        elif reply.reason is Reason.UPSTREAM_TIMEOUT:
            live.load.note_lost(now_s, reply.elapsed_ms, route[-1] if route else None)

    def _show(self, live: LiveControl, course: Course) -> None:
        p_value = live.drift.p_value if live.drift else None
        shown = step_of(course.engaged.label), live.steering.tau, live.load.ratio, p_value
        if shown != self._shown:
            self._shown = shown
            step, steering, load, score_p = shown
            self._metrics.set_live(step=step, steering=steering, load=load, score_p=score_p)
