"""What the services need from the outside world, and what each port promises.

An adapter raises only what is listed here; foreign exceptions are wrapped with ``from``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Protocol, Self

from runtime.core.tracing import Span
from runtime.messages import ItemKind, Tensors, TensorSpec


class Clock(Protocol):
    """Two clocks: one to measure with, one to write into logs."""

    def monotonic_s(self) -> float:
        """Seconds since some fixed instant; never goes back; the only clock for deadlines."""
        ...

    def wall_s(self) -> float:
        """Seconds since 1970 as this machine believes; for logs, never compared across machines."""
        ...


@dataclass(frozen=True, slots=True)
class Message:
    """One MQTT PUBLISH, sent or received.

    ``expiry_s`` is MQTT message expiry (None: never). ``user`` are user properties in order;
    names may repeat, the first one counts.
    """

    topic: str
    payload: bytes = b""
    qos: int = 0
    retain: bool = False
    response_topic: str = ""
    correlation_data: bytes = b""
    content_type: str = ""
    expiry_s: int | None = None
    user: tuple[tuple[str, str], ...] = field(default=())

    def property(self, name: str, default: str = "") -> str:
        """The first user property of that name."""
        # Looked up thirty times for an escalation: a generator would cost twice as much.
        for key, value in self.user:
            if key == name:
                return value
        return default


MessageHandler = Callable[[Message], None]
ConnectionHandler = Callable[[bool], None]


class MessageBus(Protocol):
    """Publish and subscribe over MQTT 5.

    Guarantees:
      * Messages of one publisher to one topic at one QoS arrive in order.
      * QoS 0 arrives at most once, QoS 1 at least once while the connection holds. Nothing is
        queued while there is no connection: ``publish`` says so at once.
      * Retained messages reach every later subscriber; an empty retained payload clears them.
      * The will is published by the broker when the connection ends without ``close``.
      * After a lost connection the bus reconnects by itself with jittered back-off, subscribes
        again, and then calls the connection handlers, so that births are published anew.
      * Handlers run on the event loop that called ``start``, one at a time, and must not block. An
        exception out of a handler is logged and counted; it stops neither the bus nor other
        handlers.
    """

    @property
    def is_connected(self) -> bool:
        """Whether a publish would be tried now."""
        ...

    async def start(self) -> None:
        """Starts connecting and returns; a broker that is down is no error, it is tried again."""
        ...

    async def wait_connected(self, timeout_s: float) -> bool:
        """Whether a connection was there within the time."""
        ...

    def subscribe(self, topic_filter: str, handler: MessageHandler, *, qos: int = 0) -> None:
        """Calls ``handler`` with every matching message, now and after every reconnect."""
        ...

    def on_connection(self, handler: ConnectionHandler) -> None:
        """Calls ``handler(True)`` after each (re)connect and ``handler(False)`` after each loss."""
        ...

    def publish(self, message: Message) -> int:
        """Hands a message to the connection and returns the bytes of its PUBLISH packet.

        Raises:
            NotConnectedError: there is no connection, or its send queue is full; nothing was sent.
            PayloadTooLargeError: over the broker's maximum packet size; nothing was sent.
        """
        ...

    async def close(self) -> None:
        """Sends what is queued (within a second), disconnects without the will; idempotent."""
        ...


class Backend(Protocol):
    """Runs one model file. ``run`` may be called from several threads.

    Inputs are C-contiguous and fit ``inputs``; outputs are new arrays that the caller owns.
    """

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What ``run`` takes."""
        ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What ``run`` gives."""
        ...

    def run(self, inputs: Tensors) -> Tensors:
        """One inference.

        Raises:
            BackendError: the model failed.
        """
        ...

    def close(self) -> None:
        """Frees the model."""
        ...


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """One decision of one tier about one request; what metrics and replay are made from.

    ``action`` is ``answer`` or ``escalate``. ``outcome`` and ``answered_by`` say how it ended as
    this tier saw it. ``propensity`` is the probability with which the policy took this action.
    ``policy`` (digest) and ``gear`` are what was followed, ``score``, ``gain``, ``cost`` and
    ``chance`` what was looked up and weighed, ``route`` who was to be asked (empty: the next tier
    above, or nobody). ``guarantee`` is that of the answer as this tier saw it. ``seen`` is what the
    tiers answered from here on, as ``runtime.core.seen`` writes it; empty for a batch.
    ``budget_ms`` is the budget as it was stated on arrival, None where an earlier version did not
    keep it. ``audit_chance`` is the probability with which the request was to be audited, whether
    or not it was; 0 where it could not be. ``residency`` is how far up the payload might go.
    ``rule`` names the rule of the policy that decided before any model or gear, or the overrides of
    operators (``override:ID``) that have changed the answer. ``forwarded`` names the output that
    was sent up in place of the inputs.
    """

    wall_s: float
    request_id: str
    tier: str
    site: str
    region: str
    hop: int
    model: str
    model_version: str
    action: str
    decided_because: str
    outcome: str
    reason: str
    answered_by: str
    label: int | None
    confidence: float | None
    remaining_ms: float
    latency_ms: float
    service_us: int
    sent_bytes: int
    propensity: float = 1.0
    policy: str = ""
    gear: str = ""
    score: float | None = None
    route: str = ""
    gain: float | None = None
    cost: float | None = None
    chance: float | None = None
    guarantee: str = "none"
    seen: str = ""
    budget_ms: float | None = None
    audit_chance: float = 0.0
    residency: str = ""
    rule: str = ""
    forwarded: str = ""


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """What all tiers said about a request that had been answered without asking them.

    ``wall_s``, ``request_id`` and ``site`` are those of the decision that was audited, ``chance``
    its ``audit_chance``. ``seen`` is what came back together with the answer that stood.
    ``agrees`` says whether that one is the top tier's; None when the audit did not come back.
    """

    wall_s: float
    request_id: str
    site: str
    policy: str
    gear: str
    chance: float
    seen: str
    agrees: bool | None


class DecisionLog(Protocol):
    """Append-only log of decisions and audits.

    ``append`` never blocks and never raises; when its bounded queue is full the record is dropped
    and counted in ``num_dropped``.
    """

    @property
    def num_dropped(self) -> int:
        """Records that did not fit."""
        ...

    def append(self, record: DecisionRecord | AuditRecord) -> None:
        """Takes a record to be written soon."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


