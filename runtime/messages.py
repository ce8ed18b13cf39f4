"""The values that pass between tiers, and between a tier and its callers.

Wire types only grow: a new field has a default, a type never changes, unknown fields are skipped.
``tests/golden/control_plane.schema.json`` makes every change of the control plane a visible diff.
"""

from __future__ import annotations

import enum
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt

from runtime.control_state import (
    ControlState,
    Override,
    OverrideKind,
    Stop,
    StopMode,
    StopScope,
)

# What is defined elsewhere, and belongs to the messages all the same.
__all__ = ["ControlState", "Override", "OverrideKind", "Stop", "StopMode", "StopScope"]

Tensors = dict[str, npt.NDArray[np.generic]]
# What a caller may say about a request, beside its inputs.
ContextValue = str | float | bool


class Tier(enum.StrEnum):
    """Where a process stands in the hierarchy, in the order in which requests climb.

    Gateways of gateways are ``regional-2`` and up. A hierarchy leaves out what it does not have;
    that the order is the same everywhere is what lets tiers name one another without being told.
    """

    EDGE = "edge"
    REGIONAL = "regional"
    REGIONAL_2 = "regional-2"
    REGIONAL_3 = "regional-3"
    REGIONAL_4 = "regional-4"
    CLOUD = "cloud"

    @property
    def height(self) -> int:
        """0 on the device, growing upwards."""
        return _HEIGHTS[self]

    @property
    def kind(self) -> Tier:
        """``edge``, ``regional`` or ``cloud``: which program serves it."""
        return self if self in USUAL_TIERS else Tier.REGIONAL


_HEIGHTS = {tier: height for height, tier in enumerate(Tier)}
# What most hierarchies have; a kind of tier each.
USUAL_TIERS = (Tier.EDGE, Tier.REGIONAL, Tier.CLOUD)


class Residency(enum.StrEnum):
    """The furthest tier that a payload may reach; a gateway of gateways is beyond the region."""

    DEVICE = "device"
    REGION = "region"
    CLOUD = "cloud"

    def allows(self, tier: Tier) -> bool:
        """Whether the payload may reach ``tier``."""
        return tier.height <= _REACH[self]


_REACH = {
    Residency.DEVICE: Tier.EDGE.height,
    Residency.REGION: Tier.REGIONAL.height,
    Residency.CLOUD: Tier.CLOUD.height,
}


class Outcome(enum.StrEnum):
    """What became of a request; four different values, never merged."""

    ANSWERED = "answered"
    DEGRADED = "degraded"
    ABSTAINED = "abstained"
    FAILED = "failed"


class Reason(enum.StrEnum):
    """Why an outcome is what it is, or why a tier passed a request on."""

    CONFIDENT = "confident"
    TOP_TIER = "top_tier"
    UNSURE = "unsure"
    PROBE = "probe"
    NO_CONFIDENCE = "no_confidence"
    RESIDENCY = "residency"
    NO_UPSTREAM = "no_upstream"
    NO_TIME = "no_time"
    UNLIKELY_IN_TIME = "unlikely_in_time"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    UPSTREAM_REFUSED = "upstream_refused"
    UPSTREAM_FAILED = "upstream_failed"
    UPSTREAM_UNSURE = "upstream_unsure"
    LOWER_STANDS = "lower_stands"
    ROUTED = "routed"
    PARTIAL_ENSEMBLE = "partial_ensemble"
    OVERLOADED = "overloaded"
    BELOW_FLOOR = "below_floor"
    LOCAL_FAILED = "local_failed"
    DEADLINE = "deadline"
    RULE = "rule"
    REVIEW = "review"
    FALLBACK = "fallback"
    STOPPED = "stopped"
    OVERRIDE = "override"


class Guarantee(enum.StrEnum):
    """What stands behind the thresholds that were used."""

    CERTIFIED = "certified"
    EXPECTATION = "expectation"
    SUSPENDED = "suspended"
    NONE = "none"


