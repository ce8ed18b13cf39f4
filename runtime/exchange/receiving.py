"""Takes over what agents, or gateways, below have kept in their outboxes.

Rules of this file:
  * an item is acknowledged when it is durably taken over, and applied once, whoever sends it again;
  * an escalation stays with its sender until it is answered here; then the answer waits here until
    the agent has it. While the tiers above cannot be asked either, it is put off: a request gets
    one correction, and that is to be the best;
  * requests go first: escalations that nobody waits for are worked on while no request is;
  * residency was obeyed by the sender and is obeyed again: the flow refuses what may not be here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

import msgspec
import structlog

from runtime import topics
from runtime.adapters.outbox_metrics import OutboxMetrics
from runtime.adapters.received import SqliteReceived
from runtime.core.merging import speaks_for
from runtime.core.outbox import is_unanswered
from runtime.deadline import Deadline
from runtime.errors import (
    MalformedBodyError,
    NotConnectedError,
    PayloadTooLargeError,
    RequestError,
    StorageError,
    TierwiseError,
)
from runtime.exchange.chores import Chores
from runtime.exchange.course import Identity
from runtime.exchange.flow import RequestFlow
from runtime.exchange.items import control, derived_id, parse_item, said_of
from runtime.exchange.serving import Serving
from runtime.exchange.wire import parse_request
from runtime.messages import (
    Answer,
    Applied,
    ControlMessage,
    Correction,
    Deferred,
    InferenceRequest,
    ItemKind,
    Reason,
    Refused,
    Tier,
    encode_control,
)
from runtime.ports import Clock, Message, MessageBus, OutboxItem, PutResult
from runtime.telemetry import decode_rollup

# Escalations that wait for their turn, and those that are worked on.
MAX_WAITING = 64
NUM_WORKERS = 2
# The lowest rank, at every tier on the way.
LATE_PRIORITY = 3
_MAX_PAUSE_S = 5.0
_POLL_S = 0.02
_log = structlog.get_logger()


Applier = Callable[[OutboxItem], Awaitable[object]]
# Everything else is also kept, for whoever looks into the files.
_ENDS_WITH_APPLYING = (ItemKind.UPDATE, ItemKind.ALERT, ItemKind.METRICS, ItemKind.REVIEW)


def _is_never_busy() -> bool:
    return False


class _Arrived(NamedTuple):
    """An item in hand; ``said_id`` is what its sender calls it."""

    agent: str
    said_id: str
    item: OutboxItem
    message: Message


class Receiver:
    """The door for what is late. Lives on the event loop of its bus."""

    def __init__(
        self,
        identity: Identity,
        bus: MessageBus,
        serving: Serving,
        received: SqliteReceived,
        *,
        clock: Clock,
        metrics: OutboxMetrics,
        budget_ms: float = 30_000.0,
        retry_after_ms: float = 2000.0,
        max_body_bytes: int = 1_048_576,
    ) -> None:
        self._identity, self._bus, self._serving = identity, bus, serving
        self._received, self._clock, self._metrics = received, clock, metrics
        self._budget_ms, self._retry_after_ms = budget_ms, retry_after_ms
        self._max_body_bytes = max_body_bytes
        self._in_hand: set[str] = set()
        self._waiting: asyncio.Queue[_Arrived] = asyncio.Queue(MAX_WAITING)
        self._chores = Chores()
        self.is_busy: Callable[[], bool] = _is_never_busy
        # Told who has been heard of.
        self.on_heard: Callable[[str], None] = lambda _: None
        # Who takes items of a kind over, durably and once; they raise ``RequestError`` about what
        # is never to come again. Other kinds are kept, or sent on.
        self.appliers: Mapping[ItemKind, Applier] = {}

    def open(self) -> None:
        """Takes turns with the other gateways of the region."""
        self._bus.subscribe(topics.up_shared(self._identity.region), self._on_message, qos=1)
        for number in range(NUM_WORKERS):
            self._chores.keep_up(self._work(), f"late escalations {number}")

    async def close(self) -> None:
        """Takes nothing over any more; what was not acknowledged comes again."""
        await self._chores.close()

    def _on_message(self, message: Message) -> None:
        agent = topics.agent_of_up(message.topic)
        said_id = message.property(topics.ITEM)[:64]
        if not agent or not said_id:
            self._metrics.count_received("unknown", "undecodable")
            return
        self.on_heard(agent)
        try:
            item = parse_item(
                message,
                origin=f"{self._identity.region}/{agent}",
                trusts_origin=self._identity.tier is not Tier.REGIONAL,
                wall_s=self._clock.wall_s(),
                max_bytes=self._max_body_bytes,
            )
        except RequestError as error:
            self._refuse(agent, said_id, error)
            return
        if item.id in self._in_hand:
            self._metrics.count_received(item.kind.value, "duplicate")
            return
        arrived = _Arrived(agent, said_id, item, message)
        if item.kind is not ItemKind.ESCALATION:
            self._in_hand.add(item.id)
            self._chores.start(self._take_over(arrived), "item.take_over")
        elif self._waiting.full():
            self._defer(arrived)
        else:
            self._in_hand.add(item.id)
            self._waiting.put_nowait(arrived)

    async def _take_over(self, arrived: _Arrived) -> None:
        item = arrived.item
        try:
            result = await self._taken(arrived)
            # What is refused says nothing of who is where.
            await self._note_way(arrived)
        except StorageError as error:
            _log.warning("item.not_stored", error=str(error))
            result = "failed"
        except RequestError as error:
            self._refuse(arrived.agent, arrived.said_id, error)
            return
        finally:
            self._in_hand.discard(item.id)
        self._metrics.count_received(item.kind.value, result)
        if result in ("stored", "known"):
            self._say(arrived.agent, Applied((arrived.said_id,)))
        else:
            self._defer(arrived)

    async def _note_way(self, arrived: _Arrived) -> None:
        """What comes from further below tells by whom an answer gets back there."""
        region = arrived.item.origin.partition("/")[0]
        if region != self._identity.region:
            await self._received.note_way(region, arrived.agent)

    async def _taken(self, arrived: _Arrived) -> PutResult:
        item, apply = arrived.item, self.appliers.get(arrived.item.kind)
        if item.kind is ItemKind.METRICS:
            self._check_rollup(arrived)
        if apply is None:
            return await self._received.take_over(item, arrived.agent)
        if await self._received.is_known(item.id):
            return "known"
        await apply(item)
        if item.kind not in _ENDS_WITH_APPLYING:
            return await self._received.take_over(item, arrived.agent)
        await self._received.remember(item.id)
        return "stored"

    def _check_rollup(self, arrived: _Arrived) -> None:
        tier, region = self._identity.tier, self._identity.region
        for source in decode_rollup(arrived.item.body).sources:
            if not speaks_for(tier, region, arrived.agent, source):
                raise MalformedBodyError(
                    f"{arrived.agent} tells of decisions of {source.region}/{source.site}"
                )

    async def send_rollups_on(self, interval_s: float) -> None:
        """Sends what has been merged upwards, this often, until cancelled."""
        while True:
            await asyncio.sleep(interval_s)
            try:
                await self._received.rollups.send_on()
            except StorageError as error:
                _log.warning("rollup.put_off", error=str(error))

    async def _work(self) -> None:
        while True:
            arrived = await self._waiting.get()
            try:
                await self._let_requests_pass()
                await self._answer(arrived)
            except StorageError as error:
                _log.warning("correction.not_stored", error=str(error))
                self._defer(arrived)
            except RequestError as error:
                self._refuse(arrived.agent, arrived.said_id, error)
            except Exception:  # noqa: BLE001 the worker has others to serve
                # No word about it: its sender tries again a few times, and then parks it.
                _log.exception("escalation.crashed", item=arrived.item.id)
            finally:
                self._in_hand.discard(arrived.item.id)

    async def _answer(self, arrived: _Arrived) -> None:
        item = arrived.item
        if await self._received.is_known(item.id):
            self._metrics.count_received(item.kind.value, "known")
            self._say(arrived.agent, Applied((arrived.said_id,)))
            return
        # Checked and answered by the same model, also when another one takes over meanwhile.
        with self._serving.using() as served:
            request = self._request(arrived.message, served.flow)
            deadline = Deadline.after(self._clock.monotonic_s(), self._budget_ms)
            answer = await served.flow.answer(request, deadline)
        self._metrics.count_late_request()
        is_stopped = answer.reason in (Reason.STOPPED, Reason.FALLBACK)
        if is_stopped or is_unanswered(answer.outcome, answer.reason):
            self._defer(arrived)
            return
        correction = self._correction(arrived, answer)
        result = await self._received.answer(item.id, correction)
        if result == "full":
            self._defer(arrived)
            return
        self._metrics.count_received(item.kind.value, "answered")
        self._say(arrived.agent, Applied((arrived.said_id,)))

    def _request(self, message: Message, flow: RequestFlow) -> InferenceRequest:
        """The request of an escalation.

        Raises:
            RequestError: it can never be answered here.
        """
        request, _ = parse_request(
            message,
            default_model=flow.model.manifest.name,
            remaining_ms=self._budget_ms,
            max_bytes=self._max_body_bytes,
        )
        request = msgspec.structs.replace(
            request,
            priority=LATE_PRIORITY,
            route=(),
            gear="",
            earlier=(),
            beliefs=(),
            audit=False,
            stands=False,
        )
        flow.check(request)
        return request

    def _correction(self, arrived: _Arrived, answer: Answer) -> OutboxItem:
        item_id = derived_id("correction", arrived.item.id)
        said = Correction(
            answer.request_id, said_of(answer), item=item_id, gateway=self._identity.site
        )
        return OutboxItem(
            item_id,
            ItemKind.CORRECTION,
            self._clock.wall_s(),
            encode_control(said),
            target=arrived.agent,
        )

    async def _let_requests_pass(self) -> None:
        until_s = self._clock.monotonic_s() + _MAX_PAUSE_S
        # Asked now and then, because what it asks tells nobody.
        while self.is_busy() and self._clock.monotonic_s() < until_s:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)

    def _refuse(self, agent: str, said_id: str, error: TierwiseError) -> None:
        _log.info("item.refused", agent=agent, code=error.code, error=str(error))
        self._metrics.count_received("unknown", "refused")
        self._say(agent, Refused(said_id, error.code))

    def _defer(self, arrived: _Arrived) -> None:
        self._metrics.count_received(arrived.item.kind.value, "deferred")
        self._say(arrived.agent, Deferred(arrived.said_id, self._retry_after_ms))

    def _say(self, agent: str, word: ControlMessage) -> None:
        try:
            self._bus.publish(control(word, topics.agent_replies(self._identity.region, agent)))
        except (NotConnectedError, PayloadTooLargeError, ValueError) as error:
            # The item comes again, and so does the word.
            _log.debug("word.not_sent", agent=agent, error=str(error))
