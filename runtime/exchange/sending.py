"""Sends what is in the outbox, and forgets it when the other side says that it has it.

Rules of this file:
  * requests go first: few items are on their way at a time, and one by one while requests wait;
  * an item leaves the outbox only on an acknowledgement by the application at the other end: a
    broker that took it has applied nothing;
  * nobody stands in the way of others: what is not acknowledged waits for its next turn, later each
    time, while others are sent; what is refused is parked at once.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import structlog

from runtime import topics
from runtime.adapters.outbox import Order, SqliteOutbox
from runtime.adapters.outbox_metrics import OutboxMetrics
from runtime.core.outbox import Patience
from runtime.errors import NotConnectedError, PayloadTooLargeError, StorageError
from runtime.exchange.chores import Chores
from runtime.exchange.tracing import OpenSpan, Tracer
from runtime.messages import Applied, ControlMessage, Deferred, ItemKind, Refused
from runtime.ports import Clock, Message, MessageBus, OutboxItem

# On their way at a time; of these at most half are escalations, which take the longest.
WINDOW = 8
WINDOW_BYTES = 524_288
# Requests that wait hold an item up for so long, and then it goes alone.
MAX_PAUSE_S = 1.0
_POLL_S = 0.02
_IDLE_S = 1.0
_AFTER_TROUBLE_S = 5.0
_log = structlog.get_logger()


def _is_never_busy() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Way:
    """Where items go: upwards, or to agents below.

    ``message`` is an item as it is published, ``can_send`` whether anybody would hear it,
    ``reaches`` whether this agent would, ``is_busy`` whether requests wait.
    """

    is_up: bool
    message: Callable[[OutboxItem], Message]
    can_send: Callable[[], bool]
    reaches: Callable[[str], bool] = lambda _: True
    is_busy: Callable[[], bool] = _is_never_busy


class Sender:
    """Empties an outbox over one bus, one way. Lives on the event loop of the bus."""

    def __init__(
        self,
        outbox: SqliteOutbox,
        bus: MessageBus,
        clock: Clock,
        metrics: OutboxMetrics,
        *,
        way: Way,
        patience: Patience | None = None,
        chooser: random.Random | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._tracer = tracer
        # Of what is on its way, as long as it is.
        self._spans: dict[str, OpenSpan] = {}
        self._outbox, self._bus, self._clock, self._metrics = outbox, bus, clock, metrics
        self._way, self._patience = way, patience or Patience()
        self._on_way: dict[str, tuple[float, ItemKind]] = {}
        self._heard_s: float | None = None
        self._changed = asyncio.Event()
        self._chores = Chores()
        # Spreads the load after an outage; nothing secret depends on it.
        self._draw = (chooser or random.Random()).random  # noqa: S311
        self._wake: Callable[[], None] | None = None
        bus.on_connection(self._on_connection)

    def start(self) -> None:
        """Begins to send."""
        loop = asyncio.get_running_loop()

        def wake() -> None:
            loop.call_soon_threadsafe(self._changed.set)

        self._wake = wake
        self._outbox.wakes.append(wake)
        self._chores.keep_up(self._run(), "outbox.send")

    async def close(self) -> None:
        """Stops; what is on its way is sent again in the next life unless it is acknowledged."""
        if self._wake in self._outbox.wakes:
            self._outbox.wakes.remove(self._wake)
        await self._chores.close()

    def look(self) -> None:
        """Something has changed: somebody may be there to send to."""
        self._changed.set()

    def heard(self, said: ControlMessage, *, target: str = "") -> None:
        """What the other end says about items."""
        if isinstance(said, Applied):
            self._heard_s = self._clock.monotonic_s()
            self._over(said.items, "applied")
            self._chores.start(self._outbox.applied(said.items, target=target), "outbox.applied")
        elif isinstance(said, Refused):
            self._heard_s = self._clock.monotonic_s()
            self._over((said.item,), "refused", is_failed=True)
            _log.warning("item.refused", item=said.item, code=said.code)
            self._chores.start(
                self._outbox.refused(said.item, said.code, target=target), "outbox.refused"
            )
        elif isinstance(said, Deferred):
            self._over((said.item,), "deferred")
            now_s, said_s = self._clock.monotonic_s(), said.retry_after_ms / 1000

            def until_s(attempts: int) -> float:
                return now_s + self._patience.put_off_s(said_s, attempts, self._draw())

            self._chores.start(self._outbox.put_off(said.item, until_s), "outbox.put_off")

    def released(self, target: str) -> None:
        """An agent is there again: what waits for it is due."""
        self._chores.start(self._release(target), "outbox.release")

    def _over(self, items: Sequence[str], outcome: str, *, is_failed: bool = False) -> None:
        for item in items:
            self._on_way.pop(item, None)
            self._end_span(item, outcome, is_failed=is_failed)
        self._changed.set()

    def _on_connection(self, is_connected: bool) -> None:  # noqa: FBT001 the port's signature
        self._on_way.clear()
        for item in tuple(self._spans):
            self._end_span(item, "disconnected", is_failed=True)
        if is_connected and self._wake is not None:
            # What was on its way when the connection was lost may be lost, too.
            self._chores.start(self._release(None), "outbox.release")

    async def _release(self, target: str | None) -> None:
        if self._way.is_up or target is not None:
            await self._outbox.release(target=target)
        self._changed.set()

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            pause_s = _IDLE_S
            try:
                if self._way.can_send() and await self._send_some():
                    continue
            except StorageError as error:
                _log.warning("outbox.not_read", error=str(error))
                pause_s = _AFTER_TROUBLE_S
            try:
                async with asyncio.timeout(pause_s):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _send_some(self) -> bool:
        """Whether anything was sent."""
        is_alone = await self._let_requests_pass()
        now_s = self._clock.monotonic_s()
        self._on_way = {one: (s, kind) for one, (s, kind) in self._on_way.items() if s > now_s}
        for lost in self._spans.keys() - self._on_way.keys():
            self._end_span(lost, "unacknowledged", is_failed=True)
        room = 1 if is_alone else WINDOW - len(self._on_way)
        if room <= 0:
            return False
        waiting = sum(kind is ItemKind.ESCALATION for _, kind in self._on_way.values())

        def allows(kind: ItemKind, target: str) -> bool:
            nonlocal waiting
            if not self._way.reaches(target):
                return False
            if kind is ItemKind.ESCALATION:
                waiting += 1
                return waiting <= WINDOW // 2
            return True

        items = await self._outbox.take(
            Order(
                now_s=now_s,
                max_items=room,
                max_bytes=WINDOW_BYTES,
                heard_s=self._heard_s,
                is_up=self._way.is_up,
                allows=allows,
                patience=self._patience,
                draw=self._draw,
            )
        )
        for item in items:
            if not await self._send(item):
                return False
        return bool(items)

    async def _send(self, item: OutboxItem) -> bool:
        now_s = self._clock.monotonic_s()
        is_slow = item.kind is ItemKind.ESCALATION
        ack_s = self._patience.answer_s if is_slow else self._patience.ack_s
        self._on_way[item.id] = (now_s + ack_s, item.kind)
        try:
            num_bytes = self._bus.publish(self._message(item))
        except NotConnectedError:
            self._on_way.pop(item.id, None)
            self._end_span(item.id, "not_sent", is_failed=True)
            await self._outbox.put_off(item.id, lambda _: now_s)
            return False
        except (PayloadTooLargeError, ValueError) as error:
            self._on_way.pop(item.id, None)
            self._end_span(item.id, "not_sendable", is_failed=True)
            _log.warning("item.not_sendable", item=item.id, error=str(error))
            await self._outbox.refused(item.id, PayloadTooLargeError.code, target=item.target)
            return True
        self._metrics.count_sent(item.kind)
        _log.debug("item.sent", item=item.id, kind=item.kind.value, num_bytes=num_bytes)
        return True

    def _message(self, item: OutboxItem) -> Message:
        """The item as it is published; where it is traced, the tier above is this sending's child.

        Raises:
            ValueError: it cannot be sent.
        """
        message = self._way.message(item)
        span = self._tracer.delivery(item) if self._tracer is not None else None
        if span is None:
            return message
        self._spans[item.id] = span
        user = tuple(pair for pair in message.user if pair[0] != topics.TRACEPARENT)
        return replace(message, user=(*user, (topics.TRACEPARENT, span.traceparent)))

    def _end_span(self, item: str, outcome: str, *, is_failed: bool = False) -> None:
        span = self._spans.pop(item, None)
        if span is not None:
            span.end(outcome=outcome, is_failed=is_failed)

    async def _let_requests_pass(self) -> bool:
        """Whether requests still wait after all the patience that there is."""
        until_s = self._clock.monotonic_s() + MAX_PAUSE_S
        while self._way.is_busy():
            if self._clock.monotonic_s() >= until_s:
                return True
            await asyncio.sleep(_POLL_S)
        return False
