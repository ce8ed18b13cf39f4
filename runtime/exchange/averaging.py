"""Where a gear averages: what a tier makes of its own result, and what it tells the tiers above."""

from __future__ import annotations

from dataclasses import dataclass, replace

from runtime.core.beliefs import Belief, believed, take_average
from runtime.core.confidence import softmax
from runtime.core.gearbox import Engaged
from runtime.local_model import LocalResult
from runtime.manifest import ModelManifest
from runtime.messages import InferenceRequest, Reason, Tier


@dataclass(frozen=True, slots=True)
class Weighed:
    """A tier's result, on the average where the gear averages here.

    ``lacks_beliefs`` says that there was to be an average and could not be.
    """

    own: LocalResult | Reason
    lacks_beliefs: bool = False


def weigh_in(
    own: LocalResult | Reason,
    request: InferenceRequest,
    engaged: Engaged,
    tier: Tier,
    manifest: ModelManifest,
) -> Weighed:
    """A tier's result with those of the tiers below weighed in, where the gear has it so.

    An audit asks what each tier says by itself.
    """
    gear = engaged.gear
    if gear is None or not gear.averages or request.audit:
        return Weighed(own)
    if isinstance(own, Reason) or not own.confidence.is_valid:
        return Weighed(own)
    agreed = gear.average_at(_stop(request, tier))
    if agreed is None:
        return Weighed(own)
    belief = _belief(own, manifest)
    averaged = None if belief is None else take_average(agreed, request.beliefs, belief)
    if averaged is None:
        return Weighed(own, lacks_beliefs=True)
    outputs = {**own.outputs, manifest.outputs[0].name: averaged.logits}
    return Weighed(replace(own, outputs=outputs, confidence=averaged.confidence, averaged=True))


def told(
    own: LocalResult | Reason,
    request: InferenceRequest,
    engaged: Engaged,
    tier: Tier,
    manifest: ModelManifest,
) -> tuple[tuple[Tier, bytes], ...]:
    """What the tiers up to this one hold likely, as far as a tier above averages it.

    Args:
        own: the tier's result by itself; without a valid one, what came along is passed on.
        request: as it came.
        engaged: the gear of the request; of one that is not known here everything is passed on.
        tier: this one.
        manifest: of its model.
    """
    gear = engaged.gear
    if gear is None or isinstance(own, Reason) or not own.confidence.is_valid:
        return request.beliefs
    stop = _stop(request, tier)
    is_awaited = any(other.tiers[: len(stop)] == stop != other.tiers for other in gear.averages)
    if not is_awaited or request.audit:
        return ()
    belief = _belief(own, manifest)
    return () if belief is None else (*request.beliefs, (tier, belief.tobytes()))


def _stop(request: InferenceRequest, tier: Tier) -> tuple[str, ...]:
    return (*[below.value for below, _ in request.earlier], tier.value)


def _belief(own: LocalResult, manifest: ModelManifest) -> Belief | None:
    # A batch has no single label, and no one belief either.
    if own.confidence.label is None:
        return None
    return believed(softmax(own.outputs[manifest.outputs[0].name][0], manifest.temperature))
