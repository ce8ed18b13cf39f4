"""What the machinery costs a request, in CPU microseconds, in a healthy hierarchy.

An edge and a cloud tier in one process over the in-memory bus, with models that only look answers
up, so that what is left is admission, deadline, decision, link, metrics and wire. A local request
is compared with its model alone, an escalation (both tiers of it) with a bare round trip of
messages of the same size over the same bus. All run round-robin; printed are medians over rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import statistics
import time
from collections.abc import Awaitable, Callable

import numpy as np
import structlog
from traced_hierarchy import Hierarchy

from model_zoo.policies.predictions import Predictions
from runtime.adapters.memory_bus import MemoryBus
from runtime.deadline import Deadline
from runtime.messages import InferenceRequest
from runtime.ports import Message

NUM_LABELS = 10
BUDGET_MS = 1000.0
# About the packets of an escalation of one small example.
REQUEST_BYTES, REPLY_BYTES = 400, 900
SURE, UNSURE = 0, 1
Step = Callable[[], Awaitable[object]]


def two_examples() -> Predictions:
    """One that the edge is sure of, and one that it is not."""
    return Predictions(
        tiers=("edge", "cloud"),
        label_names=tuple(map(str, range(NUM_LABELS))),
        label=np.array([3, 4]),
        price=np.array([0.0, 1.0]),
        predicted=np.array([[3, 5], [3, 4]]),
        score=np.array([[0.99, 0.3], [0.99, 0.95]]),
        example_id=np.array([b"0", b"1"]),
    )


async def bare_round_trip(hierarchy: Hierarchy) -> tuple[Step, list[MemoryBus]]:
    """A message there and one back, and nothing else."""
    there = MemoryBus(hierarchy.broker, client_id="there")
    here = MemoryBus(hierarchy.broker, client_id="here")
    waiting: list[asyncio.Future[None]] = []
    there.subscribe("bare/there", lambda _: there.publish(Message("bare/here", b"x" * REPLY_BYTES)))
    here.subscribe("bare/here", lambda _: waiting.pop().set_result(None))
    for bus in (there, here):
        await bus.start()
        await bus.wait_connected(5)

    async def step() -> object:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting.append(future)
        here.publish(Message("bare/there", b"x" * REQUEST_BYTES))
        return await future

    return step, [there, here]


async def main(rounds: int, calls: int, *, as_json: bool) -> None:
    """Measures and prints."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    predictions = two_examples()
    numbers = iter(range(10**9))
    async with Hierarchy(predictions, None, np.zeros(0)) as hierarchy:
        edge = hierarchy.tiers[0]

        def asks(example: int) -> Step:
            inputs = {"x": np.array([[example]], np.float64)}

            async def step() -> object:
                request = InferenceRequest(
                    request_id=f"r{next(numbers)}",
                    model_name="recorded",
                    inputs=inputs,
                    remaining_ms=BUDGET_MS,
                )
                edge.check(request)
                return await edge.answer(request, Deadline.after(time.monotonic(), BUDGET_MS))

            return step

        async def model_alone() -> object:
            inputs = {"x": np.array([[SURE]], np.float64)}
            return await edge.model.infer(inputs, Deadline.after(time.monotonic(), BUDGET_MS))

        bare, buses = await bare_round_trip(hierarchy)
        steps = {
            "model alone": model_alone,
            "local request": asks(SURE),
            "bare round trip": bare,
            "escalation": asks(UNSURE),
        }
        seen: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(rounds):
            for name, step in steps.items():
                began_s = time.process_time()
                for _ in range(calls):
                    await step()
                seen[name].append((time.process_time() - began_s) / calls * 1e6)
        for bus in buses:
            await bus.close()
    median = {name: round(statistics.median(times), 1) for name, times in seen.items()}
    median["machinery of a local request"] = round(
        median["local request"] - median["model alone"], 1
    )
    median["machinery of an escalation"] = round(
        median["escalation"] - median["bare round trip"], 1
    )
    if as_json:
        print(json.dumps(median))
        return
    for name, microseconds in median.items():
        print(f"{name:30} {microseconds:8.1f} us")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    asyncio.run(main(options.rounds, options.calls, as_json=options.json))
