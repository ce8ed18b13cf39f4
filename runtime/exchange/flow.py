"""What happens to a request at a tier, from its arrival to its answer.

The same story on the device, in the region and in the cloud: the local model answers; if it is
sure, that stands; if not, the request climbs while there is time; what comes back is weighed
against the answer in hand; the best goes out before the deadline, with how it came about.

A fitted gear may say it otherwise: leave a tier out, ask two at once, or let the answer of a tier
below stand. The tier below names the route then, and this one follows it as far as it can.

An audit takes the same way, for the answers' sake: all whom its route names answer, and nothing
counts it as a request, because the one that it is about has been counted.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import msgspec
import structlog

from runtime.adapters.metrics import TierMetrics
from runtime.core.audit import NOT_DRAWN
from runtime.core.confidence import Confidence
from runtime.core.escalation import (
    Action,
    Decision,
    EscalationPolicy,
    Settlement,
    Situation,
    decide,
    keep,
    pass_on,
    settle,
)
from runtime.core.gearbox import Engaged, Gearbox
from runtime.core.live import AS_IT_WAS_FITTED
from runtime.deadline import Deadline
from runtime.errors import (
    BackendError,
    InvalidTensorError,
    MalformedBodyError,
    ResidencyError,
    TooLateError,
    UnknownModelError,
)
from runtime.exchange.auditing import Auditor
from runtime.exchange.course import (
    Course,
    Identity,
    compose,
    num_examples,
    record,
    stands,
    with_own_reason,
)
from runtime.exchange.explaining import explained
from runtime.exchange.pilot import Pilot
from runtime.exchange.uplink import Prospect, Uplink, UpstreamReply
from runtime.local_model import LocalModel, LocalResult
from runtime.messages import (
    Answer,
    Guarantee,
    InferenceRequest,
    Outcome,
    Reason,
    Tensors,
)
from runtime.ports import Clock, DecisionLog
from runtime.tensors import check_fit

_log = structlog.get_logger()
_NOWHERE = Prospect(None, 0.0, probe_is_due=False)
_FITTED = (Guarantee.CERTIFIED, Guarantee.EXPECTATION)


@dataclass(frozen=True, slots=True)
class _Question:
    """A request with what holds for it here all along."""

    request: InferenceRequest
    deadline: Deadline
    engaged: Engaged


class RequestFlow:
    """Answers requests with one model and, below the top, an uplink."""

    def __init__(
        self,
        identity: Identity,
        *,
        model: LocalModel,
        policy: EscalationPolicy,
        clock: Clock,
        metrics: TierMetrics,
        log: DecisionLog,
        gearbox: Gearbox | None = None,
        uplink: Uplink | None = None,
        auditor: Auditor | None = None,
        pilot: Pilot | None = None,
    ) -> None:
        self.identity, self.model, self.policy = identity, model, policy
        self.gearbox = gearbox or Gearbox(identity.tier)
        self._clock, self._metrics, self._log, self._uplink = clock, metrics, log, uplink
        self._auditor, self._pilot = auditor, pilot

    def check(self, request: InferenceRequest) -> None:
        """Refuses what this tier may not see and what its model cannot take.

        Raises:
            ResidencyError: the payload must stay below this tier.
            UnknownModelError: another model or version is asked for.
            InvalidTensorError: inputs do not fit, or an unknown output is asked for.
            MalformedBodyError: its route ends below this tier, or a tier from here on has answered.
        """
        manifest, tier = self.model.manifest, self.identity.tier
        if not request.residency.allows(tier):
            raise ResidencyError(f"residency {request.residency.value} does not reach {tier.value}")
        if request.model_name not in ("", manifest.name):
            raise UnknownModelError(
                f"{request.model_name[:80]!r} is not served here; {manifest.name!r} is"
            )
        # Each tier has versions of its own: only the tier that was asked directly checks them.
        if request.hop == 0 and request.model_version not in ("", manifest.version):
            raise UnknownModelError(
                f"version {request.model_version[:80]!r} of {manifest.name!r} is not served here; "
                f"{manifest.version!r} is"
            )
        if any(named.height < tier.height for named in request.route):
            raise MalformedBodyError(f"the route names a tier below {tier.value}")
        if any(answered.height >= tier.height for answered, _ in request.earlier):
            raise MalformedBodyError(f"no tier below {tier.value} has answered so")
        check_fit(request.inputs, manifest.inputs)
        known = {spec.name for spec in manifest.outputs}
        unknown = [name for name in request.outputs if name not in known]
        if unknown:
            raise InvalidTensorError(f"the model gives {sorted(known)}, not {unknown[0][:80]!r}")

    async def answer(self, request: InferenceRequest, deadline: Deadline) -> Answer:
        """The best answer that can be had by the deadline; the request has passed ``check``."""
        arrived_s = self._clock.monotonic_s()
        engaged = self.gearbox.engage(
            request.gear,
            remaining_ms=request.remaining_ms,
            num_examples=num_examples(request),
            hop=request.hop,
            standing=self._pilot.standing(request) if self._pilot else AS_IT_WAS_FITTED,
        )
        if engaged.label != engaged.travels:
            self._metrics.count_unknown_gear()
        question = _Question(request, deadline, engaged)
        if any(named is not self.identity.tier for named in request.route):
            course = await self._follow_route(question)
        else:
            course = await self._look_first(question)
        now_s = self._clock.monotonic_s()
        answer = compose(course, self.identity, self.model.manifest, (now_s - arrived_s) * 1000)
        self._note(course, answer)
        if request.explain:
            story = explained(course, answer, self.policy, self.model.manifest.labels)
            answer = msgspec.structs.replace(answer, explanation=story)
        if deadline.is_past(now_s) and not request.audit:
            self._metrics.count_late()
        return answer

    async def _look_first(self, question: _Question) -> Course:
        """Runs our own model, and asks above when its answer does not stand."""
        request, engaged = question.request, question.engaged
        own = await self._infer(request.inputs, question.deadline)
        confidence = own.confidence if isinstance(own, LocalResult) else None
        situation, prospect = self._situation(question, confidence)
        advised = None
        if confidence is not None and confidence.is_valid and not request.audit:
            advised = self.gearbox.advise(
                engaged,
                confidence,
                request.earlier,
                residency=request.residency,
                chance=prospect.chance,
            )
        advice, score = advised or (None, None)
        is_top = self.gearbox.is_top and engaged.gear is not None
        if is_top or request.audit:
            situation = replace(situation, tier_above=None)
        decision = decide(self.policy, situation, advice)
        reply = None
        if decision.action is Action.ESCALATE and prospect.gateway:
            reply = await self._ask(question, confidence, decision, prospect.gateway)
            settlement = self._settle(question, own, decision, reply)
        else:
            settlement = stands(decision, own)
        return Course(
            request=request,
            engaged=engaged,
            own=own,
            decision=decision,
            settlement=settlement,
            remaining_ms=situation.remaining_ms,
            chance=prospect.chance if self._uplink else None,
            reply=reply,
            advice=advice,
            score=score,
            is_top=is_top,
        )

    async def _follow_route(self, question: _Question) -> Course:
        """Asks above at once: instead of our own model, or beside it where the route names us.

        What cannot be asked, and what brings no answer, our own model answers.
        """
        request = question.request
        situation, prospect = self._situation(question, None)
        route = tuple(named for named in request.route if named is not self.identity.tier)
        decision = pass_on(self.policy, situation, route)
        own: LocalResult | Reason = Reason.ROUTED
        reply = None
        if decision.action is Action.ANSWER or not prospect.gateway:
            own = await self._infer(request.inputs, question.deadline)
            settlement = self._keep(own, decision.reason)
        else:
            asking = self._ask(question, None, decision, prospect.gateway)
            if self.identity.tier in request.route:
                async with asyncio.TaskGroup() as both:
                    # In this order: the request is on its way before our model works.
                    asked = both.create_task(asking)
                    answering = both.create_task(self._infer(request.inputs, question.deadline))
                    reply = await asked
                    if reply.outcome is Outcome.ANSWERED and not request.audit:
                        answering.cancel()
                own = Reason.ROUTED if answering.cancelled() else answering.result()
            else:
                reply = await asking
                if reply.outcome not in (Outcome.ANSWERED, Outcome.DEGRADED):
                    own = await self._infer(request.inputs, question.deadline)
            settlement = self._settle(question, own, decision, reply)
        return Course(
            request=request,
            engaged=question.engaged,
            own=own,
            decision=decision,
            settlement=settlement,
            remaining_ms=situation.remaining_ms,
            chance=prospect.chance if self._uplink else None,
            reply=reply,
        )

    def _situation(
        self, question: _Question, confidence: Confidence | None
    ) -> tuple[Situation, Prospect]:
        """What the decision may look at, and whom we would ask."""
        remaining_ms = question.deadline.remaining_ms(self._clock.monotonic_s())
        waits_ms = remaining_ms - self.policy.margin_ms
        prospect = self._uplink.prospect(waits_ms) if self._uplink else _NOWHERE
        situation = Situation(
            confidence=confidence,
            tier_above=self._uplink.tier_above if self._uplink else None,
            residency=question.request.residency,
            remaining_ms=remaining_ms,
            upstream_is_reachable=prospect.gateway is not None,
            chance_in_time=prospect.chance,
            probe_is_due=prospect.probe_is_due,
        )
        return situation, prospect

    async def _ask(
        self,
        question: _Question,
        confidence: Confidence | None,
        decision: Decision,
        gateway: str,
    ) -> UpstreamReply:
        """Asks above, with the gear that all tiers follow and what has been answered so far."""
        if self._uplink is None:
            raise RuntimeError("without an uplink nothing is decided to climb")
        request, travels = question.request, question.engaged.travels
        earlier = request.earlier
        if confidence is not None and confidence.is_valid:
            earlier = (*earlier, (self.identity.tier, confidence.label))
        onward = msgspec.structs.replace(
            request, route=decision.route, gear=travels, earlier=earlier if travels else ()
        )
        if not request.audit:
            self._metrics.count_route(decision.route)
        until = question.deadline.earlier_by_ms(self.policy.margin_ms)
        return await self._uplink.ask(onward, until, gateway)

    async def _infer(self, inputs: Tensors, deadline: Deadline) -> LocalResult | Reason:
        """The local model's result, or why there is none."""
        if deadline.is_past(self._clock.monotonic_s()):
            # It waited too long for its turn; work that nobody waits for would only delay others.
            return Reason.DEADLINE
        until = deadline.earlier_by_ms(self.policy.margin_ms)
        try:
            result = await self.model.infer(inputs, until)
        except BackendError as error:
            _log.error("inference.failed", error=str(error))
            return Reason.LOCAL_FAILED
        except TooLateError:
            return Reason.DEADLINE
        self._metrics.observe_inference(self.model.manifest.name, result.service_us)
        return result

    def _settle(
        self,
        question: _Question,
        own: LocalResult | Reason,
        decision: Decision,
        reply: UpstreamReply,
    ) -> Settlement:
        """Chooses between our own answer and what came back."""
        theirs = reply.answer
        is_fitted = theirs is not None and theirs.guarantee in _FITTED
        settlement = settle(
            self.policy,
            own.confidence if isinstance(own, LocalResult) else None,
            upstream_outcome=reply.outcome,
            upstream_reason=reply.reason,
            upstream_confidence=theirs.confidence if theirs else None,
            is_as_fitted=is_fitted and decision.is_as_fitted and bool(question.engaged.gear),
        )
        has_come = reply.outcome in (Outcome.ANSWERED, Outcome.DEGRADED)
        if not question.request.audit:
            self._metrics.count_escalation("answered" if has_come else reply.reason.value)
        return with_own_reason(settlement, own)

    def _keep(self, own: LocalResult | Reason, reason: Reason) -> Settlement:
        """Our own answer where the route wanted another."""
        kept = keep(self.policy, own.confidence if isinstance(own, LocalResult) else None, reason)
        settlement = Settlement(takes_upstream=False, outcome=kept.outcome, reason=kept.reason)
        return with_own_reason(settlement, own)

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
        )
        self._metrics.count_guarantee(answer.guarantee)
        draw = self._auditor.draw(course, answer) if self._auditor else NOT_DRAWN
        decided = record(
            course, self.identity, answer, self._clock.wall_s(), audit_chance=draw.chance
        )
        self._log.append(decided)
        self._metrics.count_decision_log_drops(self._log.num_dropped)
        if self._pilot:
            self._pilot.note(course, answer, draw.chance)
        if self._auditor and draw.is_drawn:
            self._auditor.start(course, decided)
