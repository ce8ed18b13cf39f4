"""What happened to one request at one tier, and what is made of it: the answer and the record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import msgspec

from runtime.core.control import told
from runtime.core.escalation import Action, Decision, Settlement
from runtime.core.gearbox import Climb, Engaged, guarantee_of
from runtime.core.gears import Advice
from runtime.core.overrides import PREFIX
from runtime.core.review import Weighed
from runtime.core.rules import Ruling
from runtime.core.seen import Seen, is_seen, seen_in, seen_text
from runtime.errors import StoppedError
from runtime.exchange.directions import route_text
from runtime.exchange.uplink import UpstreamReply
from runtime.local_model import LocalResult
from runtime.manifest import ModelManifest
from runtime.messages import (
    Answer,
    Guarantee,
    Hop,
    InferenceRequest,
    Outcome,
    Reason,
    Stop,
    Tensors,
    Tier,
)
from runtime.ports import DecisionRecord
from runtime.tensors import num_examples


@dataclass(frozen=True, slots=True)
class Identity:
    """Who we are: tier, id and region."""

    tier: Tier
    site: str
    region: str


@dataclass(frozen=True, slots=True)
class FellBack:
    """The last resort that was followed, empty where none had anything; and its rule's ruling."""

    resort: str
    ruling: Ruling | None = None


@dataclass(frozen=True)
class Course:
    """What happened to one request here.

    ``own`` says why there is no result where there is none; ``Reason.ROUTED`` where none was
    needed. ``reply`` is None when nobody was asked, ``chance`` when nobody could be. ``is_top``
    says that the gear has no tier above this one, ``lacks_beliefs`` that it averages here and that
    what the tiers below hold likely did not come along. ``ruling`` is that of a rule of the policy,
    which decided instead of a gear, and ``given`` the outputs that a rule gave instead of the
    model. ``review`` is what was weighed where a person is to look at the answer. ``stop`` is what
    an operator has said, where nothing else had a say. ``fell_back`` is what was done instead
    because no answer stood. ``onward`` is the request as it climbed or would have; None where
    nothing could, or nobody was to be asked.
    """

    request: InferenceRequest
    engaged: Engaged
    own: LocalResult | Reason
    decision: Decision
    settlement: Settlement
    remaining_ms: float
    chance: float | None
    reply: UpstreamReply | None = None
    advice: Advice | None = None
    score: float | None = None
    is_top: bool = False
    ruling: Ruling | None = None
    given: Tensors | None = None
    review: Weighed | None = None
    lacks_beliefs: bool = False
    stop: Stop | None = None
    fell_back: FellBack | None = None
    onward: InferenceRequest | None = None

    @cached_property
    def result(self) -> LocalResult | None:
        """Our own model's result, if it gave one."""
        return self.own if isinstance(self.own, LocalResult) else None

    @cached_property
    def own_score(self) -> float | None:
        """How sure our own answer is, as it was or would be looked up; None where there is none."""
        result = self.result
        if result is None or not result.confidence.is_valid:
            return None
        return result.confidence.score(self.engaged.score) if self.score is None else self.score

    @property
    def forwarded(self) -> str:
        """The output that was sent up in place of the inputs; empty where none was."""
        if self.reply is None or self.onward is None or self.onward is self.request:
            return ""
        return next(iter(self.onward.inputs))

    @cached_property
    def _seen(self) -> dict[Tier, Mapping[str, Seen]]:
        return {}

    def seen(self, tier: Tier) -> Mapping[str, Seen]:
        """What this tier and those above answered; nothing for a batch."""
        if tier not in self._seen:
            self._seen[tier] = self._see(tier)
        return self._seen[tier]

    def _see(self, tier: Tier) -> dict[str, Seen]:
        if num_examples(self.request.inputs) != 1:
            return {}
        seen: dict[str, Seen] = {}
        result, score = self.result, self.own_score
        # An average, or what was overridden, is not what the tier answers by itself, which is what
        # a replay goes by.
        is_own = result is not None and not result.averaged and not result.overrides
        if is_own and result is not None and is_seen(result.confidence.label, score):
            seen[tier.value] = Seen(result.confidence.label or 0, float(score or 0.0))
        if self.reply is not None and self.reply.answer is not None:
            seen |= seen_in(self.reply.answer.hops, above=tier)
        return seen

    def guarantee(self, tier: Tier) -> Guarantee:
        """What the answer of this tier promises."""
        climb = None
        if self.reply is not None:
            said = self.reply.answer
            climb = Climb(
                self.reply.outcome,
                self.reply.reason,
                None if said is None else said.guarantee,
                is_taken=self.settlement.takes_upstream,
            )
        return guarantee_of(self.engaged, is_as_fitted=self._is_as_fitted(tier), climb=climb)

    def _is_as_fitted(self, tier: Tier) -> bool:
        """Whether what was done here is what the fit would have done, with all that it had."""
        if self.own is Reason.ROUTED:
            return self.decision.is_as_fitted
        result = self.result
        if result is None or result.left_out or not result.confidence.is_valid:
            return False
        if self.lacks_beliefs or self.fell_back is not None or result.overrides:
            return False
        if self.request.route and tier not in self.request.route:
            # The route left this tier out, and then its model had to answer.
            return False
        return self.decision.is_as_fitted or self.is_top


