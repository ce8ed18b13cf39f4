"""An edge and a cloud tier in one process, over a link whose round trips are known.

Real request flows, doors and uplinks; the models are predictions collected beforehand.
"""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from model_zoo.policies.predictions import Predictions
from runtime import topics
from runtime.adapters.clock import SystemClock
from runtime.adapters.memory_bus import MemoryBroker, MemoryBus
from runtime.adapters.metrics import TierMetrics
from runtime.core.escalation import EscalationPolicy
from runtime.core.gearbox import Gearbox
from runtime.core.link import LinkSettings
from runtime.exchange.course import Identity
from runtime.exchange.flow import RequestFlow
from runtime.exchange.ingress import Ingress, IngressLimits
from runtime.exchange.presence import Presence
from runtime.exchange.serving import Served, Serving
from runtime.exchange.uplink import Uplink, UplinkSettings
from runtime.local_model import LoadedMember, LocalModel
from runtime.manifest import Member, ModelFile, ModelManifest
from runtime.messages import Birth, Tensors, TensorSpec, Tier
from runtime.policy import Policy, digest_of, encode_policy
from runtime.ports import (
    AuditRecord,
    ConnectionHandler,
    DecisionRecord,
    Message,
    MessageHandler,
)

MARGIN_MS = 5.0
RESERVE_MS = 2.0
TIERS = (Tier.EDGE, Tier.CLOUD)
Floats = npt.NDArray[np.float64]


class TracedBus:
    """A bus over a link whose round trip is known for every request id: half of it each way."""

    def __init__(self, inner: MemoryBus, round_trip_ms: dict[str, float]) -> None:
        self._inner, self._round_trip_ms = inner, round_trip_ms
        self._late_s: dict[str, float] = {}

    @property
    def is_connected(self) -> bool:
        """Whether the bus is."""
        return self._inner.is_connected

    async def start(self) -> None:
        """Starts the bus."""
        await self._inner.start()

    async def wait_connected(self, timeout_s: float) -> bool:
        """Waits for the bus."""
        return await self._inner.wait_connected(timeout_s)

    def subscribe(self, topic_filter: str, handler: MessageHandler, *, qos: int = 0) -> None:
        """Hears half a round trip later."""

        def hear(message: Message) -> None:
            request_id = message.property(topics.REQUEST_ID)
            half_s = self._round_trip_ms.get(request_id, 0.0) / 2000
            # A timer of the event loop is up to a millisecond late; only one of them counts.
            due_s = half_s - self._late_s.pop(request_id, 0.0)
            asyncio.get_running_loop().call_later(max(0.0, due_s), lambda: handler(message))

        self._inner.subscribe(topic_filter, hear, qos=qos)

    def on_connection(self, handler: ConnectionHandler) -> None:
        """As the bus does."""
        self._inner.on_connection(handler)

    def publish(self, message: Message) -> int:
        """Sends half a round trip later, or never."""
        request_id = message.property(topics.REQUEST_ID)
        half_s = self._round_trip_ms.get(request_id, 0.0) / 2000
        loop = asyncio.get_running_loop()
        if math.isfinite(half_s):
            due_s = loop.time() + half_s

            def send() -> None:
                self._late_s[request_id] = loop.time() - due_s
                self._inner.publish(message)

            loop.call_at(due_s, send)
        return len(message.payload)

    async def close(self) -> None:
        """Closes the bus."""
        await self._inner.close()


@dataclass
class RecordedModel:
    """Answers example ``x[0, 0]`` as its tier did."""

    logits: npt.NDArray[np.float32]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def run(self, inputs: Tensors) -> Tensors:
        """The recorded logits."""
        return {"logits": self.logits[inputs["x"][:, 0].astype(np.int64)]}

    def close(self) -> None:
        """Nothing to free."""


@dataclass
class NoLog:
    """Keeps nothing."""

    num_dropped: int = 0

    def append(self, record: DecisionRecord | AuditRecord) -> None:
        """Forgets it."""


def as_seen(predictions: Predictions) -> Floats:
    """(k, n) probabilities that logits can carry: below an even share another label wins."""
    return np.clip(predictions.score, 1 / len(predictions.label_names) + 1e-6, 1 - 1e-9)


