"""Store and forward of one tier, put together: its file, its outbox, and the ways out of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from runtime import topics
from runtime.adapters.corrections import SqliteCorrections
from runtime.adapters.metrics import TierMetrics
from runtime.adapters.outbox import SqliteOutbox
from runtime.adapters.outbox_schema import open_file
from runtime.adapters.received import SqliteReceived
from runtime.common_settings import StateSettings
from runtime.core.outbox import Limits
from runtime.exchange.course import Identity
from runtime.exchange.items import control, up_message
from runtime.exchange.receiving import Receiver
from runtime.exchange.sending import Sender, Way
from runtime.exchange.serving import Serving
from runtime.exchange.tracing import Tracer
from runtime.exchange.wire import CONTROL_CONTENT_TYPE
from runtime.messages import Applied, Birth, Correction, Offline, decode_control
from runtime.ports import Clock, Message, MessageBus, OutboxItem

# Agents that a gateway keeps in mind, so that nobody can make it remember names without end.
MAX_ONLINE = 65_536


@dataclass(frozen=True, slots=True)
class Storage:
    """What a tier keeps for others."""

    outbox: SqliteOutbox
    clock: Clock
    metrics: TierMetrics
    max_age_s: float
    received_max_bytes: int

    def corrections(self) -> SqliteCorrections:
        """The table of corrections."""
        return SqliteCorrections(self.outbox, self.clock, max_age_s=self.max_age_s)

    def received(self, *, sends_on: bool) -> SqliteReceived:
        """What came from below, and whether it goes on upwards."""
        return SqliteReceived(
            self.outbox, self.clock, max_bytes=self.received_max_bytes, sends_on=sends_on
        )


@contextmanager
def open_storage(
    folder: Path, settings: StateSettings, clock: Clock, metrics: TierMetrics
) -> Iterator[Storage]:
    """Opens the file of a state folder, and closes it.

    Raises:
        StartError: the folder cannot be used, or a later version has written the file.
    """
    limits = Limits(
        max_items=settings.outbox_max_items,
        max_bytes=settings.outbox_max_bytes,
        max_age_s=settings.outbox_max_age_s,
    )
    metrics.outbox.set_limits(limits.max_items, limits.max_bytes)
    max_bytes = settings.outbox_max_bytes + settings.received_max_bytes
    with open_file(folder, max_bytes=max_bytes) as file:
        yield Storage(
            SqliteOutbox(file, limits, clock, metrics.outbox),
            clock,
            metrics,
            settings.outbox_max_age_s,
            settings.received_max_bytes,
        )


def upward(
    storage: Storage,
    bus: MessageBus,
    *,
    region: str,
    site: str,
    is_reachable: Callable[[], bool],
    is_busy: Callable[[], bool],
    tracer: Tracer | None = None,
) -> Sender:
    """Who sends the outbox upwards, as ``site`` in the ``region`` of the tier above."""
    topic = topics.up(region, site)

    def message(item: OutboxItem) -> Message:
        return up_message(item, topic, storage.clock.wall_s())

    way = Way(
        is_up=True,
        message=message,
        can_send=lambda: bus.is_connected and is_reachable(),
        is_busy=is_busy,
    )
    sender = Sender(
        storage.outbox, bus, storage.clock, storage.metrics.outbox, way=way, tracer=tracer
    )

    def on_reply(message: Message) -> None:
        if message.content_type != CONTROL_CONTENT_TYPE:
            return
        said = decode_control(message.payload)
        if said is None:
            storage.metrics.count_ignored("undecodable")
        else:
            sender.heard(said)

    bus.subscribe(topics.agent_replies(region, site), on_reply, qos=1)
    return sender


class Downward:
    """Who sends corrections to the agents that are there."""

    def __init__(self, storage: Storage, bus: MessageBus, identity: Identity) -> None:
        self._region, self._online = identity.region, set[str]()
        self.sender = Sender(
            storage.outbox,
            bus,
            storage.clock,
            storage.metrics.outbox,
            way=Way(
                is_up=False,
                message=self._message,
                can_send=lambda: bus.is_connected and bool(self._online),
                reaches=lambda agent: agent in self._online,
            ),
        )
        bus.subscribe(topics.agent_state(self._region), self._on_state, qos=1)
        bus.subscribe(topics.gateway_requests(self._region, identity.site), self._on_word, qos=1)

    def heard_of(self, agent: str) -> None:
        """An agent is there."""
        if agent not in self._online and len(self._online) < MAX_ONLINE:
            self._online.add(agent)
            self.sender.released(agent)

    def _message(self, item: OutboxItem) -> Message:
        said = decode_control(item.body)
        if not isinstance(said, Correction):
            raise ValueError("no correction")  # noqa: TRY004 as a bus says of what it cannot send
        return control(said, topics.agent_replies(self._region, item.target))

    def _on_state(self, message: Message) -> None:
        agent = topics.site_of_state(message.topic)
        state = decode_control(message.payload)
        if isinstance(state, Birth) and state.site == agent:
            # Born anew: what was on its way to the life before has not arrived.
            self._online.discard(agent)
            self.heard_of(agent)
        elif not message.payload or (isinstance(state, Offline) and state.site == agent):
            self._online.discard(agent)

    def _on_word(self, message: Message) -> None:
        addressed = topics.parse_request_topic(message.topic)
        if addressed is None or message.content_type != CONTROL_CONTENT_TYPE:
            return
        said = decode_control(message.payload)
        if isinstance(said, Applied):
            # One about nothing says that somebody is there.
            self.heard_of(addressed.agent)
            if said.items:
                self.sender.heard(said, target=addressed.agent)


@asynccontextmanager
async def taking_over(
    storage: Storage,
    bus: MessageBus,
    serving: Serving,
    *,
    sends_on: bool,
    max_body_bytes: int,
) -> AsyncIterator[Receiver]:
    """Takes over what those below have kept, and sends them corrections, until left."""
    identity = serving.current.flow.identity
    receiver = Receiver(
        identity,
        bus,
        serving,
        storage.received(sends_on=sends_on),
        clock=storage.clock,
        metrics=storage.metrics.outbox,
        max_body_bytes=max_body_bytes,
    )
    downward = Downward(storage, bus, identity)
    receiver.on_heard = downward.heard_of
    receiver.open()
    downward.sender.start()
    try:
        yield receiver
    finally:
        await receiver.close()
        await downward.sender.close()
