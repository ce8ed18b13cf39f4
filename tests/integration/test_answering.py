"""A tier that answers the tier below says truly whether it is there, however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fakes.tiers import FakeTier, NumbersBackend
from fakes.waiting import eventually
from runtime import topics
from runtime.adapters.memory_bus import MemoryBroker, MemoryBus
from runtime.adapters.rollup_reader import Place
from runtime.common_settings import HttpSettings, RequestSettings, StateSettings
from runtime.exchange.answering import answer_until
from runtime.exchange.forwarding import Storage, open_storage
from runtime.exchange.presence import Presence
from runtime.exchange.reporting import Rollups
from runtime.exchange.station import Station
from runtime.messages import Birth, ControlMessage, Draining, Offline, Tier, decode_control
from runtime.ports import Message


@dataclass
class Watched:
    """A gateway, and what it says about itself."""

    tier: FakeTier
    bus: MemoryBus
    storage: Storage
    said: list[ControlMessage | None] = field(default_factory=list)

    def note(self, message: Message) -> None:
        self.said.append(decode_control(message.payload))

    def serve(self, stop: asyncio.Event) -> asyncio.Task[None]:
        tier = self.tier
        parts = Station(
            tier.identity,
            tier.clock,
            tier.metrics,
            tier.log,
            tier.model,
            tier.flow.gearbox,
            epoch=7,
            storage=self.storage,
            rollups=Rollups(
                Path("none"), self.storage.outbox, Place("r", "g", "regional"), tier.clock
            ),
        )
        settings = RequestSettings()
        return asyncio.create_task(
            answer_until(stop, parts, self.bus, tier.serving, request=settings, http=HttpSettings())
        )


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    broker = MemoryBroker()
    tier = FakeTier(broker, Tier.REGIONAL, NumbersBackend())
    storage = open_storage(tmp_path, StateSettings(), tier.clock, tier.metrics)
    watched = Watched(tier, MemoryBus(broker, client_id="served"), storage.__enter__())
    observer = MemoryBus(broker, client_id="observer")
    observer.subscribe(topics.gateway_state("r"), watched.note)
    await observer.start()
    yield watched
    await observer.close()
    storage.__exit__(None, None, None)
    tier.model.close()


async def test_a_gateway_that_is_told_to_stop_drains_and_says_goodbye(watched: Watched) -> None:
    stop = asyncio.Event()
    serving = watched.serve(stop)
    await eventually(lambda: watched.said)

    stop.set()
    await serving

    await eventually(lambda: len(watched.said) == 3)
    assert [type(state) for state in watched.said] == [Birth, Draining, Offline]


async def test_a_gateway_that_is_cancelled_says_goodbye_too(watched: Watched) -> None:
    serving = watched.serve(asyncio.Event())
    await eventually(lambda: watched.said)

    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving

    await eventually(lambda: isinstance(watched.said[-1], Offline))


async def test_a_gateway_that_reconnects_while_it_drains_is_not_born_again(
    watched: Watched,
) -> None:
    identity = watched.tier.identity
    birth = Birth(Tier.REGIONAL, identity.site, identity.region, 7)
    presence = Presence(watched.bus, identity, 7, lambda: birth)
    await watched.bus.start()
    await eventually(lambda: watched.said == [birth])

    presence.draining()
    await eventually(lambda: len(watched.said) == 2)
    watched.bus.drop_connection()
    await eventually(lambda: len(watched.said) == 3)
    await watched.bus.close()

    assert [type(state) for state in watched.said] == [Birth, Draining, Draining]
