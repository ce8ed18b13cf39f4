"""Asks the tier above: picks a gateway, sends, waits no longer than the budget, and never raises.

Whatever goes wrong becomes a value that says what, so that the answer in hand is never lost. Late
and lost replies teach the link estimate; a reply that nobody waits for is counted and dropped.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

import msgspec
import structlog

from runtime import topics
from runtime.adapters.metrics import TierMetrics
from runtime.core.gateways import GatewayBook
from runtime.core.link import LinkEstimator, LinkSettings
from runtime.core.pending import Pending, PendingTable, correlation_ids
from runtime.deadline import Deadline
from runtime.errors import (
    NotConnectedError,
    OverloadedError,
    PayloadTooLargeError,
    RequestError,
)
from runtime.exchange.wire import cancel_message, parse_reply, request_message
from runtime.messages import (
    Answer,
    Birth,
    ControlMessage,
    Draining,
    InferenceRequest,
    Offline,
    Outcome,
    Reason,
    Tier,
    decode_control,
)
from runtime.ports import Clock, Message, MessageBus

# A gateway that did not reply is asked again only after this time, if there is another one.
AVOID_S = 2.0
MAX_LINKS = 256
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
    ) -> None:
        self._bus, self._clock, self._metrics, self._settings = bus, clock, metrics, settings
        self._replies_to = topics.agent_replies(settings.region, settings.asker)
        self._correlations = correlation_ids(epoch)
        # A wait ends with a reply, or with None when we stop.
        self._pending: PendingTable[asyncio.Future[Message | None]] = PendingTable(
            settings.max_pending
        )
        self._audits: PendingTable[asyncio.Future[Message | None]] = PendingTable(
            settings.max_pending
        )
        self._book = GatewayBook()
        self._links: dict[str, LinkEstimator] = {}
        self._failed_at_s: dict[str, float] = {}
        # Spreads load; nothing secret depends on it.
        self._chooser = chooser or random.Random()  # noqa: S311
        bus.subscribe(self._replies_to, self._on_reply)
        bus.subscribe(topics.gateway_state(settings.region), self._on_state, qos=1)
        bus.on_connection(self._on_connection)

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
        if not self._bus.is_connected:
            return None
        now_s = self._clock.monotonic_s()
        failed = {g for g, at_s in self._failed_at_s.items() if now_s - at_s < AVOID_S}
        return self._book.choose(
            avoid=frozenset(failed),
            draws=(self._chooser.random(), self._chooser.random()),
            pinned=self._settings.pinned,
        )

    def prospect(self, waits_ms: float) -> Prospect:
        """The gateway to ask and its chance to answer while we wait."""
        gateway = self.choose()
        if gateway is None:
            return Prospect(None, 0.0, probe_is_due=False)
        now_s = self._clock.monotonic_s()
        link = self._link(gateway)
        if waits_ms <= self._settings.reserve_ms:
            # Nothing would be sent, so this is no probe either.
            return Prospect(gateway, 0.0, probe_is_due=False)
        chance = link.chance(now_s, waits_ms)
        self._metrics.set_link_chance(chance)
        return Prospect(gateway, chance, link.probe_is_due(now_s))

    async def ask(
        self, request: InferenceRequest, deadline: Deadline, gateway: str
    ) -> UpstreamReply:
        """Sends the request up and waits until the deadline at most.

        A caller that goes away (cancellation) also takes the work off the gateway.
        """
        sent_s = self._clock.monotonic_s()
        waits_ms = deadline.remaining_ms(sent_s)
        remaining_ms = waits_ms - self._settings.reserve_ms
        if remaining_ms <= 0:
            return UpstreamReply(Outcome.FAILED, Reason.NO_TIME)
        correlation = next(self._correlations)
        topic = topics.gateway_requests(self._settings.region, gateway, self._settings.asker)
        future: asyncio.Future[Message | None] = asyncio.get_running_loop().create_future()
        message = request_message(
            replace_hop(request),
            topic=topic,
            response_topic=self._replies_to,
            correlation=correlation,
            remaining_ms=remaining_ms,
        )
        waiting = self._audits if request.audit else self._pending
        try:
            waiting.add(correlation, Pending(sent_s, future))
        except OverloadedError:
            return UpstreamReply(Outcome.FAILED, Reason.OVERLOADED)
        link = None if request.audit else self._link(gateway)
        try:
            sent_bytes = self._bus.publish(message)
            if link is not None:
                link.note_sent(sent_s)
            self._metrics.add_uplink_bytes(sent_bytes)
            reply = await asyncio.wait_for(future, waits_ms / 1000)
        except NotConnectedError:
            return UpstreamReply(Outcome.FAILED, Reason.NO_UPSTREAM)
        except PayloadTooLargeError:
            return UpstreamReply(Outcome.FAILED, Reason.UPSTREAM_REFUSED)
        except TimeoutError:
            if link is not None:
                now_s = self._clock.monotonic_s()
                link.note_lost(now_s, waits_ms)
                self._failed_at_s[gateway] = now_s
            return UpstreamReply(
                Outcome.FAILED,
                Reason.UPSTREAM_TIMEOUT,
                sent_bytes=sent_bytes,
                elapsed_ms=waits_ms,
            )
        except asyncio.CancelledError:
            self._cancel_above(request.request_id, topic, correlation)
            raise
        finally:
            waiting.resolve(correlation)
        now_s = self._clock.monotonic_s()
        elapsed_ms = (now_s - sent_s) * 1000
        if reply is not None and link is not None:
            link.note_reply(now_s, elapsed_ms)
            self._failed_at_s.pop(gateway, None)
        return self._read(reply, sent_bytes, elapsed_ms)

    def _read(self, reply: Message | None, sent_bytes: int, elapsed_ms: float) -> UpstreamReply:
        if reply is None:
            return UpstreamReply(Outcome.FAILED, Reason.NO_UPSTREAM, sent_bytes=sent_bytes)
        try:
            answer = parse_reply(reply)
        except RequestError as error:
            _log.warning("reply.not_understood", error=str(error))
            self._metrics.count_ignored("undecodable")
            return UpstreamReply(Outcome.FAILED, Reason.UPSTREAM_FAILED, sent_bytes=sent_bytes)
        return UpstreamReply(answer.outcome, answer.reason, answer, sent_bytes, elapsed_ms)

    def _cancel_above(self, request_id: str, topic: str, correlation: bytes) -> None:
        try:
            self._bus.publish(cancel_message(request_id, topic=topic, correlation=correlation))
        except NotConnectedError:
            # The gateway's own deadline ends the work.
            _log.debug("cancel.not_sent", request_id=request_id)

    def _link(self, gateway: str) -> LinkEstimator:
        return self._links.setdefault(gateway, LinkEstimator(self._settings.link))

    def _on_reply(self, message: Message) -> None:
        correlation = message.correlation_data
        waiting = self._pending.resolve(correlation) or self._audits.resolve(correlation)
        if waiting is None or waiting.value.done():
            self._metrics.count_ignored("late_reply")
            return
        waiting.value.set_result(message)

    def _on_state(self, message: Message) -> None:
        if not message.payload:
            # A retained state that was removed, by an operator for instance.
            self._book.forget(topics.site_of_state(message.topic))
            return
        state = decode_control(message.payload)
        if state is None or not self._speaks_for_itself(message.topic, state):
            self._metrics.count_ignored("undecodable")
            return
        if not self._book.note(state):
            self._metrics.count_ignored("stale_state")
            return
        if len(self._links) > MAX_LINKS:
            # So that ids cannot pile up; an estimate outlives a reconnect, or a gate would reopen.
            for gone in self._links.keys() - self._book.online.keys():
                del self._links[gone]
                self._failed_at_s.pop(gone, None)

    def _speaks_for_itself(self, topic: str, state: ControlMessage) -> bool:
        """Whether a state is that of a gateway of the tier above, said at that gateway's topic.

        The topic is what the broker's access rules check; without this, one gateway could say that
        another is offline, or a region's gateways could take one another for the cloud.
        """
        return (
            isinstance(state, Birth | Draining | Offline)
            and state.tier is self._settings.tier_above
            and topic == topics.gateway_state(self._settings.region, state.site)
        )

    def _on_connection(self, is_connected: bool) -> None:  # noqa: FBT001 the port's signature
        if not is_connected:
            self._book.forget_all()

    async def close(self) -> None:
        """Ends all waits; whoever waits gets a failed reply, and so keeps the answer in hand."""
        for waiting in (*self._pending.drain(), *self._audits.drain()):
            if not waiting.value.done():
                waiting.value.set_result(None)


def replace_hop(request: InferenceRequest) -> InferenceRequest:
    """The request as the tier above counts it."""
    return msgspec.structs.replace(request, hop=request.hop + 1)
