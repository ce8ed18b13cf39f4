"""A whole fleet under faults, in simulated time: every request ends once, in time, and honestly.

Two devices, two gateways and a cloud over the in-memory bus; links are cut and healed, lose and
double messages, gateways die and come back, requests are asked again. What must hold is checked
after every step, and that the counters of all tiers add up at the end.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fakes.simulated import LoopClock, SimulatedLoop
from fakes.tiers import SURE, UNSURE, FakeTier, NumbersBackend, request
from runtime.adapters.memory_bus import LinkFaults, MemoryBroker, MemoryBus
from runtime.core.reconcile import reconcile
from runtime.deadline import Deadline
from runtime.messages import Answer, Outcome, Reason, Tier
from tierwise.audit_commands import counts_in

NONSENSE = (math.nan, 0.0, 0.0)
# What the machine takes to hand an answer over, at most, once its time is up.
SLACK_MS = 1.0
DEVICES = ("device-1", "device-2")
GATEWAYS = ("gateway-1", "gateway-2")
scores = st.sampled_from([SURE, UNSURE, NONSENSE])


@dataclass
class Asked:
    """A request on its way, and when its caller stops waiting."""

    device: str
    asked_s: float
    budget_ms: float
    task: asyncio.Task[tuple[Answer, float]]


class Fleet(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = SimulatedLoop()
        asyncio.set_event_loop(self.loop)
        self.clock = LoopClock(self.loop)
        self.asked: list[Asked] = []
        self.tiers: dict[str, FakeTier] = {}
        self.dead: set[str] = set()
        self.has_restarted = False
        self.num = 0

    @initialize(loss=st.sampled_from([0.0, 0.3]), duplication=st.sampled_from([0.0, 0.5]))
    def start(self, loss: float, duplication: float) -> None:
        self.link = LinkFaults(delay_s=0.01, jitter_s=0.02, loss=loss, duplication=duplication)
        self.loop.run(self._start())
        # Until all know of one another; what happens before is for the rules to find.
        self.loop.pass_time(1.0)

    async def _start(self) -> None:
        self.broker = MemoryBroker()
        for name in DEVICES:
            await self._enter(name, Tier.EDGE, Tier.REGIONAL)
        for name in GATEWAYS:
            await self._enter(name, Tier.REGIONAL, Tier.CLOUD)
        await self._enter("cloud-1", Tier.CLOUD, None)

    async def _enter(self, name: str, tier: Tier, above: Tier | None) -> None:
        self.tiers[name] = FakeTier(
            self.broker,
            tier,
            NumbersBackend(UNSURE if tier is not Tier.CLOUD else SURE),
            site=name,
            above=above,
            link=self.link,
            inline=True,
            clock=self.clock,
            hedge_share=0.5,
        )
        await self.tiers[name].__aenter__()

    @rule(name=st.sampled_from([*DEVICES, *GATEWAYS, "cloud-1"]), says=scores)
    def think(self, name: str, says: tuple[float, ...]) -> None:
        self.tiers[name].backends[0].scores = says

    @rule(
        device=st.sampled_from(DEVICES),
        budget_ms=st.sampled_from([5.0, 60.0, 250.0, 2000.0]),
        again=st.booleans(),
    )
    def ask(self, device: str, budget_ms: float, again: bool) -> None:
        self.num += 1
        for _ in range(2 if again else 1):
            task = self.loop.create_task(self._ask(device, f"q{self.num}", budget_ms))
            self.asked.append(Asked(device, self.loop.time(), budget_ms, task))
        self.loop.pass_time(0)

    async def _ask(self, device: str, request_id: str, budget_ms: float) -> tuple[Answer, float]:
        asked_s = self.loop.time()
        deadline = Deadline.after(asked_s, budget_ms)
        answer = await self.tiers[device].flow.answer(request(request_id, budget_ms), deadline)
        return answer, (self.loop.time() - asked_s) * 1000

    @rule(seconds=st.sampled_from([0.001, 0.02, 0.3, 5.0]))
    def wait(self, seconds: float) -> None:
        self.loop.pass_time(seconds)

    def _on_buses(self, name: str, act: Callable[[MemoryBus], None]) -> None:
        async def inside() -> None:
            for bus in (self.tiers[name].bus, self.tiers[name].up_bus):
                act(bus)

        self.loop.run(inside())

    @rule(name=st.sampled_from([*DEVICES, *GATEWAYS, "cloud-1"]))
    def cut(self, name: str) -> None:
        self._on_buses(name, MemoryBus.partition)

    @rule(name=st.sampled_from([*DEVICES, *GATEWAYS, "cloud-1"]))
    def heal(self, name: str) -> None:
        if name not in self.dead:
            self._on_buses(name, MemoryBus.heal)

    @rule(name=st.sampled_from([*DEVICES, *GATEWAYS, "cloud-1"]))
    def lose_connection(self, name: str) -> None:
        self._on_buses(name, MemoryBus.drop_connection)

    @precondition(lambda self: not self.dead)
    @rule(name=st.sampled_from(GATEWAYS))
    def kill(self, name: str) -> None:
        # Nothing is drained and nobody is told: its connections are gone, and so is its work.
        self._on_buses(name, MemoryBus.partition)
        self.dead.add(name)

    @precondition(lambda self: self.dead)
    @rule()
    def come_back(self) -> None:
        name = self.dead.pop()
        self.has_restarted = True
        self.loop.run(self._replace(name))

    async def _replace(self, name: str) -> None:
        await self.tiers[name].__aexit__(None, None, None)
        await self._enter(name, Tier.REGIONAL, Tier.CLOUD)

    @invariant()
    def every_request_ends_by_its_deadline(self) -> None:
        for asked in self.asked:
            over_ms = (self.loop.time() - asked.asked_s) * 1000 - asked.budget_ms
            assert asked.task.done() or over_ms <= SLACK_MS, asked

    @invariant()
    def every_answer_is_honest(self) -> None:
        for asked in self.asked:
            if not asked.task.done():
                continue
            answer, took_ms = asked.task.result()
            assert took_ms <= asked.budget_ms + SLACK_MS
            for hop in answer.hops:
                assert hop.reason is not Reason.CONFIDENT or hop.confidence is not None
            if answer.outcome in (Outcome.ANSWERED, Outcome.DEGRADED):
                assert answer.confidence is not None
                assert 0 <= answer.confidence <= 1
                assert all(math.isfinite(x) for x in answer.outputs["logits"].ravel().tolist())

    @invariant()
    def every_request_is_in_the_log_once(self) -> None:
        for device in DEVICES:
            if device not in self.tiers:
                continue
            logged = Counter(one.request_id for one in self.tiers[device].log.records)
            ended = Counter(
                asked.task.result()[0].request_id
                for asked in self.asked
                if asked.device == device and asked.task.done()
            )
            assert logged == ended

    def teardown(self) -> None:
        try:
            if self.tiers:
                self._finish()
        finally:
            self.loop.run(self._leave())
            self.loop.close()
            asyncio.set_event_loop(None)

    def _finish(self) -> None:
        for name in (*DEVICES, *GATEWAYS, "cloud-1"):
            self.heal(name)
        self.loop.pass_time(60)
        self.every_request_ends_by_its_deadline()
        self.every_answer_is_honest()
        self.every_request_is_in_the_log_once()
        for name, tier in self.tiers.items():
            assert tier.uplink is None or tier.uplink.num_pending == 0, name
            assert name in self.dead or tier.ingress.queue_len == 0, name
        if not self.dead and not self.has_restarted:
            self._add_up()

    def _add_up(self) -> None:
        counts = []
        for name, tier in self.tiers.items():
            one = counts_in(tier.metrics.render()[0].decode(), name)
            # Devices are asked past the door that counts what is received.
            is_device = one.tier is Tier.EDGE
            counts.append(replace(one, received=one.answered) if is_device else one)
        wrong = [finding for finding in reconcile(counts) if not finding.adds_up]
        assert not wrong, wrong

    async def _leave(self) -> None:
        for tier in self.tiers.values():
            await tier.__aexit__(None, None, None)


TestFleet = Fleet.TestCase
TestFleet.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
