"""Asks the tier above: picks a gateway, sends, waits no longer than the budget, and never raises.

Whatever goes wrong becomes a value that says what, so that the answer in hand is never lost. A
gateway that is slow or refuses may have a second one asked beside it, once. Late and lost replies
teach the link estimate; a reply that nobody waits for any more is counted.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import structlog

from runtime import topics
from runtime.adapters.metrics import TierMetrics
from runtime.core.breaker import Pass
from runtime.core.hedging import HEDGE_AFTER, HEDGE_WITHIN, HedgeBudget, hedge_delay_ms
from runtime.core.link import LinkEstimator, LinkSettings, Observed
from runtime.core.pending import Pending, PendingTable, correlation_ids
from runtime.deadline import Deadline
from runtime.errors import NotConnectedError, PayloadTooLargeError, RequestError
from runtime.exchange.tracing import OpenSpan, Tracer
from runtime.exchange.upstreams import Upstreams
from runtime.exchange.wire import (
    CONTROL_CONTENT_TYPE,
    cancel_message,
    parse_queue_len,
    parse_reply,
    parse_retry_after_ms,
    request_message,
)
from runtime.messages import Answer, InferenceRequest, Outcome, Reason, Tensors, Tier
from runtime.ports import Clock, Message, MessageBus

# Of what is left, the tiers above get at least this share, however slow the link is.
MIN_WORK_SHARE = 0.2
# What the way usually takes is kept back for it: more would refuse what can be done as a rule.
TRAVEL_QUANTILE = 0.5
# Requests that were given up, and whose replies may still come.
MAX_GIVEN_UP = 1024
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class UplinkSettings:
    """``asker`` is our id below; ``pinned`` the only gateway to ask, empty to choose by load."""

    tier_above: Tier
    region: str
    asker: str
    pinned: str
    max_pending: int
    reserve_ms: float
    link: LinkSettings
    hedge_share: float = 0.02


@dataclass(frozen=True, slots=True)
class Prospect:
    """Whom we would ask now, and the chance that the reply returns in time."""

    gateway: str | None
    chance: float
    probe_is_due: bool


@dataclass(frozen=True, slots=True)
class UpstreamReply:
    """How asking ended; ``answer`` is there when a reply could be read.

    ``elapsed_ms`` is how long it was waited for, None when nothing was sent.
    """

    outcome: Outcome
    reason: Reason
    answer: Answer | None = None
    sent_bytes: int = 0
    elapsed_ms: float | None = None


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One message on its way up; ``future`` ends with the reply, or with None when we stop."""

    gateway: str
    topic: str
    correlation: bytes
    sent_s: float
    num_bytes: int
    sent_bytes: int
    future: asyncio.Future[Message | None]
    passed: Pass | None = None
    span: OpenSpan | None = None

    def traced(self, *, is_failed: bool = False, **attributes: str) -> None:
        """How it ended, where it is traced."""
        if self.span is not None:
            self.span.end(is_failed=is_failed, **attributes)


@dataclass(frozen=True, slots=True)
class _GivenUp:
    """An attempt whose reply did not come in time."""

    link: LinkEstimator
    observed: Observed
    sent_s: float
    request_id: str
    given_up_s: float
    span: OpenSpan | None = None


