"""What happens to a request at a tier, from its arrival to its answer.

The same story on the device, in the region and in the cloud: the local model answers; if it is
sure, that stands; if not, the request climbs while there is time; what comes back is weighed
against the answer in hand; the best goes out before the deadline, with how it came about.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    settle,
)
from runtime.deadline import Deadline
from runtime.errors import (
    BackendError,
    InvalidTensorError,
    ResidencyError,
    TooLateError,
    UnknownModelError,
)
from runtime.exchange.uplink import Prospect, Uplink, UpstreamReply
from runtime.local_model import LocalModel, LocalResult
from runtime.messages import (
    Answer,
    Hop,
    InferenceRequest,
    Outcome,
    Reason,
    Tensors,
    Tier,
)
from runtime.ports import Clock, DecisionLog, DecisionRecord
from runtime.tensors import check_fit

_log = structlog.get_logger()
_NOWHERE = Prospect(None, 0.0, probe_is_due=False)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who we are: tier, id and region."""

    tier: Tier
    site: str
    region: str


@dataclass(frozen=True, slots=True)
class _Course:
    """What happened to one request here: the material of its answer and of its record."""

    request: InferenceRequest
    own: LocalResult | Reason
    decision: Decision
    reply: UpstreamReply
    settlement: Settlement
    remaining_ms: float
    latency_ms: float

    @property
    def result(self) -> LocalResult | None:
        """Our own model's result, if it gave one."""
        return self.own if isinstance(self.own, LocalResult) else None


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
        uplink: Uplink | None = None,
    ) -> None:
        self.identity, self.model, self.policy = identity, model, policy
        self._clock, self._metrics, self._log, self._uplink = clock, metrics, log, uplink

    def check(self, request: InferenceRequest) -> None:
        """Refuses what this tier may not see and what its model cannot take.

        Raises:
            ResidencyError: the payload must stay below this tier.
            UnknownModelError: another model or version is asked for.
            InvalidTensorError: inputs do not fit, or an unknown output is asked for.
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
        check_fit(request.inputs, manifest.inputs)
        known = {spec.name for spec in manifest.outputs}
        unknown = [name for name in request.outputs if name not in known]
        if unknown:
            raise InvalidTensorError(f"the model gives {sorted(known)}, not {unknown[0][:80]!r}")

    async def answer(self, request: InferenceRequest, deadline: Deadline) -> Answer:
        """The best answer that can be had by the deadline; the request has passed ``check``."""
        arrived_s = self._clock.monotonic_s()
        own = await self._infer(request.inputs, deadline)
        confidence = own.confidence if isinstance(own, LocalResult) else None
        remaining_ms = deadline.remaining_ms(self._clock.monotonic_s())
        waits_ms = remaining_ms - self.policy.margin_ms
        prospect = self._uplink.prospect(waits_ms) if self._uplink else _NOWHERE
        decision = decide(
            self.policy,
            Situation(
                confidence=confidence,
                tier_above=self._uplink.tier_above if self._uplink else None,
                residency=request.residency,
                remaining_ms=remaining_ms,
                upstream_is_reachable=prospect.gateway is not None,
                chance_in_time=prospect.chance,
                probe_is_due=prospect.probe_is_due,
            ),
        )
        reply = UpstreamReply(Outcome.FAILED, decision.reason)
        if decision.action is Action.ESCALATE and self._uplink and prospect.gateway:
            until = deadline.earlier_by_ms(self.policy.margin_ms)
            reply = await self._uplink.ask(request, until, prospect.gateway)
            settlement = self._settle(confidence, reply)
        else:
            settlement = _stands(decision, own)
        latency_ms = (self._clock.monotonic_s() - arrived_s) * 1000
        course = _Course(request, own, decision, reply, settlement, remaining_ms, latency_ms)
        answer = self._compose(course)
        self._note(course, answer)
        if deadline.is_past(self._clock.monotonic_s()):
            self._metrics.count_late()
        return answer

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

    def _settle(self, confidence: Confidence | None, reply: UpstreamReply) -> Settlement:
        settlement = settle(
            self.policy,
            confidence,
            upstream_outcome=reply.outcome,
            upstream_reason=reply.reason,
            upstream_confidence=reply.answer.confidence if reply.answer else None,
        )
        has_come = reply.outcome in (Outcome.ANSWERED, Outcome.DEGRADED)
        self._metrics.count_escalation("answered" if has_come else reply.reason.value)
        return settlement

    def _compose(self, course: _Course) -> Answer:
        settlement, request, theirs = course.settlement, course.request, course.reply.answer
        hop = self._hop(course)
        hops = (hop, *(theirs.hops if theirs else ()))
        if settlement.takes_upstream and theirs:
            return Answer(
                request_id=request.request_id,
                outcome=settlement.outcome,
                reason=settlement.reason,
                hops=hops,
                tier=theirs.tier,
                model_name=theirs.model_name,
                model_version=theirs.model_version,
                label=theirs.label,
                label_name=theirs.label_name,
                confidence=theirs.confidence,
                outputs=_chosen(theirs.outputs, request.outputs),
                guarantee=theirs.guarantee,
                latency_ms=course.latency_ms,
            )
        manifest = self.model.manifest
        bare = Answer(
            request_id=request.request_id,
            outcome=settlement.outcome,
            reason=settlement.reason,
            hops=hops,
            model_name=manifest.name,
            model_version=manifest.version,
            latency_ms=course.latency_ms,
            error_code=_error_code(settlement),
        )
        if not bare.has_answer or course.result is None:
            return bare
        return msgspec.structs.replace(
            bare,
            tier=self.identity.tier,
            label=hop.label,
            label_name="" if hop.label is None else self.model.label_names[hop.label],
            confidence=hop.confidence,
            outputs=_chosen(course.result.outputs, request.outputs),
        )

    def _hop(self, course: _Course) -> Hop:
        manifest, result = self.model.manifest, course.result
        is_valid = result is not None and result.confidence.is_valid
        return Hop(
            tier=self.identity.tier,
            site=self.identity.site,
            model_name=manifest.name,
            model_version=manifest.version,
            reason=course.own if isinstance(course.own, Reason) else course.decision.reason,
            label=result.confidence.label if result else None,
            confidence=result.confidence.probability if result and is_valid else None,
            escalated=course.decision.action is Action.ESCALATE,
            service_us=result.service_us if result else 0,
            queue_us=result.queue_us if result else 0,
        )

    def _note(self, course: _Course, answer: Answer) -> None:
        answered_by = answer.tier.value if answer.tier else ""
        self._metrics.observe_answer(
            answer.outcome.value, answer.reason.value, answered_by, answer.latency_ms
        )
        first = answer.hops[0]
        self._log.append(
            DecisionRecord(
                wall_s=self._clock.wall_s(),
                request_id=answer.request_id,
                tier=self.identity.tier.value,
                site=self.identity.site,
                region=self.identity.region,
                hop=course.request.hop,
                model=first.model_name,
                model_version=first.model_version,
                action=course.decision.action.value,
                decided_because=first.reason.value,
                outcome=answer.outcome.value,
                reason=answer.reason.value,
                answered_by=answered_by,
                label=answer.label,
                confidence=first.confidence,
                remaining_ms=course.remaining_ms,
                latency_ms=answer.latency_ms,
                service_us=first.service_us,
                sent_bytes=course.reply.sent_bytes,
            )
        )
        self._metrics.count_decision_log_drops(self._log.num_dropped)


def _stands(decision: Decision, own: LocalResult | Reason) -> Settlement:
    """A decision to answer, with what only the result knows: why it failed, who was missing."""
    outcome, reason = decision.outcome or Outcome.FAILED, decision.reason
    if isinstance(own, Reason):
        reason = own
    elif own.left_out and outcome is Outcome.ANSWERED:
        outcome, reason = Outcome.DEGRADED, Reason.PARTIAL_ENSEMBLE
    return Settlement(takes_upstream=False, outcome=outcome, reason=reason)


def _chosen(outputs: Tensors, names: tuple[str, ...]) -> Tensors:
    return {name: outputs[name] for name in names if name in outputs} if names else outputs


def _error_code(settlement: Settlement) -> str:
    if settlement.outcome is not Outcome.FAILED:
        return ""
    return "too_late" if settlement.reason is Reason.DEADLINE else "backend_failed"
