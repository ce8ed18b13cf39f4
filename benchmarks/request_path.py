"""What Tierwise adds to the bare engine, step by step, in CPU microseconds a request.

All steps run round-robin in one process, so that what disturbs one disturbs all. Printed are the
medians of CPU time over rounds, and the ratio to the bare engine. The decision overhead
(confidence, gear, look-up in its table, decision, live control) is also timed call by call, for
percentiles.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import logging
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable

import aiohttp
import numpy as np
import numpy.typing as npt
import structlog

from edge_agent.agent import Agent
from edge_agent.http_api import InferenceApi
from edge_agent.settings import EdgeSettings
from hardware_profiles.detect import detect
from model_zoo.catalog import bundled_model, bundled_pictures
from runtime.adapters.artifacts import open_model
from runtime.adapters.clock import SystemClock
from runtime.adapters.engines import load_members
from runtime.adapters.http_server import serving
from runtime.adapters.memory_bus import MemoryBroker, MemoryBus
from runtime.codec import HTTP_HEADER_LENGTH, encode_request
from runtime.common_settings import EscalationSettings, StateSettings
from runtime.core.confidence import Floats, confidence_of_batch
from runtime.core.escalation import EscalationPolicy, Situation, decide
from runtime.core.gearbox import Gearbox
from runtime.core.live import LiveControl
from runtime.deadline import Deadline
from runtime.messages import Guarantee, Residency, Tensors, Tier
from runtime.policy import (
    Choice,
    DecisionTable,
    Gear,
    Interval,
    Policy,
    Promise,
    ScoreReference,
    SplitFacts,
    Targets,
)

Step = Callable[[], Awaitable[object]]
Pixels = npt.NDArray[np.float32]


async def main(rounds: int, calls: int) -> None:
    """Measures and prints a table."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    picture = bundled_pictures("test").pictures[:1].astype(np.float32) / np.float32(255)
    (engine,) = load_members(open_model(bundled_model("edge")))
    clock = SystemClock()
    with tempfile.TemporaryDirectory() as folder:
        settings = EdgeSettings(
            agent="bench",
            region="bench",
            state=StateSettings(folder=folder),
            escalation=EscalationSettings(enabled=False),
        )
        bus = MemoryBus(MemoryBroker(), client_id="bench")
        async with (
            Agent(settings, bus=bus) as agent,
            serving(InferenceApi(agent).app(), "127.0.0.1", 0) as base,
            aiohttp.ClientSession() as session,
        ):
            steps = {
                **_parts(picture, engine.run),
                **_whole(picture, agent, clock),
                "HTTP on loopback, client included": _over_http(picture, base, session),
            }
            times = await _measure(steps, rounds, calls)
    overhead = call_by_call(decision_of(engine.run({"image": picture})["logits"]), 20_000)
    bare = times["bare engine"]
    print(detect())
    print(f"{'step':34} {'CPU us':>8} {'x engine':>9}")
    for name, microseconds in times.items():
        print(f"{name:34} {microseconds:8.1f} {microseconds / bare:9.2f}")
    shown = ", ".join(
        f"p{percent} {overhead[len(overhead) * percent // 100]:.1f} us" for percent in (50, 99)
    )
    print(f"decision overhead, {len(overhead)} calls one by one: {shown}")


def _parts(picture: Pixels, run: Callable[[Tensors], Tensors]) -> dict[str, Step]:
    inputs: Tensors = {"image": picture}
    logits = run(inputs)["logits"]
    decide_all = decision_of(logits)

    async def engine() -> object:
        return run(inputs)

    async def confidence() -> object:
        return confidence_of_batch(logits, 1.3)

    async def decision() -> object:
        return decide_all()

    return {
        "bare engine": engine,
        "confidence of one answer": confidence,
        "decision overhead": decision,
    }


