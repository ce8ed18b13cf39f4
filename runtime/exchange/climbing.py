"""What climbs in a request's place: its inputs as they came, or an output of this tier's model.

Rules of this file:
  * where the manifest ``forwards`` an output, nothing else of a request ever goes up: no answer of
    the model, no finite output of that name, and nothing climbs, into an outbox neither;
  * the digest of the model that gave it goes along, because the output means something only to the
    model that was made for it; the tier above refuses what its model was not made for;
  * a tier whose manifest says nothing passes on what it got, with the digest that it came with.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import structlog

from runtime.core.confidence import Confidence
from runtime.core.escalation import Action, Decision, EscalationPolicy, keep
from runtime.errors import EmbeddingError
from runtime.exchange.uplink import UpstreamReply
from runtime.local_model import LocalResult
from runtime.manifest import ModelManifest, model_digest
from runtime.messages import InferenceRequest, Reason
from runtime.tensors import dtype_of

_log = structlog.get_logger()


class Climbing:
    """What one model sends up."""

    def __init__(self, manifest: ModelManifest) -> None:
        self._manifest = manifest
        self._digest = model_digest(manifest) if manifest.forwards else ""
        self._is_refused = False

    @property
    def needs_model(self) -> bool:
        """Whether our own model has to run before anything can climb."""
        return bool(self._manifest.forwards)

    def onward(
        self, request: InferenceRequest, own: LocalResult | Reason
    ) -> InferenceRequest | None:
        """The request as it climbs; None where there is nothing that could."""
        if not self._manifest.forwards:
            return request
        if isinstance(own, Reason):
            return None
        manifest, digest = self._manifest, self._digest
        if own.said_by is not None:
            # Another model has answered in its place, and this is what that one's output means.
            manifest, digest = own.said_by, model_digest(own.said_by)
        array = own.outputs.get(manifest.forwards)
        if array is None:
            return None
        (spec,) = (one for one in manifest.outputs if one.name == manifest.forwards)
        with np.errstate(over="ignore"):
            array = np.ascontiguousarray(array, dtype_of(spec.datatype))
        if not array.size or not np.isfinite(array).all():
            return None
        return msgspec.structs.replace(
            request,
            inputs={manifest.forwards: array},
            forwarded_by=digest,
            outputs=tuple(name for name in request.outputs if name != manifest.forwards),
        )

    def heard(self, reply: UpstreamReply) -> None:
        """Tells the log, once, that the tier above takes outputs of another model, and its end."""
        if reply.answer is None:
            return
        is_refused = reply.answer.error_code == EmbeddingError.code
        if is_refused and not self._is_refused:
            _log.warning("embedding.refused", model=self._manifest.name, digest=self._digest)
        elif self._is_refused and not is_refused:
            _log.info("embedding.accepted", model=self._manifest.name)
        self._is_refused = is_refused


def held_back(
    policy: EscalationPolicy,
    decision: Decision,
    confidence: Confidence | None,
    onward: InferenceRequest | None,
) -> Decision:
    """The decision, as far as there is something that can climb."""
    if onward is not None or decision.action is Action.ANSWER:
        return decision
    kept = keep(policy, confidence, Reason.LOCAL_FAILED)
    return replace(
        decision,
        action=Action.ANSWER,
        reason=kept.reason,
        outcome=kept.outcome,
        route=(),
        is_as_fitted=False,
    )