class ItemKind(enum.StrEnum):
    """What goes through an outbox, the most precious first."""

    CORRECTION = "correction"
    FEEDBACK = "feedback"
    ESCALATION = "escalation"
    REVIEW = "review"
    UPDATE = "update"
    ALERT = "alert"
    AUDIT = "audit"
    METRICS = "metrics"


class TensorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """Name, Open Inference Protocol datatype and shape of one tensor; -1 is any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class Hop(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one tier did with a request: a line of an answer's provenance.

    ``label`` and ``confidence`` are missing where the tier had no answer of its own. ``score`` is
    what its table looks up, where that is not the confidence. Times are in microseconds:
    ``service_us`` in the model, ``queue_us`` waiting for it. ``rule`` names the rule of the policy
    that decided here before the model was asked. ``averaged`` says that the answer is an average of
    the tier's own with those of tiers below. ``overrides`` are the ids of operators' overrides that
    have changed the answer here. ``forwarded`` names the output that it sent up in place of what it
    had got.
    """

    tier: Tier
    site: str
    model_name: str
    model_version: str
    reason: Reason
    label: int | None = None
    confidence: float | None = None
    escalated: bool = False
    service_us: int = 0
    queue_us: int = 0
    score: float | None = None
    rule: str = ""
    averaged: bool = False
    overrides: tuple[str, ...] = ()
    forwarded: str = ""


class InferenceRequest(msgspec.Struct, frozen=True):
    """One question to one model; ``inputs`` maps tensor names to arrays with a batch axis.

    ``request_id`` is the idempotency id: the same over all attempts and all tiers. These pass
    between tiers only: ``route`` names the tiers to ask (empty: the next one above), ``gear`` is
    the digest and name of what all tiers follow, ``earlier`` is who below has answered what, lowest
    first (None: a batch), and ``beliefs`` are the probabilities of those, two bytes a class
    (``runtime.core.beliefs``), where the gear averages. So does ``audit``: nobody waits for the
    answer, all of ``route`` are to answer, after everything else, and it is no escalation; and
    ``stands``: the answer of the last tier of ``route`` stands, whatever its confidence.
    ``explain`` asks the tier that was asked first, and no other, to explain the answer; only that
    tier's rules look at ``context``. ``forwarded_by`` is the digest of the model whose output the
    inputs are, empty where they are the caller's.
    """

    request_id: str
    model_name: str
    inputs: Tensors
    remaining_ms: float
    model_version: str = ""
    outputs: tuple[str, ...] = ()
    residency: Residency = Residency.CLOUD
    priority: int = 0
    hop: int = 0
    attempt: int = 1
    traceparent: str = ""
    route: tuple[Tier, ...] = ()
    gear: str = ""
    earlier: tuple[tuple[Tier, int | None], ...] = ()
    beliefs: tuple[tuple[Tier, bytes], ...] = ()
    explain: bool = False
    audit: bool = False
    stands: bool = False
    context: dict[str, ContextValue] = {}
    forwarded_by: str = ""


class Answer(msgspec.Struct, frozen=True):
    """What a caller gets, always: an outcome with its reason, and how it came about.

    ``tier`` is the tier whose model gave ``outputs``; it is missing when nobody answered. ``hops``
    are in the order in which tiers worked. ``explanation`` is the story of the answer as JSON
    (``runtime.core.story``), where the request asked for it. ``notice`` says who has stopped or
    overridden what, since when and why, where the answer is what it is because of that. ``result``
    is what a task without a single label says, as JSON: labels, or a value and its interval.
    """

    request_id: str
    outcome: Outcome
    reason: Reason
    hops: tuple[Hop, ...]
    tier: Tier | None = None
    model_name: str = ""
    model_version: str = ""
    label: int | None = None
    label_name: str = ""
    confidence: float | None = None
    outputs: Tensors = {}
    guarantee: Guarantee = Guarantee.NONE
    latency_ms: float = 0.0
    error_code: str = ""
    explanation: str = ""
    notice: str = ""
    result: str = ""

    @property
    def has_answer(self) -> bool:
        """Whether there is something to act on."""
        return self.outcome in (Outcome.ANSWERED, Outcome.DEGRADED)