def stands(decision: Decision, own: LocalResult | Reason) -> Settlement:
    """A decision to answer, with what only the result knows: why it failed, who was missing."""
    outcome, reason = decision.outcome or Outcome.FAILED, decision.reason
    if isinstance(own, Reason):
        reason = own
    elif own.left_out and outcome is Outcome.ANSWERED:
        outcome, reason = Outcome.DEGRADED, Reason.PARTIAL_ENSEMBLE
    return Settlement(takes_upstream=False, outcome=outcome, reason=reason)


def with_own_reason(settlement: Settlement, own: LocalResult | Reason) -> Settlement:
    """A failure, with why our own model gave nothing: too late or broken."""
    if isinstance(own, Reason) and settlement.outcome is Outcome.FAILED:
        return replace(settlement, reason=own)
    return settlement


def compose(course: Course, identity: Identity, manifest: ModelManifest, ms: float) -> Answer:
    """The answer, whosever it is; ``ms`` is how long it took."""
    settlement, request = course.settlement, course.request
    theirs = course.reply.answer if course.reply else None
    if course.result is not None and course.result.said_by is not None:
        manifest = course.result.said_by
    hop = _hop(course, identity, manifest)
    answer = Answer(
        request_id=request.request_id,
        outcome=settlement.outcome,
        reason=settlement.reason,
        hops=(hop, *(theirs.hops if theirs else ())),
        model_name=manifest.name,
        model_version=manifest.version,
        guarantee=course.guarantee(identity.tier),
        latency_ms=ms,
        error_code=_error_code(settlement),
        notice="" if course.stop is None else told(course.stop),
    )
    if settlement.takes_upstream and theirs:
        return msgspec.structs.replace(
            answer,
            tier=theirs.tier,
            model_name=theirs.model_name,
            model_version=theirs.model_version,
            label=theirs.label,
            label_name=theirs.label_name,
            confidence=theirs.confidence,
            outputs=_chosen(theirs.outputs, request.outputs, ""),
            error_code="",
            notice=theirs.notice,
            result=theirs.result,
        )
    result, label, confidence = course.result, hop.label, hop.confidence
    outputs = course.given if result is None else result.outputs
    if course.fell_back is not None and course.fell_back.ruling is not None:
        outputs, label, confidence = course.given, course.fell_back.ruling.label, None
    if not answer.has_answer or outputs is None:
        return answer
    return msgspec.structs.replace(
        answer,
        tier=identity.tier,
        label=label,
        label_name="" if label is None else manifest.labels[label],
        confidence=confidence,
        outputs=_chosen(outputs, request.outputs, manifest.forwards),
        result="" if result is None else result.told,
    )


def record(
    course: Course,
    identity: Identity,
    answer: Answer,
    wall_s: float,
    *,
    audit_chance: float = 0.0,
) -> DecisionRecord:
    """The line of the decision log."""
    first, weighed = answer.hops[0], course.review or course.advice
    digest, _, gear = course.engaged.label.partition("/")
    return DecisionRecord(
        wall_s=wall_s,
        request_id=answer.request_id,
        tier=identity.tier.value,
        site=identity.site,
        region=identity.region,
        hop=course.request.hop,
        model=first.model_name,
        model_version=first.model_version,
        action=course.decision.action.value,
        decided_because=first.reason.value,
        outcome=answer.outcome.value,
        reason=answer.reason.value,
        answered_by=answer.tier.value if answer.tier else "",
        label=answer.label,
        confidence=first.confidence,
        remaining_ms=course.remaining_ms,
        latency_ms=answer.latency_ms,
        service_us=first.service_us,
        sent_bytes=course.reply.sent_bytes if course.reply else 0,
        policy=digest,
        gear=gear,
        score=course.score,
        route=route_text(course.decision.route) if course.reply else "",
        gain=weighed.gain if weighed else None,
        cost=weighed.cost if weighed else None,
        chance=course.chance,
        guarantee=answer.guarantee.value,
        seen=seen_text(course.seen(identity.tier)),
        budget_ms=course.request.remaining_ms,
        audit_chance=audit_chance,
        residency=course.request.residency.value,
        rule=first.rule or ",".join(f"{PREFIX}{one}" for one in first.overrides),
        forwarded=first.forwarded,
    )


def _hop(course: Course, identity: Identity, manifest: ModelManifest) -> Hop:
    result = course.result
    is_valid = result is not None and result.confidence.is_valid
    probability = result.confidence.probability if result and is_valid else None
    score, ruling = course.own_score, course.ruling
    label = result.confidence.label if result else None
    if result is None and course.given is not None and ruling is not None:
        label = ruling.label
    return Hop(
        tier=identity.tier,
        site=identity.site,
        model_name=manifest.name,
        model_version=manifest.version,
        reason=course.own if isinstance(course.own, Reason) else course.decision.reason,
        label=label,
        confidence=probability,
        escalated=course.decision.action is Action.ESCALATE,
        service_us=result.service_us if result else 0,
        queue_us=result.queue_us if result else 0,
        score=None if score == probability else score,
        rule="" if ruling is None else ruling.rule,
        averaged=bool(result and result.averaged),
        overrides=result.overrides if result else (),
        forwarded=course.forwarded,
    )


def _chosen(outputs: Tensors, names: tuple[str, ...], forwards: str) -> Tensors:
    """What was asked for; else all but what is there for the tier above."""
    if not names:
        return {name: one for name, one in outputs.items() if name != forwards}
    return {name: outputs[name] for name in names if name in outputs}


def _error_code(settlement: Settlement) -> str:
    if settlement.reason is Reason.STOPPED:
        return StoppedError.code
    if settlement.outcome is not Outcome.FAILED:
        return ""
    return "too_late" if settlement.reason is Reason.DEADLINE else "backend_failed"
