"""Late answers come home: asks again for what could not climb in time, and tells what comes.

Rules of this file:
  * only the tier where a request began waits for its correction, and only for what a tier above may
    see: residency is obeyed before anything is written down;
  * a request gets one event, whoever brings its better answer first: the reply that came after the
    deadline, or a correction for the item in the outbox;
  * an event is kept until it is over its age. Who reads events says from which number on; callbacks
    and the MQTT topic have marks of their own, so that a restart loses none. A process that is
    killed before it has marked one says it again; ``seq`` tells.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import structlog

from runtime import topics
from runtime.adapters.corrections import CorrectionEvent, Known, SqliteCorrections
from runtime.adapters.outbox_metrics import OutboxMetrics
from runtime.core.outbox import is_unanswered
from runtime.errors import NotConnectedError, PayloadTooLargeError, RequestError, StorageError
from runtime.exchange.chores import Chores
from runtime.exchange.course import Course, Identity
from runtime.exchange.items import (
    JSON_CONTENT_TYPE,
    control,
    new_id,
    said_of,
)
from runtime.exchange.review_callers import caller_item
from runtime.exchange.uplink import payload_bytes
from runtime.exchange.wire import CONTROL_CONTENT_TYPE, parse_reply, request_message
from runtime.messages import (
    Answer,
    Applied,
    Correction,
    InferenceRequest,
    ItemKind,
    Reason,
    Said,
    Tier,
    decode_control,
)
from runtime.ports import Clock, Message, MessageBus, OutboxItem
from runtime.tensors import num_examples

Callback = Callable[[CorrectionEvent], Awaitable[None] | None]
# What the broker did not give back by then is published again.
_RETRY_S = 30.0
# A reply that has missed its deadline is given so long to come all the same.
_LATE_REPLY_S = 2.0
# Of a request's properties, those that mean nothing later.
_MOMENTARY = (
    topics.REMAINING_MS,
    topics.ATTEMPT,
    topics.ROUTE,
    topics.GEAR,
    topics.EARLIER,
    topics.BELIEFS,
)
_log = structlog.get_logger()


class CorrectionDesk:
    """Corrections of one agent. Lives on the event loop of its bus."""

    def __init__(
        self,
        identity: Identity,
        corrections: SqliteCorrections,
        bus: MessageBus,
        *,
        clock: Clock,
        metrics: OutboxMetrics,
        tier_above: Tier | None,
        max_body_bytes: int,
    ) -> None:
        """``tier_above`` is who is asked again; None: nobody, and nothing new is waited for."""
        self._identity, self._corrections, self._bus = identity, corrections, bus
        self._clock, self._metrics = clock, metrics
        self._tier_above, self._max_body_bytes = tier_above, max_body_bytes
        self._topic = topics.agent_corrections(identity.region, identity.site)
        self._changed = asyncio.Event()
        self._chores = Chores()
        self._callbacks: list[Callback] = []
        self.is_closed = False
        replies = topics.agent_replies(identity.region, identity.site)
        bus.subscribe(replies, self._on_control, qos=1)
        bus.subscribe(self._topic, self._on_published, qos=1)
        bus.on_connection(lambda _: self._look())

    def start(self) -> None:
        """Begins to tell callbacks and the MQTT topic."""
        self._chores.keep_up(self._publish_all(), "corrections.publish")
        self._chores.start(self._tell_all(), "corrections.tell")

    async def close(self) -> None:
        """Ends all who wait for events, and what is told by itself."""
        self.hang_up()
        # A callback in progress is finished and noted: cut short, it would be called again.
        await self._chores.close()

    def hang_up(self) -> None:
        """Ends all who wait for events."""
        self.is_closed = True
        self._look()

    def wants(self, request: InferenceRequest) -> bool:
        """Whether a better answer is wanted for it, however late it comes."""
        return (
            self._tier_above is not None
            and not request.hop
            and not request.audit
            and request.residency.allows(self._tier_above)
            and num_examples(request.inputs) == 1
            and payload_bytes(request.inputs) <= self._max_body_bytes
        )

    def offer(self, course: Course, answer: Answer, request: InferenceRequest | None) -> None:
        """Asks again later for a request that was answered without those above.

        ``request`` is what of it climbs; None: nothing can, and nobody is asked.
        """
        if request is None:
            return
        above = course.reply.outcome if course.reply else None
        if not (is_unanswered(answer.outcome, answer.reason, above) and self.wants(request)):
            return
        message = request_message(
            msgspec.structs.replace(request, hop=request.hop + 1),
            topic="",
            response_topic="",
            correlation=b"",
            remaining_ms=1,
        )
        item = OutboxItem(
            new_id(),
            ItemKind.ESCALATION,
            self._clock.wall_s(),
            message.payload,
            properties=tuple(pair for pair in message.user if pair[0] not in _MOMENTARY),
        )
        was = said_of(answer, with_outputs=False)
        # A reply that is only late makes asking again needless.
        is_late = answer.reason is Reason.UPSTREAM_TIMEOUT
        not_before_s = self._clock.monotonic_s() + _LATE_REPLY_S if is_late else 0.0
        self._corrections.expect(request.request_id, was, item, not_before_s=not_before_s)

    def await_review(self, request: InferenceRequest, answer: Answer) -> None:
        """Waits for what people say of an answer that went to them, and tells those above so."""
        is_ours = not request.hop and not request.audit
        if self._tier_above is None or not is_ours or answer.reason is not Reason.REVIEW:
            return
        item = caller_item(self._identity, answer, self._clock)
        self._corrections.expect(request.request_id, said_of(answer, with_outputs=False), item)

    def heard_late(self, request_id: str, message: Message) -> None:
        """A reply that came after its request had been answered."""
        try:
            answer = parse_reply(message)
        except RequestError:
            return
        if answer.has_answer and not is_unanswered(answer.outcome, answer.reason):
            self._chores.start(self._apply(request_id, said_of(answer)), "correction.apply")

    async def known(self, request_id: str, wait_s: float = 0.0) -> Known | None:
        """What is known of a request, as soon as its correction is there or the time is over.

        Raises:
            StorageError: the disk does not say.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + wait_s
        while True:
            changed = self._changed
            known = await self._corrections.known(request_id)
            left_s = until_s - loop.time()
            if known is None or known.state != "waiting" or left_s <= 0 or self.is_closed:
                return known
            await _wait(changed, left_s)

    async def events(
        self, after: int = 0, heartbeat_s: float | None = None
    ) -> AsyncIterator[CorrectionEvent | None]:
        """Events after this number, as they come; None when there was none for ``heartbeat_s``.

        Raises:
            StorageError: the disk does not say.
        """
        while not self.is_closed:
            changed = self._changed
            found = await self._corrections.after(after)
            for event in found:
                after = event.seq
                yield event
            if not found and not await _wait(changed, heartbeat_s):
                yield None

    def on_correction(self, callback: Callback) -> None:
        """Calls back once with each event that no callback has had, also from before a restart."""
        self._callbacks.append(callback)
        self._look()

    def _look(self) -> None:
        # Whoever waits holds the old one; a new one misses nothing that comes from here on.
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _on_control(self, message: Message) -> None:
        if message.content_type != CONTROL_CONTENT_TYPE:
            return
        said = decode_control(message.payload)
        if isinstance(said, Correction):
            self._chores.start(self._take(said), "correction.take")

    async def _take(self, correction: Correction) -> None:
        said, was = correction.said, correction.was
        # What nobody asked for is taken from people alone.
        known = was if said.reason is Reason.REVIEW else None
        if not await self._apply(correction.request_id, said, known):
            self._metrics.count_correction("ignored")
        region, agent = self._identity.region, self._identity.site
        try:
            topic = topics.gateway_requests(region, topics.check_name(correction.gateway), agent)
            self._bus.publish(control(Applied((correction.item,)), topic))
        except (NotConnectedError, ValueError) as error:
            # It comes again, and then it is known.
            _log.debug("word.not_sent", gateway=correction.gateway[:64], error=str(error))

    async def _apply(self, request_id: str, said: Said, was: Said | None = None) -> bool:
        event = await self._corrections.apply(request_id, said, was)
        if event is None:
            return False
        self._metrics.count_correction("confirmed" if event.confirmed else "changed")
        _log.info(
            "correction.applied",
            request_id=request_id,
            seq=event.seq,
            confirmed=event.confirmed,
            after_s=event.after_s,
        )
        self._look()
        return True

    async def _publish_all(self) -> None:
        while True:
            changed = self._changed
            if self._bus.is_connected:
                try:
                    for event in await self._corrections.unpublished():
                        self._bus.publish(self._message(event))
                except (NotConnectedError, PayloadTooLargeError, StorageError) as error:
                    _log.warning("correction.not_published", error=str(error))
            await _wait(changed, _RETRY_S)

    def _message(self, event: CorrectionEvent) -> Message:
        return Message(
            topic=self._topic,
            payload=msgspec.json.encode(event),
            qos=1,
            content_type=JSON_CONTENT_TYPE,
        )

    def _on_published(self, message: Message) -> None:
        """Our own event, back from the broker: it has been delivered there."""
        try:
            event = msgspec.json.decode(message.payload, type=CorrectionEvent)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        self._chores.start(self._corrections.published(event.seq), "correction.published")

    async def _tell_all(self) -> None:
        while not self._chores.is_closing:
            changed = self._changed
            await self._tell_some()
            await _wait(changed, None)

    async def _tell_some(self) -> None:
        try:
            for event in await self._corrections.untold() if self._callbacks else ():
                await self._tell(event)
                await self._corrections.told(event.seq)
                if self._chores.is_closing:
                    return
        except StorageError as error:
            _log.warning("correction.not_told", error=str(error))

    async def _tell(self, event: CorrectionEvent) -> None:
        for callback in tuple(self._callbacks):
            try:
                called = callback(event)
                if inspect.isawaitable(called):
                    await called
            except Exception:  # noqa: BLE001 application code
                # An application's defect is not to hold up the events after this one.
                _log.exception("correction.callback_failed", seq=event.seq)


async def _wait(changed: asyncio.Event, timeout_s: float | None) -> bool:
    """Whether something has changed within the time."""
    try:
        async with asyncio.timeout(timeout_s):
            await changed.wait()
    except TimeoutError:
        return False
    return True