# The control plane. JSON, so that an operator can read it with any MQTT client.


class ServedModel(msgspec.Struct, frozen=True):
    """A model that a tier serves now."""

    name: str
    version: str


class Birth(msgspec.Struct, frozen=True, tag="birth", tag_field="kind"):
    """Retained: this process is online. ``epoch`` grows with every start and settles races.

    ``controls`` are the sequences of the control states that are in force here, by the region that
    each is about; ``stopped`` is what they make of this process: nothing, or a ``StopMode``.
    """

    tier: Tier
    site: str
    region: str
    epoch: int
    capacity: Annotated[int, msgspec.Meta(ge=0)] = 0
    queue_len: Annotated[int, msgspec.Meta(ge=0)] = 0
    models: tuple[ServedModel, ...] = ()
    http_base: str = ""
    software: str = ""
    controls: dict[str, int] = {}
    stopped: str = ""


class Offline(msgspec.Struct, frozen=True, tag="offline", tag_field="kind"):
    """Retained: this process is gone; said by itself, or by the broker as its will."""

    tier: Tier
    site: str
    region: str
    epoch: int
    clean: bool = False


class Draining(msgspec.Struct, frozen=True, tag="draining", tag_field="kind"):
    """Retained: this process finishes what it has and takes nothing new."""

    tier: Tier
    site: str
    region: str
    epoch: int


class Cancel(msgspec.Struct, frozen=True, tag="cancel", tag_field="kind"):
    """The asker no longer waits for this request."""

    request_id: str


class Applied(msgspec.Struct, frozen=True, tag="applied", tag_field="kind"):
    """These items have been taken over for good; whoever sent them may forget them."""

    items: tuple[str, ...]


class Refused(msgspec.Struct, frozen=True, tag="refused", tag_field="kind"):
    """This item will never be taken; sending it unchanged again is of no use."""

    item: str
    code: str


class Deferred(msgspec.Struct, frozen=True, tag="deferred", tag_field="kind"):
    """This item cannot be taken yet."""

    item: str
    retry_after_ms: Annotated[float, msgspec.Meta(ge=0)]


class Said(msgspec.Struct, frozen=True, omit_defaults=True):
    """An answer as a correction tells it; ``outputs`` are tensors as in a JSON response."""

    outcome: Outcome
    reason: Reason
    tier: Tier | None = None
    label: int | None = None
    label_name: str = ""
    confidence: float | None = None
    guarantee: Guarantee = Guarantee.NONE
    model_name: str = ""
    model_version: str = ""
    hops: tuple[Hop, ...] = ()
    outputs: tuple[dict[str, Any], ...] = ()
    result: str = ""


class Correction(msgspec.Struct, frozen=True, tag="correction", tag_field="kind"):
    """The answer to a request that could not climb in time; to be acknowledged to ``gateway``.

    ``to`` is the ``region/site`` of the agent that it is for, where whoever gets it is to pass it
    on. ``was`` is what had been answered: with it a person's word (reason ``review``) is taken
    also for a request that waits for none.
    """

    request_id: str
    said: Said
    item: str = ""
    gateway: str = ""
    to: str = ""
    was: Said | None = None


ControlMessage = (
    Birth | Offline | Draining | Cancel | ControlState | Applied | Refused | Deferred | Correction
)


def encode_control(message: ControlMessage) -> bytes:
    """JSON of one control message."""
    return msgspec.json.encode(message)


_CONTROL_DECODER = msgspec.json.Decoder(ControlMessage)


def decode_control(payload: bytes) -> ControlMessage | None:
    """The message, or None when it is of an unknown kind or not understood; callers count those."""
    try:
        message: ControlMessage = _CONTROL_DECODER.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return message
