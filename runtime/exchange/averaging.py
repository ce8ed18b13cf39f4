"""Where a gear averages: what a tier makes of its own result, and what it tells the tiers above."""

from __future__ import annotations

from dataclasses import dataclass, replace

from runtime.core.beliefs import believed, take_average
from runtime.core.confidence import softmax
from runtime.core.gearbox import Engaged
from runtime.local_model import LocalResult
from runtime.manifest import ModelManifest
from runtime.messages import InferenceRequest, Reason, Tier


@dataclass(frozen=True, slots=True)
class Weighed:
    """A tier's result, on the average where the gear averages here.

    ``beliefs`` are what the tiers up to this one hold likely, to be sent on. ``lacks_beliefs`` says
    that there was to be an average and could not be.
    """

    own: LocalResult | Reason
    beliefs: tuple[tuple[Tier, bytes], ...]
    lacks_beliefs: bool = False


def weigh_in(
    own: LocalResult | Reason,
    request: InferenceRequest,
    engaged: Engaged,
    tier: Tier,
    manifest: ModelManifest,
) -> Weighed:
    """A tier's result with those of the tiers below weighed in, as far as the gear has it so.

    An audit asks what each tier says by itself.
    """
    gear = engaged.gear
    if gear is None or not gear.averages or request.audit:
        return Weighed(own, request.beliefs)
    if isinstance(own, Reason) or not own.confidence.is_valid:
        return Weighed(own, request.beliefs)
    stop = (*[below.value for below, _ in request.earlier], tier.value)
    agreed = gear.average_at(stop)
    name = manifest.outputs[0].name
    belief = None
    # A batch has no single label, and no one belief either.
    if own.confidence.label is not None:
        belief = believed(softmax(own.outputs[name][0], manifest.temperature))
    if belief is None:
        return Weighed(own, (), lacks_beliefs=agreed is not None)
    is_awaited = any(other.tiers[: len(stop)] == stop != other.tiers for other in gear.averages)
    beliefs = (*request.beliefs, (tier, belief.tobytes())) if is_awaited else ()
    if agreed is None:
        return Weighed(own, beliefs)
    averaged = take_average(agreed, request.beliefs, belief)
    if averaged is None:
        return Weighed(own, beliefs, lacks_beliefs=True)
    outputs = {**own.outputs, name: averaged.logits}
    together = replace(own, outputs=outputs, confidence=averaged.confidence, averaged=True)
    return Weighed(together, beliefs)
