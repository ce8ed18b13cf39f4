"""Answers the tier below: takes requests off the bus, refuses what is hopeless, replies once.

Every message that arrives ends in a reply or in a counter. A request is refused at once when it
cannot be read, is late already, or finds the queues full; a repeated id is computed once; an asker
that goes away frees its work. Audits have a few places of their own, and get in only while at most
half of those for requests are taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from dataclasses import dataclass, replace

import structlog

from runtime import topics
from runtime.adapters.metrics import TierMetrics
from runtime.codec import RequestBody
from runtime.core.admission import Admission, Urgency
from runtime.core.duplicates import Arrival, RecentRequests, RequestKey
from runtime.deadline import Deadline, parse_remaining_ms
from runtime.errors import (
    BackendError,
    MalformedBodyError,
    NotConnectedError,
    OverloadedError,
    PayloadTooLargeError,
    RequestError,
    ShuttingDownError,
    StoppedError,
    TierwiseError,
    TooLateError,
)
from runtime.exchange.course import Identity
from runtime.exchange.serving import Served, Serving
from runtime.exchange.wire import (
    CONTROL_CONTENT_TYPE,
    error_message,
    parse_request,
    reply_message,
)
from runtime.messages import (
    Answer,
    Applied,
    Cancel,
    InferenceRequest,
    Outcome,
    Reason,
    decode_control,
)
from runtime.ports import Clock, Message, MessageBus

# Finished replies that are kept for retries; replies are about a kilobyte.
MAX_KEPT_BYTES = 8 * 1024 * 1024
# Correlation data is kept with them, so it may not be as long as MQTT allows.
MAX_CORRELATION_BYTES = 128
# Of the places for requests, so many audits are worked on beside them.
AUDIT_SHARE = 8
# Who goes serves on until it was asked nothing for so long, at most for the other.
QUIET_S = 0.25
MAX_LINGER_S = 2.0
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class IngressLimits:
    """``default_budget_ms`` is for requests that carry none; the others bound what is taken in."""

    default_budget_ms: float
    max_budget_ms: float
    margin_ms: float
    max_pending: int
    max_body_bytes: int
    dedupe_window: int

    @property
    def max_pending_bytes(self) -> int:
        """All payloads in progress together: a quarter of the worst case."""
        return max(self.max_body_bytes, self.max_pending * self.max_body_bytes // 4)


@dataclass(frozen=True, slots=True)
class _Work:
    """A request that was taken in, and what its reply needs."""

    key: RequestKey
    reply_topic: str
    request: InferenceRequest
    body: RequestBody
    num_bytes: int
    arrived_s: float
    served: Served


class Ingress:
    """The door of a gateway or of the cloud. Lives on the event loop of its bus."""

    def __init__(
        self,
        bus: MessageBus,
        clock: Clock,
        metrics: TierMetrics,
        serving: Serving,
        limits: IngressLimits,
    ) -> None:
        self._bus, self._clock, self._metrics = bus, clock, metrics
        self._serving, self._limits = serving, limits
        self._admission = Admission(limits.max_pending, limits.max_pending_bytes)
        self._audits = Admission(
            max(1, limits.max_pending // AUDIT_SHARE),
            max(limits.max_body_bytes, limits.max_pending_bytes // AUDIT_SHARE),
        )
        self._recent: RecentRequests[Message] = RecentRequests(
            max(limits.dedupe_window, 2 * limits.max_pending), MAX_KEPT_BYTES
        )
        self._running: dict[RequestKey, asyncio.Task[Answer]] = {}
        self._is_draining = False
        self._asked = asyncio.Event()

    @property
    def queue_len(self) -> int:
        """Requests in progress; audits give way to them and are not among them."""
        return self._admission.count

    @property
    def identity(self) -> Identity:
        """Who answers here."""
        return self._serving.current.flow.identity

    def open(self) -> None:
        """Subscribes to our own request topic and takes turns at the shared one."""
        region, site = self.identity.region, self.identity.site
        self._bus.subscribe(topics.gateway_requests(region, site), self._on_message)
        self._bus.subscribe(topics.any_requests_shared(region), self._on_message)

    async def drain(self, timeout_s: float) -> None:
        """Serves until nobody asks any more, takes nothing new, and waits for what is in progress.

        Those below hear a moment later than the broker that we are going, and what they have asked
        until then is on its way: it would be lost with our connection.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MAX_LINGER_S):
                while await self._is_asked_within(QUIET_S):
                    pass
        self._is_draining = True
        running = list(self._running.values())
        if running:
            _, late = await asyncio.wait(running, timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _is_asked_within(self, timeout_s: float) -> bool:
        self._asked.clear()
        try:
            async with asyncio.timeout(timeout_s):
                return await self._asked.wait()
        except TimeoutError:
            return False

    def _on_message(self, message: Message) -> None:
        addressed = topics.parse_request_topic(message.topic)
        if addressed is None:
            self._metrics.count_ignored("unknown_topic")
            return
        if message.content_type == CONTROL_CONTENT_TYPE:
            self._on_control(addressed.agent, message)
            return
        own_topic = topics.agent_replies(addressed.region, addressed.agent)
        self._asked.set()
        is_audit = bool(message.property(topics.AUDIT))
        if not is_audit:
            self._metrics.count_received()
        try:
            self._take(addressed.agent, own_topic, message)
        except TierwiseError as error:
            _log.info("request.refused", asker=addressed.agent, code=error.code, error=str(error))
            self._count_refusal(error.code, is_audit=is_audit)
            self._send(
                error_message(
                    error,
                    topic=own_topic,
                    correlation=message.correlation_data,
                    request_id=message.property(topics.REQUEST_ID)[:128],
                    queue_len=self.queue_len,
                )
            )

    def _on_control(self, asker: str, message: Message) -> None:
        control = decode_control(message.payload)
        if isinstance(control, Applied):
            # Whoever sends corrections listens for these.
            return
        if not isinstance(control, Cancel):
            self._metrics.count_ignored("undecodable")
            return
        for key in [key for key in self._running if key[:2] == (asker, control.request_id)]:
            # Forgotten at once: who asks again before the task has ended starts afresh.
            if self._recent.withdraw(key, message.correlation_data):
                self._running.pop(key).cancel()

    def _take(self, asker: str, own_topic: str, message: Message) -> None:
        """Lets one request in.

        Raises:
            RequestError: it cannot be answered.
            RefusedError: it is late or will be, there is no room, or an operator has stopped us.
            ShuttingDownError: nothing new is taken.
        """
        arrived_s = self._clock.monotonic_s()
        # Anyone may name any response topic; only the asker's own is ever written to.
        if message.response_topic not in ("", own_topic):
            raise MalformedBodyError(f"the response topic must be {own_topic}")
        if len(message.correlation_data) > MAX_CORRELATION_BYTES:
            raise MalformedBodyError(f"correlation data is over {MAX_CORRELATION_BYTES} bytes")
        if self._is_draining:
            raise ShuttingDownError("this gateway is draining")
        served = self._serving.current
        flow = served.flow
        if flow.switch is not None:
            flow.switch.check_asker(asker)
        stated = message.property(topics.REMAINING_MS)
        remaining_ms = parse_remaining_ms(stated) if stated else self._limits.default_budget_ms
        remaining_ms = min(remaining_ms, self._limits.max_budget_ms)
        if remaining_ms <= self._limits.margin_ms:
            raise TooLateError(f"{remaining_ms:.1f} ms are left")
        request, body = parse_request(
            message,
            default_model=flow.model.manifest.name,
            remaining_ms=remaining_ms,
            max_bytes=self._limits.max_body_bytes,
        )
        flow.check(request)
        key = RequestKey(asker, request.request_id, _question_digest(message))
        arrival, reply = self._recent.arrive(key, message.correlation_data)
        if arrival is not Arrival.FRESH:
            if not request.audit:
                self._metrics.count_ignored("duplicate")
            if reply is not None:
                self._send(replace(reply, correlation_data=message.correlation_data))
            return
        num_bytes = len(message.payload)
        try:
            self._check_time(request, flow.needed_ms(request))
            self._admit(request, num_bytes)
        except TierwiseError:
            self._recent.abandon(key)
            raise
        work = _Work(key, own_topic, request, body, num_bytes, arrived_s, served)
        self._start(work, Deadline.after(arrived_s, remaining_ms))

    def _check_time(self, request: InferenceRequest, needed_ms: float) -> None:
        """Refuses work that cannot be done in time, so that whoever asked can ask another.

        Raises:
            TooLateError: it cannot be.
        """
        if request.remaining_ms - self._limits.margin_ms < needed_ms:
            raise TooLateError(
                f"{request.remaining_ms:.1f} ms are left, about {needed_ms:.1f} ms are needed",
                retry_after_ms=needed_ms,
            )

    def _admit(self, request: InferenceRequest, num_bytes: int) -> None:
        """Finds a place.

        Raises:
            OverloadedError: there is none.
        """
        if request.audit and 2 * self._admission.count > self._limits.max_pending:
            raise OverloadedError("no audits while more than half of the places are taken")
        self._places(request).enter(num_bytes, Urgency.of(request.priority))

    def _places(self, request: InferenceRequest) -> Admission:
        return self._audits if request.audit else self._admission

    def _count_refusal(self, code: str, *, is_audit: bool) -> None:
        if is_audit:
            self._metrics.count_served_audit(code)
        else:
            self._metrics.count_refusal(code)

    def _start(self, work: _Work, deadline: Deadline) -> None:
        work.served.enter()
        task = asyncio.get_running_loop().create_task(
            work.served.flow.answer(work.request, deadline),
            name=f"request {work.request.request_id}",
        )
        self._running[work.key] = task
        self._metrics.set_pending(self.queue_len)
        task.add_done_callback(lambda ended: self._on_end(work, ended))

    def _on_end(self, work: _Work, task: asyncio.Task[Answer]) -> None:
        work.served.leave()
        took_ms = (self._clock.monotonic_s() - work.arrived_s) * 1000
        self._places(work.request).leave(work.num_bytes, took_ms)
        self._metrics.set_pending(self.queue_len)
        if self._running.get(work.key) is not task:
            # Its asker cancelled it; the key may belong to a younger task by now. One that had
            # its answer by then has been counted with it.
            if task.cancelled() or task.exception() is not None:
                self._count_refusal("cancelled", is_audit=work.request.audit)
            return
        del self._running[work.key]
        if task.cancelled():
            self._count_refusal("cancelled", is_audit=work.request.audit)
            reply = self._encoded(work, ShuttingDownError("ended before it was answered"))
            correlations = self._recent.abandon(work.key)
        else:
            result = self._result_of(work, task)
            reply = self._encoded(work, result)
            correlations = self._recent.finish(work.key, reply, len(reply.payload))
            if not (isinstance(result, Answer) and result.outcome is Outcome.ANSWERED):
                # A retry deserves another try, not the same bad news again.
                self._recent.abandon(work.key)
        for correlation in correlations:
            self._send(replace(reply, correlation_data=correlation))

    def _result_of(self, work: _Work, task: asyncio.Task[Answer]) -> Answer | TierwiseError:
        error = task.exception()
        if error is None:
            answer = task.result()
            # Whoever is stopped on the way says the same as at the door.
            return StoppedError(answer.notice) if answer.reason is Reason.STOPPED else answer
        code = error.code if isinstance(error, TierwiseError) else TierwiseError.code
        self._count_refusal(code, is_audit=work.request.audit)
        if isinstance(error, TierwiseError):
            return error
        _log.error("request.crashed", request_id=work.request.request_id, exc_info=error)
        return TierwiseError(str(error))

    def _encoded(self, work: _Work, result: Answer | TierwiseError) -> Message:
        """The reply, still without correlation data."""
        if isinstance(result, Answer):
            try:
                return reply_message(
                    result,
                    topic=work.reply_topic,
                    correlation=b"",
                    body=work.body,
                    queue_len=self.queue_len,
                )
            except RequestError as error:
                # An output that the form which was asked for cannot carry, such as NaN as JSON.
                _log.warning("answer.not_encoded", error=str(error))
                result = BackendError(str(error))
        return error_message(
            result,
            topic=work.reply_topic,
            correlation=b"",
            request_id=work.request.request_id,
            queue_len=self.queue_len,
        )

    def _send(self, message: Message) -> None:
        try:
            self._bus.publish(message)
        except (NotConnectedError, PayloadTooLargeError, RequestError) as error:
            # The asker's own timer ends its wait; there is no other way to tell it.
            _log.warning("reply.not_sent", topic=message.topic, error=str(error))
            self._metrics.count_unsent_reply()


def _question_digest(message: Message) -> bytes:
    """Tells questions apart that have the same id; how it was to be answered is part of one."""
    digest = hashlib.blake2b(message.payload, digest_size=16)
    directions = (topics.ROUTE, topics.GEAR, topics.EARLIER, topics.BELIEFS)
    for name in (*directions, topics.AUDIT, topics.STANDS, topics.FORWARDED_BY):
        # No text of a property holds a NUL (MQTT 5, 1.5.4).
        digest.update(b"\0" + message.property(name).encode())
    return digest.digest()