def logits_of(predictions: Predictions, tier: int) -> npt.NDArray[np.float32]:
    """Logits whose label and probability are those predicted."""
    num_labels = len(predictions.label_names)
    sure = as_seen(predictions)[tier]
    shares = np.repeat(((1 - sure) / (num_labels - 1))[:, None], num_labels, axis=1)
    np.put_along_axis(shares, predictions.predicted[tier][:, None], sure[:, None], 1)
    return np.log(shares).astype(np.float32)


class Hierarchy:
    """An edge and a cloud tier; without a policy thresholds decide, at 0.8."""

    def __init__(
        self, predictions: Predictions, policy: Policy | None, round_trip_ms: Floats
    ) -> None:
        broker, clock = MemoryBroker(), SystemClock()
        self.broker = broker
        self._is_online = asyncio.Event()
        round_trips = {str(number): float(ms) for number, ms in enumerate(round_trip_ms)}
        digest = digest_of(encode_policy(policy)) if policy else ""
        self.tiers: list[RequestFlow] = []
        self.buses: list[MemoryBus | TracedBus] = []
        self.uplink: Uplink | None = None
        for number, tier in enumerate(TIERS):
            model = _model(tier, predictions, number, clock)
            metrics = TierMetrics(tier)
            identity = Identity(tier, f"{tier.value}-1", "cloud")
            uplink = None
            if tier is Tier.EDGE:
                traced = TracedBus(MemoryBus(broker, client_id="edge"), round_trips)
                self.buses.append(traced)
                traced.subscribe(topics.gateway_state("cloud"), self._on_state)
                uplink = self.uplink = Uplink(
                    traced,
                    clock,
                    metrics,
                    _uplink_settings(),
                    epoch=1,
                    chooser=random.Random(1),  # noqa: S311 a simulation
                )
            flow = RequestFlow(
                identity,
                model=model,
                policy=EscalationPolicy(accept_at=0.8, margin_ms=MARGIN_MS),
                clock=clock,
                metrics=metrics,
                log=NoLog(),
                gearbox=Gearbox(tier, policy, digest),
                uplink=uplink,
            )
            self.tiers.append(flow)
            if tier is Tier.CLOUD:
                bus = MemoryBus(broker, client_id="cloud")
                self.buses.append(bus)
                limits = IngressLimits(1000, 60_000, 1.0, 256, 1_000_000, 1024)
                serving = Serving(Served(model, flow))
                door = Ingress(bus, clock, metrics, serving, limits)
                Presence(
                    bus, identity, 1, lambda: Birth(Tier.CLOUD, "cloud-1", "cloud", 1, capacity=256)
                )
                door.open()

    def _on_state(self, _: Message) -> None:
        # After the uplink, which has subscribed by now, has heard the same.
        asyncio.get_running_loop().call_soon(self._is_online.set)

    async def __aenter__(self) -> Self:
        for bus in self.buses:
            await bus.start()
        await self._is_online.wait()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.uplink is not None:
            await self.uplink.close()
        for bus in self.buses:
            await bus.close()
        for flow in self.tiers:
            flow.model.close()


def _uplink_settings() -> UplinkSettings:
    return UplinkSettings(
        tier_above=Tier.CLOUD,
        region="cloud",
        asker="edge-1",
        pinned="",
        max_pending=256,
        reserve_ms=RESERVE_MS,
        link=LinkSettings(),
    )


def _model(tier: Tier, predictions: Predictions, number: int, clock: SystemClock) -> LocalModel:
    num_labels = len(predictions.label_names)
    inputs = (TensorSpec("x", "FP64", (-1, 1)),)
    outputs = (TensorSpec("logits", "FP32", (-1, num_labels)),)
    backend = RecordedModel(logits_of(predictions, number), inputs, outputs)
    manifest = ModelManifest(
        name="recorded",
        version="1",
        tier=tier,
        files={"m.onnx": ModelFile("0" * 64, 1)},
        members=(Member("m", "m.onnx"),),
        inputs=inputs,
        outputs=outputs,
        labels=predictions.label_names,
        accept_at=0.8,
    )
    return LocalModel(manifest, [LoadedMember("m", 1.0, backend, 0.1)], clock)
