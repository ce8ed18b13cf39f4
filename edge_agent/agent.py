"""The agent inside an application: ask, and always get the best answer that fits the budget.

async with Agent(settings) as agent:
    answer = await agent.infer({"image": picture}, budget_ms=50)
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import structlog

from edge_agent.late_answers import LateAnswers
from edge_agent.settings import EdgeSettings
from runtime.adapters.clock import SystemClock
from runtime.adapters.metrics import TierMetrics
from runtime.core.admission import Admission, Urgency
from runtime.deadline import Deadline, check_budget_ms
from runtime.errors import InvalidBudgetError, TierwiseError
from runtime.exchange.assembly import Assembly
from runtime.exchange.context import check_context
from runtime.exchange.course import Identity
from runtime.exchange.flow import RequestFlow
from runtime.exchange.forwarding import upward
from runtime.exchange.presence import Presence
from runtime.exchange.serving import Serving
from runtime.exchange.station import (
    birth_of,
    bus_of,
    station,
    switch_of,
    uplink_settings,
)
from runtime.exchange.uplink import Uplink, payload_bytes
from runtime.exchange.wire import check_priority, check_request_id, parse_traceparent
from runtime.logs import configure_logs
from runtime.messages import (
    Answer,
    ContextValue,
    InferenceRequest,
    Residency,
    Tensors,
    Tier,
)
from runtime.ports import MessageBus
from runtime.tensors import native
from runtime.updating.new_models import NewModels
from runtime.updating.place import Place

if TYPE_CHECKING:
    from runtime.updating.candidate import OpenCandidate
    from runtime.updating.fetching import Sources
    from runtime.updating.updater import Updater

_log = structlog.get_logger()


class Agent(LateAnswers):
    """One device's agent. Use as an asynchronous context manager, on one event loop."""

    def __init__(
        self,
        settings: EdgeSettings,
        *,
        bus: MessageBus | None = None,
        sources: Sources | None = None,
        open_candidate: OpenCandidate | None = None,
    ) -> None:
        """Reads nothing and connects to nothing yet.

        Args:
            settings: as loaded by ``runtime.settings``.
            bus: instead of a connection to the broker that the settings name.
            sources: instead of the catalogue that the settings name.
            open_candidate: loads new models to try them, instead of a process for each.
        """
        identity = Identity(Tier.EDGE, settings.agent, settings.region)
        super().__init__(settings, identity, SystemClock(), TierMetrics(Tier.EDGE))
        self._models = NewModels(
            Place(identity, settings.model, settings.state, settings.escalation, settings.updates),
            self._clock,
            self.metrics,
            sources=sources,
            open_candidate=open_candidate,
        )
        self._serving: Serving | None = None
        self.http_base = ""
        self._id_prefix, self._id_numbers = uuid.uuid4().hex, itertools.count()
        self._bus = bus
        self._exits = AsyncExitStack()
        limits = settings.request
        self._admission = Admission(limits.max_pending, limits.max_pending * limits.max_body_bytes)

    @property
    def is_connected(self) -> bool:
        """Whether the broker is connected; answers come either way."""
        return self._bus is not None and self._bus.is_connected

    @property
    def serving(self) -> Serving:
        """What answers.

        Raises:
            RuntimeError: the agent has not been entered.
        """
        if self._serving is None:
            raise RuntimeError("use the agent as: async with Agent(settings) as agent")
        return self._serving

    @property
    def flow(self) -> RequestFlow:
        """The request flow that the next request gets.

        Raises:
            RuntimeError: the agent has not been entered.
        """
        return self.serving.current.flow

    @property
    def updater(self) -> Updater | None:
        """Who takes new models; None where the settings name no place for them."""
        return self._models.updater

    def control(self) -> dict[str, Any]:
        """What operators have stopped, as plain values; empty before the agent is entered."""
        switch = self._serving.current.flow.switch if self._serving else None
        return {} if switch is None else switch.shown()

    async def __aenter__(self) -> Self:
        """Loads the model and starts to connect; does not wait for the broker.

        Raises:
            ArtifactError: the model cannot be used.
            PolicyError: the policy cannot be used, or is for another model.
            StartError: the state folder cannot be used.
        """
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._exits = stack.pop_all()
        return self

    async def _start(self, stack: AsyncExitStack) -> None:
        settings = self.settings
        if not structlog.is_configured():
            # Unconfigured, structlog prints into the application's standard output.
            identity = self.identity
            configure_logs(
                settings.log,
                tier=identity.tier.value,
                site=identity.site,
                region=identity.region,
            )
        load = self._models.loader(stack)
        parts = await stack.enter_async_context(
            station(
                self.identity,
                settings.model,
                settings.state,
                policy=settings.escalation.policy,
                clock=self._clock,
                metrics=self.metrics,
                load=load,
                traces=settings.tracing,
                review=settings.review,
            )
        )
        if self._bus is None:
            self._bus = bus_of(parts, settings.broker)
        bus, model = self._bus, parts.model
        # Subscribed to before anything else, so that no queue at the broker is full by then.
        switch = switch_of(parts, settings.state)
        switch.listen(bus)
        stack.push_async_callback(switch.close)
        uplink = None
        if settings.escalation.enabled:
            uplink = Uplink(
                bus,
                self._clock,
                self.metrics,
                uplink_settings(
                    settings.escalation,
                    tier_above=Tier(settings.upstream_tier),
                    region=settings.region,
                    asker=settings.agent,
                    pinned=settings.gateway,
                    max_pending=settings.request.max_pending,
                ),
                epoch=parts.epoch,
                tracer=parts.tracer,
            )
        desk = self._open_desk(parts.storage, bus, uplink, parts.model)
        assembly = Assembly(settings.escalation, settings.request, parts, switch, desk, uplink)
        self._serving = serving = self._models.serve(assembly)
        stack.callback(serving.close_model)
        self._models.listen(bus)
        bus.on_connection(self.metrics.set_connected)
        presence = Presence(
            bus,
            self.identity,
            parts.epoch,
            lambda: switch.stated(
                birth_of(
                    parts,
                    http_base=self.http_base,
                    serves=serving.current.model.manifest,
                )
            ),
        )
        switch.watch(presence.look)
        sender = upward(
            parts.storage,
            bus,
            region=settings.region,
            site=settings.agent,
            # Whoever is stopped, or may not climb, does neither by the back door.
            is_reachable=lambda: (
                switch.stop is None and (uplink is None or uplink.choose() is not None)
            ),
            is_busy=lambda: self._admission.count > 0,
            tracer=parts.tracer,
        )
        stack.push_async_callback(bus.close)
        stack.push_async_callback(sender.close)
        stack.push_async_callback(desk.close)
        if uplink is not None:
            stack.push_async_callback(uplink.close)
        stack.callback(presence.offline)
        refresh = asyncio.create_task(presence.refresh(), name="presence.refresh")
        stack.callback(refresh.cancel)
        stack.push_async_callback(serving.halt)
        stack.push_async_callback(self._models.close)
        serving.start()
        await bus.start()
        sender.start()
        desk.start()
        self._models.start()
        _log.info(
            "agent.started",
            model=model.manifest.name,
            version=model.manifest.version,
            policy=parts.gearbox.digest,
        )

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Says offline, closes the connection, flushes the decision log."""
        await self._exits.aclose()
        self._serving = self._models.updater = None
        self._close_desk()

    async def wait_connected(self, timeout_s: float) -> bool:
        """Whether the broker was connected within the time; nobody has to wait for it."""
        return self._bus is not None and await self._bus.wait_connected(timeout_s)

    async def infer(
        self,
        inputs: Tensors,
        *,
        budget_ms: float | None = None,
        model: str = "",
        residency: Residency = Residency.CLOUD,
        outputs: tuple[str, ...] = (),
        priority: int = 0,
        request_id: str = "",
        explain: bool = False,
        context: Mapping[str, ContextValue] | None = None,
        traceparent: str = "",
    ) -> Answer:
        """The best answer that can be had within the budget.

        Args:
            inputs: tensors by name, with a batch axis, as the model's manifest describes them.
            budget_ms: milliseconds until the answer must be back; default from the settings.
            model: checked against the served model when given.
            residency: the furthest tier that the inputs may reach.
            outputs: names of wanted outputs; empty for all.
            priority: 1 is served when there is no room for others, 3 and more only while there
                is plenty; 0 and 2 are the usual.
            request_id: idempotency id; made up when empty.
            explain: the answer then says in words why each tier did what it did.
            context: what is known about the request, for the rules of the policy to look at; it
                stays on this device.
            traceparent: W3C trace context of the caller; what is malformed is ignored.

        Raises:
            RequestError: the request cannot be answered as it is.
            OverloadedError: too many requests are in progress.
        """
        budget_ms = self.settings.request.default_budget_ms if budget_ms is None else budget_ms
        with self.counting():
            request = InferenceRequest(
                request_id=check_request_id(request_id or self.new_request_id()),
                model_name=model,
                inputs={name: native(array) for name, array in inputs.items()},
                outputs=outputs,
                remaining_ms=budget_ms,
                residency=residency,
                priority=check_priority(priority),
                explain=explain,
                context=check_context(context or {}),
                traceparent=parse_traceparent(traceparent),
            )
            return await self.answer(request)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Counts a request that arrived, and how it ended where it gets no answer."""
        self.metrics.count_received()
        ended = TierwiseError.code
        try:
            yield
            ended = ""
        except TierwiseError as error:
            ended = error.code
            raise
        except asyncio.CancelledError:
            ended = "cancelled"
            raise
        finally:
            if ended:
                self.metrics.count_refusal(ended)

    def new_request_id(self) -> str:
        """An id that no other request has: of this start, and counted."""
        return f"{self._id_prefix}-{next(self._id_numbers):x}"

    def now_s(self) -> float:
        """The instant on the clock of deadlines, for transports to stamp arrivals with."""
        return self._clock.monotonic_s()

    async def answer(self, request: InferenceRequest, *, arrived_s: float | None = None) -> Answer:
        """The same for a request that a transport has read.

        Args:
            request: its budget counts from the arrival.
            arrived_s: ``now_s()`` when the transport began to read it; default now.

        Raises:
            RequestError: the request cannot be answered as it is.
            OverloadedError: too many requests are in progress.
        """
        arrived_s = self._clock.monotonic_s() if arrived_s is None else arrived_s
        budget_ms = check_budget_ms(request.remaining_ms)
        limit_ms = self.settings.request.max_budget_ms
        if budget_ms > limit_ms:
            raise InvalidBudgetError(f"{budget_ms:g} ms are over the limit of {limit_ms:g} ms")
        # Checked and answered by the same model, also when another one takes over meanwhile.
        with self.serving.using(request) as served:
            return await self._answer(served.flow, request, arrived_s, budget_ms)

    async def _answer(
        self, flow: RequestFlow, request: InferenceRequest, arrived_s: float, budget_ms: float
    ) -> Answer:
        flow.check(request)
        num_bytes = payload_bytes(request.inputs)
        self._admission.enter(num_bytes, Urgency.of(request.priority))
        self.metrics.set_pending(self._admission.count)
        try:
            return await flow.answer(request, Deadline.after(arrived_s, budget_ms))
        finally:
            took_ms = (self._clock.monotonic_s() - arrived_s) * 1000
            self._admission.leave(num_bytes, took_ms)
            self.metrics.set_pending(self._admission.count)
