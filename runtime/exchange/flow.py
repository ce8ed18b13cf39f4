"""What happens to a request at a tier, from its arrival to its answer.

The same story on the device, in the region and in the cloud: the local model answers; if it is
sure, that stands; if not, the request climbs while there is time; what comes back is weighed
against the answer in hand; the best goes out before the deadline, with how it came about.

What an operator has stopped comes first of all: then nobody answers, or nothing climbs.

A rule of the policy, or an operator's override, where one holds, comes before all of this: it
answers, or names the tier that is to answer. Where no answer stands in the end, the last resorts of
the policy come after it. Overrides also change what a model gives, and what goes out.

A fitted gear may say it otherwise: leave a tier out, ask two at once, or let the answer of a tier
below stand. The tier below names the route then, and this one follows it as far as it can.

An audit takes the same way, for the answers' sake: all whom its route names answer, and nothing
counts it as a request, because the one that it is about has been counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import msgspec
import structlog

from runtime.adapters.metrics import TierMetrics
from runtime.core.confidence import Confidence
from runtime.core.escalation import (
    Action,
    Decision,
    EscalationPolicy,
    Settlement,
    Situation,
    decide,
    pass_on,
)
from runtime.core.gearbox import Engaged, Gearbox
from runtime.core.live import AS_IT_WAS_FITTED
from runtime.core.rules import Ruling
from runtime.deadline import Deadline
from runtime.errors import BackendError, LeftOutError, TooLateError
from runtime.exchange.acceptance import check_request
from runtime.exchange.auditing import Auditor
from runtime.exchange.averaging import told, weigh_in
from runtime.exchange.climbing import Climbing, held_back
from runtime.exchange.correcting import CorrectionDesk
from runtime.exchange.course import (
    Course,
    Identity,
    stands,
)
from runtime.exchange.falling_back import LastResorts
from runtime.exchange.halting import Halting
from runtime.exchange.handing_over import HandingOver
from runtime.exchange.ledger import Ledger
from runtime.exchange.overriding import Overrider
from runtime.exchange.pilot import Pilot
from runtime.exchange.reviewing import Reviewer
from runtime.exchange.ruling import Ruler, routed
from runtime.exchange.sampling import Sampler
from runtime.exchange.settling import HAS_COME, kept_alone, settled
from runtime.exchange.stopping import StopSwitch
from runtime.exchange.tracing import Tracer
from runtime.exchange.uplink import Prospect, Uplink, UpstreamReply, payload_bytes
from runtime.local_model import LocalModel, LocalResult
from runtime.messages import (
    Answer,
    InferenceRequest,
    Outcome,
    Reason,
)
from runtime.ports import Clock, DecisionLog
from runtime.tensors import num_examples

_log = structlog.get_logger()
_NOWHERE = Prospect(None, 0.0, probe_is_due=False)


@dataclass(frozen=True, slots=True)
class _Question:
    """A request with what holds for it here all along."""

    request: InferenceRequest
    deadline: Deadline
    engaged: Engaged
    ruling: Ruling | None = None


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
        reviewer: Reviewer | None = None,
        pilot: Pilot | None = None,
        switch: StopSwitch | None = None,
        desk: CorrectionDesk | None = None,
        tracer: Tracer | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        self._tracer = tracer
        self.identity, self.model = identity, model
        self.handing_over = HandingOver(policy, clock)
        self.gearbox = gearbox or Gearbox(identity.tier)
        self._clock, self._metrics, self._uplink = clock, metrics, uplink
        self._reviewer, self._pilot = reviewer, pilot
        self.switch = switch
        digest = self.gearbox.digest
        self._halting = Halting(switch, self.handing_over, clock, digest, model.manifest)
        self._climbing = Climbing(model.manifest)
        self._ruler = Ruler(self.gearbox, model.manifest, metrics)
        self._overrider = Overrider(switch, model, identity.tier, metrics)
        self._ledger = Ledger(
            identity,
            model.manifest,
            handing_over=self.handing_over,
            clock=clock,
            metrics=metrics,
            log=log,
            halting=self._halting,
            overrider=self._overrider,
            auditor=auditor,
            pilot=pilot,
            desk=desk,
            climbing=self._climbing,
            sampler=sampler,
        )
        self._resorts = LastResorts(self.gearbox, model.manifest, metrics, reviewer)

    @property
    def policy(self) -> EscalationPolicy:
        """The numbers of the decision, as they are now."""
        return self.handing_over.policy()

    def check(self, request: InferenceRequest) -> None:
        """Refuses what this tier may not see and what its model cannot take.

        Raises:
            RequestError: as ``check_request`` has it.
        """
        check_request(request, self.identity.tier, self.model.manifest)

    def needed_ms(self, request: InferenceRequest) -> float:
        """What this tier's model would take, with the work before it; 0 where it need not run."""
        tier = self.identity.tier
        is_passed_on = bool(request.route) and tier not in request.route
        is_needed = self._climbing.needs_model or not is_passed_on
        return 0.0 if not is_needed else self.model.expected_ms(request.inputs)

    def answer(self, request: InferenceRequest, deadline: Deadline) -> Coroutine[Any, Any, Answer]:
        """The best answer that can be had by the deadline; the request has passed ``check``."""
        # No coroutine of its own: a request that is not traced pays for this look alone.
        if self._tracer is None:
            return self._answer(request, deadline)
        return self._tracer.traced(request, deadline, self.model.manifest, self._answer)

    async def _answer(self, request: InferenceRequest, deadline: Deadline) -> Answer:
        arrived_s = self._clock.monotonic_s()
        course = await self._halting.course(request, deadline, self.needed_ms, self._infer)
        if course is not None:
            return self._ledger.finished(course, deadline, arrived_s)
        ruling = self._overrider.ruling(request) or self._ruler.ruling(request)
        if ruling is not None:
            course = await self._follow_rule(request, deadline, ruling)
            course = await self._resorts.fallen_back(course, self._until(deadline))
            return self._ledger.finished(course, deadline, arrived_s)
        engaged = self.gearbox.engage(
            request.gear,
            remaining_ms=request.remaining_ms,
            num_examples=num_examples(request.inputs),
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
            if self._reviewer is not None:
                course = await self._reviewer.reviewed(course, self._until(deadline))
        course = await self._resorts.fallen_back(course, self._until(deadline))
        return self._ledger.finished(course, deadline, arrived_s)

    def _until(self, deadline: Deadline) -> Deadline:
        """By when all is to be over here, for the answer to be handed over in time."""
        return self.handing_over.until(deadline)

    async def _follow_rule(
        self, request: InferenceRequest, deadline: Deadline, ruling: Ruling
    ) -> Course:
        """The rule's answer, our own model's, or that of a tier above; no gear plays a part."""
        remaining_ms = deadline.remaining_ms(self._clock.monotonic_s())
        if ruling.tier is None:
            return self._ruler.answered(request, ruling, remaining_ms)
        question = _Question(routed(request, ruling), deadline, self._ruler.engaged, ruling)
        if ruling.tier is not self.identity.tier:
            return await self._follow_route(question)
        own = await self._infer(request, deadline)
        return self._ruler.kept(request, ruling, own, self.policy, remaining_ms=remaining_ms)

    async def _look_first(self, question: _Question) -> Course:
        """Runs our own model, and asks above when its answer does not stand."""
        request, engaged = question.request, question.engaged
        alone = await self._infer(request, question.deadline)
        here = request, engaged, self.identity.tier, self.model.manifest
        weighed = weigh_in(alone, *here)
        own = weighed.own
        confidence = own.confidence if isinstance(own, LocalResult) else None
        onward = self._climbing.onward(request, own)
        situation, prospect = self._situation(question, confidence, onward)
        advised = None
        # What a table says of averages, it does not say of this tier's answer alone, and what it
        # says of a model, it does not say of another one.
        is_ours = isinstance(own, LocalResult) and own.said_by is None
        goes_alone = request.audit or request.stands or weighed.lacks_beliefs or not is_ours
        if confidence is not None and confidence.is_valid and not goes_alone:
            advised = self.gearbox.advise(
                engaged,
                confidence,
                request.earlier,
                residency=request.residency,
                chance=prospect.chance,
            )
        advice, score = advised or (None, None)
        is_top = self.gearbox.is_top and engaged.gear is not None
        if is_top or request.audit or request.stands:
            situation = replace(situation, tier_above=None)
        decision = decide(self.policy, situation, advice)
        decision = held_back(self.policy, decision, confidence, onward)
        reply = None
        if decision.action is Action.ESCALATE and prospect.gateway and onward is not None:
            asked = msgspec.structs.replace(onward, beliefs=told(alone, *here))
            reply = await self._ask(question, asked, confidence, decision, prospect.gateway)
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
            lacks_beliefs=weighed.lacks_beliefs,
            onward=onward,
        )

    async def _follow_route(self, question: _Question) -> Course:
        """Asks above at once: instead of our own model, or beside it where the route names us.

        What cannot be asked, and what brings no answer, our own model answers. It runs first where
        it is its output that climbs.
        """
        request, first = question.request, None
        onward: InferenceRequest | None = request
        if self._climbing.needs_model:
            first = await self._infer(request, question.deadline)
            onward = self._climbing.onward(request, first)
        situation, prospect = self._situation(question, None, onward)
        route = tuple(named for named in request.route if named is not self.identity.tier)
        decision = pass_on(self.policy, situation, route)
        passed = Reason.ROUTED if question.ruling is None else Reason.RULE
        if decision.reason is Reason.ROUTED:
            decision = replace(decision, reason=passed)
        known = first.confidence if isinstance(first, LocalResult) else None
        decision = held_back(self.policy, decision, known, onward)
        own: LocalResult | Reason = passed
        reply = None
        if decision.action is Action.ANSWER or not prospect.gateway or onward is None:
            own = await self._own(question, first)
            settlement = kept_alone(self.policy, own, decision.reason)
        else:
            asking = self._ask(question, onward, None, decision, prospect.gateway)
            if self.identity.tier in request.route:
                async with asyncio.TaskGroup() as both:
                    # In this order: the request is on its way before our model works.
                    asked = both.create_task(asking)
                    answering = both.create_task(self._own(question, first))
                    reply = await asked
                    if reply.outcome is Outcome.ANSWERED and not request.audit:
                        answering.cancel()
                own = passed if answering.cancelled() else answering.result()
            else:
                reply = await asking
                if reply.outcome not in HAS_COME:
                    own = await self._own(question, first)
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
            ruling=question.ruling,
            onward=onward,
        )

    def _situation(
        self,
        question: _Question,
        confidence: Confidence | None,
        onward: InferenceRequest | None,
    ) -> tuple[Situation, Prospect]:
        """What the decision may look at, and whom we would ask."""
        remaining_ms = question.deadline.remaining_ms(self._clock.monotonic_s())
        waits_ms = remaining_ms - self.policy.margin_ms
        prospect = _NOWHERE
        if self._uplink:
            size = 0 if onward is None else payload_bytes(onward.inputs)
            prospect = self._uplink.prospect(waits_ms, num_bytes=size)
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
        onward: InferenceRequest,
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
        asked = msgspec.structs.replace(
            onward,
            route=decision.route,
            gear=travels,
            earlier=earlier if travels else (),
            beliefs=onward.beliefs if travels else (),
        )
        if not request.audit:
            self._metrics.count_route(decision.route)
        until = self._until(question.deadline)
        reply = await self._uplink.ask(asked, until, gateway)
        self.handing_over.ended(until)
        self._climbing.heard(reply)
        return reply

    async def _own(
        self, question: _Question, first: LocalResult | Reason | None
    ) -> LocalResult | Reason:
        """What our own model says, which it may have said already."""
        return first or await self._infer(question.request, question.deadline)

    def _infer(
        self, request: InferenceRequest, deadline: Deadline
    ) -> Coroutine[Any, Any, LocalResult | Reason]:
        """The local model's result, or why there is none."""
        if self._tracer is None:
            return self._run(request, deadline)
        run = partial(self._run, request, deadline)
        return self._tracer.inferred(request, self.model.manifest, run)

    async def _run(self, request: InferenceRequest, deadline: Deadline) -> LocalResult | Reason:
        if deadline.is_past(self._clock.monotonic_s()):
            # It waited too long for its turn; work that nobody waits for would only delay others.
            return Reason.DEADLINE
        try:
            result = await self.model.infer(
                request.inputs, self._until(deadline), request.residency
            )
        except LeftOutError:
            return Reason.LOCAL_FAILED
        except BackendError as error:
            _log.error("inference.failed", error=str(error))
            return Reason.LOCAL_FAILED
        except TooLateError:
            return Reason.DEADLINE
        self._metrics.observe_inference(self.model.manifest.name, result.service_us)
        return self._overrider.adjusted(request, result)

    def _settle(
        self,
        question: _Question,
        own: LocalResult | Reason,
        decision: Decision,
        reply: UpstreamReply,
    ) -> Settlement:
        """Chooses between our own answer and what came back."""
        if not question.request.audit:
            has_come = reply.outcome in HAS_COME
            self._metrics.count_escalation("answered" if has_come else reply.reason.value)
        has_gear = bool(question.engaged.gear)
        return settled(self.policy, own, decision, reply, has_gear=has_gear)
