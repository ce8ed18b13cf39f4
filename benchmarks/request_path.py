"""What Tierwise adds to the bare engine, step by step, in CPU microseconds a request.

All steps run round-robin in one process, so that what disturbs one disturbs all. Printed are the
medians of CPU time over rounds, and the ratio to the bare engine.
"""

from __future__ import annotations

import argparse
import asyncio
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
from runtime.adapters.http_server import serving
from runtime.adapters.memory_bus import MemoryBroker, MemoryBus
from runtime.adapters.onnx_backend import load_members
from runtime.codec import HTTP_HEADER_LENGTH, encode_request
from runtime.common_settings import EscalationSettings, StateSettings
from runtime.core.confidence import confidence_of_batch
from runtime.core.escalation import EscalationPolicy, Situation, decide
from runtime.deadline import Deadline
from runtime.messages import Residency, Tensors, Tier

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
    bare = times["bare engine"]
    print(detect())
    print(f"{'step':34} {'CPU us':>8} {'x engine':>9}")
    for name, microseconds in times.items():
        print(f"{name:34} {microseconds:8.1f} {microseconds / bare:9.2f}")


def _parts(picture: Pixels, run: Callable[[Tensors], Tensors]) -> dict[str, Step]:
    inputs: Tensors = {"image": picture}
    logits = run(inputs)["logits"]
    policy = EscalationPolicy(accept_at=0.8)
    sure = confidence_of_batch(logits, 1.3)
    situation = Situation(
        confidence=sure,
        tier_above=Tier.REGIONAL,
        residency=Residency.CLOUD,
        remaining_ms=50.0,
        upstream_is_reachable=True,
        chance_in_time=0.9,
        probe_is_due=False,
    )

    async def engine() -> object:
        return run(inputs)

    async def confidence() -> object:
        return confidence_of_batch(logits, 1.3)

    async def decision() -> object:
        return decide(policy, situation)

    return {
        "bare engine": engine,
        "confidence of one answer": confidence,
        "the decision": decision,
    }


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
