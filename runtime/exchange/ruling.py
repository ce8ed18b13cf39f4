"""Rules at the tier where a journey begins: what they decide, and what their answers look like."""

from __future__ import annotations

import msgspec
import numpy as np

from runtime.adapters.metrics import TierMetrics
from runtime.core.escalation import Action, Decision, EscalationPolicy, Settlement, keep
from runtime.core.gearbox import Engaged, Gearbox
from runtime.core.rules import Ruling
from runtime.exchange.context import context_of
from runtime.exchange.course import Course, stands
from runtime.local_model import LocalResult
from runtime.manifest import ModelManifest
from runtime.messages import InferenceRequest, Outcome, Reason, Tensors
from runtime.tensors import dtype_of, num_examples

# The logarithm of next to nothing: JSON has no minus infinity, and even half floats hold this.
NEVER = -100.0
_ANSWERED = Decision(Action.ANSWER, Reason.RULE, Outcome.ANSWERED)
_STANDS = Settlement(takes_upstream=False, outcome=Outcome.ANSWERED, reason=Reason.RULE)


class Ruler:
    """Asks a policy's rules about requests that begin here, and counts what they decide."""

    def __init__(self, gearbox: Gearbox, manifest: ModelManifest, metrics: TierMetrics) -> None:
        self._gearbox, self._manifest, self._metrics = gearbox, manifest, metrics
        for name in gearbox.rules.names:
            metrics.count_rule(name, 0)

    def ruling(self, request: InferenceRequest) -> Ruling | None:
        """What a rule decides about a request; None where none does, and for what came from below.

        An audit is of an answer, which no rule gave.
        """
        rules = self._gearbox.rules
        if not rules or request.audit or not self._gearbox.begins(request.hop):
            return None
        verdict = rules.decide(request.inputs, context_of(request))
        for name in verdict.unusable:
            self._metrics.count_unusable_rule_value(name)
        if verdict.ruling is not None:
            self._metrics.count_rule(verdict.ruling.rule)
        return verdict.ruling

    @property
    def engaged(self) -> Engaged:
        """No gear, but the policy whose rule it was, for the log."""
        return Engaged(label=f"{self._gearbox.digest}/")

    def answered(self, request: InferenceRequest, ruling: Ruling, remaining_ms: float) -> Course:
        """The course of a request that a rule has answered."""
        return Course(
            request=request,
            engaged=self.engaged,
            own=Reason.RULE,
            decision=_ANSWERED,
            settlement=_STANDS,
            remaining_ms=remaining_ms,
            chance=None,
            ruling=ruling,
            given=one_hot(self._manifest, ruling.label or 0, num_examples(request.inputs)),
        )

    def kept(
        self,
        request: InferenceRequest,
        ruling: Ruling,
        own: LocalResult | Reason,
        policy: EscalationPolicy,
        *,
        remaining_ms: float,
    ) -> Course:
        """The course of a request whose rule names this tier: our own model's answer stands."""
        decision = _ANSWERED
        if isinstance(own, LocalResult) and not own.confidence.is_valid:
            kept = keep(policy, own.confidence, Reason.NO_CONFIDENCE)
            decision = Decision(Action.ANSWER, kept.reason, kept.outcome)
        elif isinstance(own, Reason):
            decision = Decision(Action.ANSWER, own, Outcome.FAILED)
        return Course(
            request=request,
            engaged=self.engaged,
            own=own,
            decision=decision,
            settlement=stands(decision, own),
            remaining_ms=remaining_ms,
            chance=None,
            ruling=ruling,
        )


def routed(request: InferenceRequest, ruling: Ruling) -> InferenceRequest:
    """The request on its way to the tier of a rule, whose answer is to stand."""
    if ruling.tier is None:
        raise ValueError("the rule answers and asks nobody")
    return msgspec.structs.replace(request, route=(ruling.tier,), stands=True, gear="", earlier=())


def one_hot(manifest: ModelManifest, label: int, num: int) -> Tensors:
    """The output that a model would have given had it been certain of a label, for each example."""
    spec = manifest.outputs[0]
    inner = [max(1, size) for size in spec.shape[1:]]
    scores = np.full((num, *inner), NEVER, dtype_of(spec.datatype))
    scores[..., label] = 0
    return {spec.name: scores}
