"""Gateways that relay assignments between two brokers, and a desk that makes assignments."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

from securesystemslib.signer import CryptoSigner

from fakes.tiers import manifest
from regional_gateway.assignment_relay import AssignmentRelay
from runtime import topics
from runtime.adapters.assignment_signatures import signed
from runtime.adapters.clock import SystemClock
from runtime.adapters.control_latch import ControlLatch
from runtime.adapters.memory_bus import LinkFaults, MemoryBroker, MemoryBus
from runtime.adapters.metrics import TierMetrics
from runtime.assignments import Assignment, Do
from runtime.exchange.course import Identity
from runtime.exchange.stopping import StopSwitch
from runtime.messages import Tier
from runtime.ports import Message

SIGNER = CryptoSigner.generate_ed25519()


def assigned(seq: int, *, site: str = "pi-1", region: str = "r", path: str = "m/1.json") -> bytes:
    what = Assignment(site, region, seq, Do.TRIAL, "r1", 1e10, path=path, entry_sha256="ab" * 32)
    return signed(what, SIGNER)


def retained(topic: str, payload: bytes) -> Message:
    return Message(topic, payload, qos=1, retain=True)


class Gateway:
    """A relay with its two connections; to be entered into a stack by ``start``."""

    def __init__(
        self,
        above: MemoryBroker,
        here: MemoryBroker,
        folder: Path,
        *,
        site: str = "g1",
        region: str = "r",
        upstream: str = "cloud",
        below: tuple[str, ...] = (),
        max_places: int = 100,
        max_queued_messages: int = 4096,
        delay_s: float = 0.0,
    ) -> None:
        self.metrics = TierMetrics(Tier.REGIONAL)
        self.bus = MemoryBus(
            here,
            client_id=site,
            link=LinkFaults(delay_s=delay_s),
            max_queued_messages=max_queued_messages,
        )
        self.up_bus = MemoryBus(above, client_id=f"{site}.up")
        self.switch = StopSwitch(
            Identity(Tier.REGIONAL, site, region),
            manifest(Tier.REGIONAL),
            latch=ControlLatch(folder, region),
            clock=SystemClock(),
            metrics=self.metrics,
        )
        self.switch.listen(self.bus)
        self.relay = AssignmentRelay(
            self.switch,
            self.bus,
            region=region,
            metrics=self.metrics.relays,
            below=below,
            max_places=max_places,
        )
        self.relay.listen(self.up_bus, upstream)

    async def start(self, stack: AsyncExitStack) -> Gateway:
        stack.push_async_callback(self.stop)
        await self.bus.start()
        await self.up_bus.start()
        return self

    async def stop(self) -> None:
        self.relay.close()
        await self.up_bus.close()
        await self.bus.close()
        await self.switch.close()

    def counted(self, result: str) -> int:
        line = f'tierwise_regional_relayed_assignments_total{{result="{result}"}} '
        text = self.metrics.render()[0].decode()
        found = [one for one in text.splitlines() if one.startswith(line)]
        return int(float(found[0].removeprefix(line))) if found else 0


class Desk:
    """Somebody at one broker: says what is retained, and hears all of a kind."""

    def __init__(self, broker: MemoryBroker, topic_filter: str, *, name: str = "desk") -> None:
        self.bus = MemoryBus(broker, client_id=name)
        self.heard: dict[str, bytes] = {}
        self.all: list[Message] = []
        self.bus.subscribe(topic_filter, self._hear, qos=1)

    async def start(self, stack: AsyncExitStack) -> Desk:
        stack.push_async_callback(self.bus.close)
        await self.bus.start()
        assert await self.bus.wait_connected(10)
        return self

    def say(self, payload: bytes, *, below: str = "r", site: str = "pi-1") -> None:
        topic = topics.assignment_below("cloud", below, site)
        self.bus.publish(retained(topic, payload))

    def _hear(self, message: Message) -> None:
        self.all.append(message)
        self.heard[message.topic] = message.payload