def decision_of(logits: Floats) -> Callable[[], object]:
    """All that is done between the model's output and knowing what to do, under a policy."""
    followed = wide_policy(logits.shape[1])
    box = Gearbox(Tier.EDGE, followed, "0" * 64)
    live = LiveControl(followed, audit_rate=0.01)
    # As it is: nothing has shifted, and audits have steered a little.
    live.steering.tau = 0.1
    scores = itertools.cycle(np.linspace(0, 1, 499).tolist())
    policy = EscalationPolicy(accept_at=0.8)

    def decide_all() -> object:
        sure = confidence_of_batch(logits, 1.3)
        standing = live.standing(1.0)
        engaged = box.engage("", remaining_ms=100.0, num_examples=1, standing=standing)
        advised = box.advise(engaged, sure, (), residency=Residency.CLOUD, chance=0.9)
        situation = Situation(
            confidence=sure,
            tier_above=Tier.REGIONAL,
            residency=Residency.CLOUD,
            remaining_ms=50.0,
            upstream_is_reachable=True,
            chance_in_time=0.9,
            probe_is_due=False,
        )
        decision = decide(policy, situation, advised[0] if advised else None)
        live.note_score(next(scores))
        live.note_answer("g100", disagrees=None, is_auditable=True)
        return decision

    return decide_all


def wide_policy(num_labels: int) -> Policy:
    """As large as a policy gets: a row a label, 24 bins a row, and every choice that there is."""
    edges = tuple(position / 24 for position in range(1, 24))
    cells = ((0.1,) * 24,) * (num_labels + 1)
    targets = ("regional",), ("cloud",), ("regional", "cloud")
    choices = tuple(Choice(gain=cells, cost=cells, to=to) for to in targets)
    rows = tuple(range(num_labels))
    table = DecisionTable(("edge",), rows, (edges,) * (num_labels + 1), choices)
    none = Interval(0.0, 0.0, 0.0)
    promise = Promise(answered_by={}, cost=none, loss=none, accuracy=none, disagreement=none)
    evenly = tuple(position / 200 for position in range(201))
    return Policy(
        name="bench",
        tiers=("edge", "regional", "cloud"),
        prices=(0.0, 0.1, 1.0),
        labels=tuple(map(str, rows)),
        targets=Targets(max_loss=0.01, delta=0.05),
        train=SplitFacts("", 0),
        calibration=SplitFacts("", 0),
        gears=tuple(
            Gear(f"g{budget_ms}", Guarantee.CERTIFIED, 0.1, (table,), promise, budget_ms)
            for budget_ms in (20, 50, 100, 200)
        ),
        scores=ScoreReference("edge", "probability", 5000, evenly),
    )


def call_by_call(step: Callable[[], object], calls: int) -> list[float]:
    """Microseconds of wall-clock time of each call, in order of size."""
    times = []
    for _ in range(calls):
        began_ns = time.perf_counter_ns()
        step()
        times.append((time.perf_counter_ns() - began_ns) / 1000)
    return sorted(times)


def _whole(picture: Pixels, agent: Agent, clock: SystemClock) -> dict[str, Step]:
    inputs: Tensors = {"image": picture}
    model = agent.flow.model

    async def local() -> object:
        return await model.infer(inputs, Deadline.after(clock.monotonic_s(), 1000))

    async def in_process() -> object:
        return await agent.infer(inputs, budget_ms=1000)

    return {
        "local model (engine + confidence)": local,
        "agent.infer, decision log included": in_process,
    }


def _over_http(picture: Pixels, base: str, session: aiohttp.ClientSession) -> Step:
    body, length = encode_request({"image": picture})
    url = f"{base}/v2/models/fashion/infer"

    async def http() -> object:
        async with session.post(url, data=body, headers={HTTP_HEADER_LENGTH: str(length)}) as said:
            return await said.read()

    return http


async def _measure(steps: dict[str, Step], rounds: int, calls: int) -> dict[str, float]:
    seen: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            began_s = time.process_time()
            for _ in range(calls):
                await step()
            seen[name].append((time.process_time() - began_s) / calls * 1e6)
    return {name: statistics.median(times) for name, times in seen.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--calls", type=int, default=100)
    options = parser.parse_args()
    asyncio.run(main(options.rounds, options.calls))