class Uplink:
    """The way up from one process. Not thread-safe: lives on the event loop of its bus.

    Audits take no place from requests, and the link estimate learns nothing from them: they wait
    for all tiers, and are the first to be turned away.
    """

    def __init__(
        self,
        bus: MessageBus,
        clock: Clock,
        metrics: TierMetrics,
        settings: UplinkSettings,
        *,
        epoch: int,
        chooser: random.Random | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._tracer = tracer
        self._bus, self._clock, self._metrics, self._settings = bus, clock, metrics, settings
        self._replies_to = topics.agent_replies(settings.region, settings.asker)
        self._correlations = correlation_ids(epoch)
        self._pending: PendingTable[_Attempt] = PendingTable(settings.max_pending)
        self._audits: PendingTable[_Attempt] = PendingTable(settings.max_pending)
        self._given_up: OrderedDict[bytes, _GivenUp] = OrderedDict()
        self._hedges = HedgeBudget(settings.hedge_share)
        # Told of replies that come after their deadline; who is waited for even then is not
        # cancelled for being late.
        self.on_late: Callable[[str, Message], None] | None = None
        self.wants_late: Callable[[InferenceRequest], bool] = lambda _: False
        self.upstreams = Upstreams(
            bus,
            metrics,
            tier_above=settings.tier_above,
            region=settings.region,
            pinned=settings.pinned,
            link=settings.link,
            chooser=chooser,
        )
        bus.subscribe(self._replies_to, self._on_reply)

    @property
    def tier_above(self) -> Tier:
        """Where requests go."""
        return self._settings.tier_above

    @property
    def num_pending(self) -> int:
        """Requests that wait for a reply."""
        return len(self._pending)

    def choose(self) -> str | None:
        """The gateway to ask, None while there is none."""
        return self.upstreams.choose(self._clock.monotonic_s())

    def prospect(self, waits_ms: float, *, num_bytes: int = 0) -> Prospect:
        """The gateway to ask and its chance to answer while we wait."""
        now_s = self._clock.monotonic_s()
        gateway = self.upstreams.choose(now_s)
        if gateway is None:
            return Prospect(None, 0.0, probe_is_due=False)
        if waits_ms <= self._settings.reserve_ms:
            # Nothing would be sent, so this is no probe either.
            return Prospect(gateway, 0.0, probe_is_due=False)
        link = self.upstreams.link(gateway)
        chance = link.chance(now_s, waits_ms, num_bytes=num_bytes)
        self._metrics.set_link_chance(chance)
        return Prospect(gateway, chance, link.probe_is_due(now_s))

    async def ask(
        self, request: InferenceRequest, deadline: Deadline, gateway: str
    ) -> UpstreamReply:
        """Sends the request up and waits until the deadline at most.

        A caller that goes away (cancellation) also takes the work off the gateway.
        """
        first = self._send(request, deadline, gateway)
        if isinstance(first, UpstreamReply):
            return first
        attempts = [first]
        try:
            if not request.audit:
                self._hedges.note_request()
            return await self._wait(request, deadline, attempts)
        except asyncio.CancelledError:
            self._cancel(request, attempts)
            raise
        finally:
            now_s = self._clock.monotonic_s()
            for attempt in attempts:
                self._waiting(request).resolve(attempt.correlation)
                self.upstreams.leave(attempt.gateway, attempt.passed, now_s)

    def _send(
        self, request: InferenceRequest, deadline: Deadline, gateway: str
    ) -> _Attempt | UpstreamReply:
        """Puts a request on its way, or says why it cannot be."""
        sent_s = self._clock.monotonic_s()
        waits_ms = deadline.remaining_ms(sent_s) - self._settings.reserve_ms
        if waits_ms <= 0:
            return UpstreamReply(Outcome.FAILED, Reason.NO_TIME)
        link = self.upstreams.link(gateway)
        size = payload_bytes(request.inputs)
        travel_ms = link.travel_ms(TRAVEL_QUANTILE, num_bytes=size) or 0.0
        waiting = self._waiting(request)
        if waiting.is_full:
            return UpstreamReply(Outcome.FAILED, Reason.OVERLOADED)
        remaining_ms = max(MIN_WORK_SHARE * waits_ms, waits_ms - travel_ms)
        onward = msgspec.structs.replace(request, hop=request.hop + 1)
        span = None
        if self._tracer is not None:
            span = self._tracer.hop(request, gateway, remaining_ms)
            if span is not None:
                onward = msgspec.structs.replace(onward, traceparent=span.traceparent)
        correlation = next(self._correlations)
        topic = topics.gateway_requests(self._settings.region, gateway, self._settings.asker)
        message = request_message(
            onward,
            topic=topic,
            response_topic=self._replies_to,
            correlation=correlation,
            remaining_ms=remaining_ms,
        )
        try:
            sent_bytes = self._bus.publish(message)
        except (NotConnectedError, PayloadTooLargeError) as error:
            is_away = isinstance(error, NotConnectedError)
            reason = Reason.NO_UPSTREAM if is_away else Reason.UPSTREAM_REFUSED
            if span is not None:
                span.end(outcome="not_sent", reason=reason.value, is_failed=True)
            return UpstreamReply(Outcome.FAILED, reason)
        self._metrics.add_uplink_bytes(sent_bytes)
        passed = None
        if not request.audit:
            link.note_sent(sent_s)
            self._metrics.count_sent()
            passed = self.upstreams.enter(gateway, sent_s)
        future: asyncio.Future[Message | None] = asyncio.get_running_loop().create_future()
        attempt = _Attempt(
            gateway, topic, correlation, sent_s, size, sent_bytes, future, passed, span
        )
        waiting.add(correlation, Pending(sent_s, attempt))
        return attempt

    async def _wait(
        self, request: InferenceRequest, deadline: Deadline, attempts: list[_Attempt]
    ) -> UpstreamReply:
        """The first reply that is no failure; of one gateway, or of a second one beside it."""
        waiting = list(attempts)
        last = UpstreamReply(
            Outcome.FAILED,
            Reason.UPSTREAM_TIMEOUT,
            sent_bytes=attempts[0].sent_bytes,
            elapsed_ms=deadline.remaining_ms(attempts[0].sent_s),
        )
        may_ask_a_second = not request.audit
        while waiting:
            timeout_ms = deadline.remaining_ms(self._clock.monotonic_s())
            if may_ask_a_second:
                timeout_ms = self._until_hedge_ms(waiting[0], timeout_ms)
            done, _ = await asyncio.wait(
                [attempt.future for attempt in waiting],
                timeout=max(0.0, timeout_ms / 1000),
                return_when=asyncio.FIRST_COMPLETED,
            )
            for attempt in [one for one in waiting if one.future in done]:
                waiting.remove(attempt)
                last = self._heard(request, attempt, attempt.future.result())
                attempt.traced(
                    outcome=last.outcome.value,
                    reason=last.reason.value,
                    is_failed=last.outcome is Outcome.FAILED,
                )
                if last.outcome is not Outcome.FAILED:
                    self._cancel(request, waiting)
                    return last
            if may_ask_a_second:
                # The first one is slow, or has failed.
                may_ask_a_second = False
                second = self._second(request, deadline, attempts[0])
                if second is not None:
                    attempts.append(second)
                    waiting.append(second)
            elif not done:
                break
        self._give_up(request, waiting)
        return last

    def _until_hedge_ms(self, first: _Attempt, waits_ms: float) -> float:
        """How long the first gateway is waited for before a second one may be asked."""
        link = self.upstreams.link(first.gateway)
        delay_ms = hedge_delay_ms(
            link.elapsed_ms(HEDGE_AFTER, num_bytes=first.num_bytes),
            link.elapsed_ms(HEDGE_WITHIN, num_bytes=first.num_bytes),
            waits_ms,
        )
        return waits_ms if delay_ms is None else delay_ms

    def _second(
        self, request: InferenceRequest, deadline: Deadline, first: _Attempt
    ) -> _Attempt | None:
        """Asks another gateway, if there is one, the time, and a hedge left."""
        now_s = self._clock.monotonic_s()
        other = self.upstreams.choose(now_s, other_than=first.gateway)
        if other is None:
            return None
        known = self.upstreams.link(other), self.upstreams.link(first.gateway)
        usual_ms = [link.elapsed_ms(HEDGE_WITHIN, num_bytes=first.num_bytes) for link in known]
        needed_ms = next((ms for ms in usual_ms if ms is not None), 0.0)
        if deadline.remaining_ms(now_s) <= needed_ms or not self._hedges.take():
            return None
        again = msgspec.structs.replace(request, attempt=request.attempt + 1)
        second = self._send(again, deadline, other)
        if isinstance(second, UpstreamReply):
            return None
        self._metrics.count_hedge()
        return second

    def _heard(
        self, request: InferenceRequest, attempt: _Attempt, message: Message | None
    ) -> UpstreamReply:
        """What a reply says; it teaches how the link is."""
        if message is None:
            return UpstreamReply(Outcome.FAILED, Reason.NO_UPSTREAM, sent_bytes=attempt.sent_bytes)
        answer: Answer | None
        try:
            answer = parse_reply(message)
        except RequestError as error:
            _log.warning("reply.not_understood", error=str(error))
            self._metrics.count_ignored("undecodable")
            answer = None
        now_s = self._clock.monotonic_s()
        elapsed_ms = (now_s - attempt.sent_s) * 1000
        if not request.audit:
            self.upstreams.link(attempt.gateway).note_reply(
                now_s,
                elapsed_ms,
                num_bytes=attempt.num_bytes,
                remote_ms=answer.latency_ms if answer is not None and answer.hops else None,
            )
            self.upstreams.note_answered(attempt.gateway, attempt.passed, now_s, answer)
            self.upstreams.note_answering(attempt.gateway, parse_queue_len(message))
            if retry_after_ms := parse_retry_after_ms(message):
                self.upstreams.note_refusing(attempt.gateway, now_s, retry_after_ms)
        if answer is None:
            return UpstreamReply(
                Outcome.FAILED, Reason.UPSTREAM_FAILED, sent_bytes=attempt.sent_bytes
            )
        return UpstreamReply(answer.outcome, answer.reason, answer, attempt.sent_bytes, elapsed_ms)

    def _give_up(self, request: InferenceRequest, silent: Sequence[_Attempt]) -> None:
        """Nobody waits for these any more; what they still say teaches the link estimate."""
        for attempt in silent:
            attempt.traced(
                outcome=Outcome.FAILED.value, reason=Reason.UPSTREAM_TIMEOUT.value, is_failed=True
            )
        if not self.wants_late(request):
            self._cancel(request, silent)
        if request.audit:
            return
        now_s = self._clock.monotonic_s()
        for attempt in silent:
            link = self.upstreams.link(attempt.gateway)
            waited_ms = (now_s - attempt.sent_s) * 1000
            observed = link.note_lost(now_s, waited_ms, num_bytes=attempt.num_bytes)
            self.upstreams.note_silent(attempt.gateway, now_s)
            self._given_up[attempt.correlation] = _GivenUp(
                link, observed, attempt.sent_s, request.request_id, now_s, attempt.span
            )
        while len(self._given_up) > MAX_GIVEN_UP:
            self._given_up.popitem(last=False)

    def _cancel(self, request: InferenceRequest, attempts: Sequence[_Attempt]) -> None:
        for attempt in attempts:
            attempt.traced(outcome="cancelled")
            try:
                self._bus.publish(
                    cancel_message(
                        request.request_id, topic=attempt.topic, correlation=attempt.correlation
                    )
                )
            except NotConnectedError:
                # The gateway's own deadline ends the work.
                _log.debug("cancel.not_sent", request_id=request.request_id)

    def _waiting(self, request: InferenceRequest) -> PendingTable[_Attempt]:
        return self._audits if request.audit else self._pending

    def _on_reply(self, message: Message) -> None:
        if message.content_type == CONTROL_CONTENT_TYPE:
            # A correction, or a word about the outbox: others listen for those.
            return
        correlation = message.correlation_data
        waiting = self._pending.resolve(correlation) or self._audits.resolve(correlation)
        if waiting is not None and not waiting.value.future.done():
            waiting.value.future.set_result(message)
            return
        self._metrics.count_ignored("late_reply")
        late = self._given_up.pop(correlation, None)
        if late is not None:
            elapsed_ms = (self._clock.monotonic_s() - late.sent_s) * 1000
            late.link.note_late(late.observed, elapsed_ms)
            if late.span is not None:
                outcome = message.property(topics.OUTCOME)[:32]
                late.span.past("late_answer", late.given_up_s, {"outcome": outcome}, is_child=True)
            if self.on_late is not None:
                self.on_late(late.request_id, message)

    async def close(self) -> None:
        """Ends all waits; whoever waits gets a failed reply, and so keeps the answer in hand."""
        for waiting in (*self._pending.drain(), *self._audits.drain()):
            if not waiting.value.future.done():
                waiting.value.future.set_result(None)


def payload_bytes(inputs: Tensors) -> int:
    """About what a request takes on the way."""
    return sum(array.nbytes for array in inputs.values())
