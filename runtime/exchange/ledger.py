"""The end of every request at a tier: its answer, counted and written down once."""

from __future__ import annotations

import msgspec

from runtime.adapters.metrics import TierMetrics
from runtime.core.audit import NOT_DRAWN
from runtime.core.tracing import sampled_trace_id
from runtime.deadline import Deadline
from runtime.exchange.auditing import Auditor
from runtime.exchange.climbing import Climbing
from runtime.exchange.correcting import CorrectionDesk
from runtime.exchange.course import Course, Identity, compose, record
from runtime.exchange.explaining import explained
from runtime.exchange.halting import Halting
from runtime.exchange.handing_over import HandingOver
from runtime.exchange.overriding import Overrider
from runtime.exchange.pilot import Pilot
from runtime.exchange.sampling import Sampler
from runtime.manifest import ModelManifest
from runtime.messages import Answer, InferenceRequest, Residency
from runtime.ports import Clock, DecisionLog


class Ledger:
    """Makes the answer of a course, and tells all who want to know of it."""

    def __init__(
        self,
        identity: Identity,
        manifest: ModelManifest,
        *,
        handing_over: HandingOver,
        clock: Clock,
        metrics: TierMetrics,
        log: DecisionLog,
        halting: Halting,
        overrider: Overrider,
        auditor: Auditor | None,
        pilot: Pilot | None,
        desk: CorrectionDesk | None,
        climbing: Climbing,
        sampler: Sampler | None = None,
    ) -> None:
        self._identity, self._manifest, self._handing_over = identity, manifest, handing_over
        self._clock, self._metrics, self._log, self._halting = clock, metrics, log, halting
        self._overrider = overrider
        self._auditor, self._pilot, self._desk = auditor, pilot, desk
        self._climbing, self._sampler = climbing, sampler

    def finished(self, course: Course, deadline: Deadline, arrived_s: float) -> Answer:
        """The answer that a course comes to, noted."""
        course = self._halting.ended(course)
        request = course.request
        now_s = self._clock.monotonic_s()
        answer = compose(course, self._identity, self._manifest, (now_s - arrived_s) * 1000)
        answer = self._overrider.ended(request, answer)
        self._note(course, answer)
        if request.explain:
            story = explained(course, answer, self._handing_over.policy(), self._manifest.labels)
            answer = msgspec.structs.replace(answer, explanation=story)
        if deadline.is_past(now_s) and not request.audit:
            self._metrics.count_late()
        return answer

    def _note(self, course: Course, answer: Answer) -> None:
        """Counts and writes down how it went, and draws whether the answer is audited."""
        if course.request.audit:
            self._metrics.count_served_audit(answer.outcome.value)
            return
        self._metrics.observe_answer(
            answer.outcome.value,
            answer.reason.value,
            answer.tier.value if answer.tier else "",
            answer.latency_ms,
            self._trace_id(course.request),
        )
        draw = NOT_DRAWN
        if course.ruling is None and course.stop is None:
            # What no model or gear has decided neither keeps nor breaks a promise.
            self._metrics.count_guarantee(answer.guarantee)
            draw = self._auditor.draw(course, answer) if self._auditor else NOT_DRAWN
        decided = record(
            course, self._identity, answer, self._clock.wall_s(), audit_chance=draw.chance
        )
        self._log.append(decided)
        self._metrics.count_decision_log_drops(self._log.num_dropped)
        if self._pilot:
            self._pilot.note(course, answer, draw.chance)
        if self._auditor and draw.is_drawn:
            self._auditor.start(course, decided, self._onward(course))
        if self._desk:
            self._desk.offer(course, answer, self._onward(course))
            self._desk.await_review(course.request, answer)
        if self._sampler:
            self._sampler.note(course, answer)

    @staticmethod
    def _trace_id(request: InferenceRequest) -> str:
        """Of the trace that is exported, if one is."""
        if not request.traceparent or request.residency is Residency.DEVICE:
            return ""
        return sampled_trace_id(request.traceparent)

    def _onward(self, course: Course) -> InferenceRequest | None:
        return course.onward or self._climbing.onward(course.request, course.own)