# ``queued`` and ``known``: it is in the queue. ``full``: no room. ``busy``: too many are being
# written. ``failed``: the disk. ``unconfirmed``: not known in time; it may come to be in the queue.
ReviewResult = Literal["queued", "known", "full", "busy", "failed", "unconfirmed"]


@dataclass(frozen=True, slots=True)
class ReviewItem:
    """An answer for a person to look at, with all that it takes to judge it.

    ``item`` names it: the same for the same request id and inputs. ``due_s`` is the instant by
    which a person was promised to have looked, on the wall clock as ``wall_s`` is. ``chance`` is
    that of the answer to be right; where no model answered, ``label`` is -1. ``answers`` is what
    the tiers have answered, upwards, as JSON: a list of objects with ``tier``, ``label`` and, where
    it is known, ``score``. ``body`` are the inputs as an Open Inference Protocol request, its JSON
    in the first ``header_length`` bytes. ``source`` says why somebody is to look at it, ``labels``
    are the names of the model's labels; neither is kept in the queue's file.
    """

    item: str
    request_id: str
    wall_s: float
    due_s: float
    tier: str
    site: str
    region: str
    model: str
    model_version: str
    policy: str
    gear: str
    label: int
    label_name: str
    confidence: float
    chance: float
    answers: str
    residency: str
    header_length: int
    body: bytes
    source: str = "policy"
    labels: tuple[str, ...] = ()


class ReviewQueue(Protocol):
    """What waits for people: durable, bounded by items and bytes, the same item once.

    ``put`` never raises and takes no longer than ``timeout_s``. When it says ``queued``, the item
    outlives a crash of the process and of the machine.
    """

    async def put(self, item: ReviewItem, timeout_s: float) -> ReviewResult:
        """Puts an item into the queue, or says why it is not there."""
        ...


@dataclass(frozen=True, slots=True)
class OutboxItem:
    """Something that must arrive above, or at an agent below, however long that takes.

    ``id`` is unique here. ``origin`` is ``region/site`` of where it was made; empty: here.
    ``target`` is the agent that it goes to; empty: upwards. ``properties`` travel as MQTT user
    properties. ``attempts`` counts how often it was sent. ``parked`` says why it is not sent any
    more; empty while it is. ``sender`` is who has brought it here; empty: made here.
    """

    id: str
    kind: ItemKind
    created_s: float
    body: bytes
    target: str = ""
    origin: str = ""
    properties: tuple[tuple[str, str], ...] = ()
    attempts: int = 0
    parked: str = ""
    sender: str = ""


# ``stored`` and ``known``: it is there. ``full``: no room. ``failed``: the disk, or too much to do.
PutResult = Literal["stored", "known", "full", "failed"]


class SpanRecorder(Protocol):
    """Takes spans over, at once and without failing."""

    def record(self, span: Span) -> None:
        """Takes one; what it cannot take it counts."""


class Outbox(Protocol):
    """What waits to be sent: durable, bounded by bytes, items and age, with a stated drop order.

    Neither method raises or waits for a disk on the event loop. What ``put`` calls ``stored``
    outlives a crash of the process and of the machine. Whatever is not kept is counted.
    """

    async def put(self, item: OutboxItem) -> PutResult:
        """Keeps an item until it is acknowledged, or says why it is not kept."""
        ...

    def post(self, item: OutboxItem) -> None:
        """The same for one that waits for no word."""
        ...
