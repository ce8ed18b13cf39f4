"""Whether a request can be answered at a tier at all; asked before anything is done for it."""

from __future__ import annotations

from runtime.errors import (
    EmbeddingError,
    InvalidTensorError,
    MalformedBodyError,
    ResidencyError,
    UnknownModelError,
)
from runtime.manifest import ModelManifest
from runtime.messages import InferenceRequest, Tier
from runtime.tensors import check_fit


def check_request(request: InferenceRequest, tier: Tier, manifest: ModelManifest) -> None:
    """Refuses what a tier may not see and what its model cannot take.

    Raises:
        ResidencyError: the payload must stay below this tier.
        UnknownModelError: another model or version is asked for.
        EmbeddingError: the inputs are not the output of a model that this one was made for.
        InvalidTensorError: inputs do not fit, or an unknown output is asked for.
        MalformedBodyError: its route ends below this tier, or a tier from here on has answered.
    """
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
    if any(other.height >= tier.height for other, _ in (*request.earlier, *request.beliefs)):
        raise MalformedBodyError(f"no tier below {tier.value} has answered so")
    if manifest.accepts_from and request.forwarded_by not in manifest.accepts_from:
        came = f"of the model {request.forwarded_by[:12]}" if request.forwarded_by else "a caller's"
        made_for = ", ".join(digest[:12] for digest in manifest.accepts_from)
        raise EmbeddingError(
            f"the inputs are {came}, and {manifest.name} {manifest.version} at {tier.value} takes "
            f"those of {made_for}: both must be of the same split"
        )
    check_fit(request.inputs, manifest.inputs)
    known = {spec.name for spec in manifest.outputs}
    unknown = [name for name in request.outputs if name not in known]
    if unknown:
        raise InvalidTensorError(f"the model gives {sorted(known)}, not {unknown[0][:80]!r}")
