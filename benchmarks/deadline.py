"""What becomes of a budget over a bad link, against an oracle that knows every round trip.

Real request flows, doors and uplinks of an edge and a cloud tier, in one process and in real time,
over a link with recorded round trips: median 45 ms, lognormal, 7 % of the time four times slower,
outages of seconds. Models are predictions collected beforehand, so only routing is judged. One
request every 20 ms at each budget. The oracle decides by the same policy and asks exactly where
the reply returns in time.

``--dataset`` takes predictions as ``tierwise policy eval`` does (the first service is the edge, the
most accurate one the cloud); without it the bundled models answer the bundled test pictures first.
``--trace`` takes a CSV with a column ``cloud`` of round trips in ms, ``lost`` where none came back.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from traced_hierarchy import MARGIN_MS, TIERS, Hierarchy, as_seen

from model_zoo.catalog import bundled_model
from model_zoo.policies.collect import collect, read_examples
from model_zoo.policies.fit import Conditions, Splits, fit_policy
from model_zoo.policies.prediction_files import read_predictions
from model_zoo.policies.predictions import Predictions
from model_zoo.policies.trace import read_trace
from runtime.deadline import Deadline
from runtime.messages import InferenceRequest
from runtime.policy import Policy, Targets

BUDGETS_MS = (60.0, 100.0, 200.0)
EVERY_S = 0.02
# Share of the time in outages of two seconds, and in slow periods of three.
OUTAGE, OUTAGE_S = 0.014, 2.0
SLOW, SLOW_S, SLOWER = 0.07, 3.0, 4.0
MEDIAN_MS, SIGMA = 45.0, 0.35
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def made_up_trace(num: int, seed: int) -> Floats:
    """(num,) round trips in ms, one every 20 ms; infinite where lost."""
    rng = np.random.default_rng(seed)
    times = MEDIAN_MS * np.exp(SIGMA * rng.standard_normal(num))

    def periods(share: float, length_s: float) -> npt.NDArray[np.bool_]:
        length = int(length_s / EVERY_S)
        count = max(1, round(share * num / length))
        found = np.zeros(num, np.bool_)
        for start in rng.integers(0, max(1, num - length), count):
            found[start : start + length] = True
        return found

    times[periods(SLOW, SLOW_S)] *= SLOWER
    times[periods(OUTAGE, OUTAGE_S)] = math.inf
    return times


@dataclass
class Seen:
    """What the caller saw at one budget."""

    elapsed_ms: list[float] = field(default_factory=list)
    is_right: list[bool] = field(default_factory=list)
    num_asked: int = 0
    num_wasted: int = 0


async def run(
    stack: Hierarchy, predictions: Predictions, num: int, budget_ms: float, began_s: float
) -> Seen:
    """Asks about one example every 20 ms."""
    seen = Seen()
    edge = stack.tiers[0]

    async def ask(number: int) -> None:
        asked_s = time.monotonic()
        request = InferenceRequest(
            request_id=str(number),
            model_name="recorded",
            inputs={"x": np.array([[number]], np.float64)},
            remaining_ms=budget_ms,
        )
        answer = await edge.answer(request, Deadline.after(asked_s, budget_ms))
        seen.elapsed_ms.append((time.monotonic() - asked_s) * 1000)
        seen.is_right.append(answer.label == int(predictions.label[number]))
        if answer.hops[0].escalated:
            seen.num_asked += 1
            seen.num_wasted += len(answer.hops) == 1

    async with asyncio.TaskGroup() as group:
        for number in range(num):
            await asyncio.sleep(max(0.0, began_s + number * EVERY_S - time.monotonic()))
            group.create_task(ask(number))
    return seen


def oracle(
    predictions: Predictions, policy: Policy, num: int, round_trip_ms: Floats, budget_ms: float
) -> tuple[float, float]:
    """Accuracy and share asked of who asks as the policy does, where the reply returns in time."""
    gear, (table, *_) = policy.gears[0], policy.gears[0].tables
    right, asked = 0, 0
    for number in range(num):
        label = int(predictions.predicted[0, number])
        row = table.rows[label]
        cell = int(np.searchsorted(table.edges[row], predictions.score[0, number], side="right"))
        wants = any(
            choice.gain[row][cell] - gear.penalty * choice.cost[row][cell] > 0
            for choice in table.choices
        )
        asks = wants and round_trip_ms[number] + MARGIN_MS < budget_ms
        asked += asks
        right += int(predictions.correct[1 if asks else 0, number])
    return right / num, asked / num


def two_tiers(dataset: Path | None) -> Predictions:
    """Predictions of the edge and of the cloud alone."""
    if dataset is None:
        folders = {tier.value: bundled_model(tier) for tier in TIERS}
        return collect(folders, read_examples("bundled:test"), {"edge": 0.0, "cloud": 1.0})
    every = read_predictions(dataset)
    best = int(every.correct[1:].mean(axis=1).argmax()) + 1
    return replace(
        every,
        tiers=("edge", "cloud"),
        price=np.array([0.0, 1.0]),
        predicted=every.predicted[[0, best]],
        score=every.score[[0, best]],
        service_ms=None,
        models={},
        kinds=(),
        scores={},
    )


def split(predictions: Predictions, num: int, seed: int) -> tuple[Splits, Predictions]:
    """What the policy is fitted on, and other examples to ask about, again and again if needed."""
    order = np.random.default_rng(seed).permutation(predictions.num_examples)
    third = len(order) // 3
    asked = order[2 * third :]
    return (
        Splits(predictions.take(order[:third]), predictions.take(order[third : 2 * third])),
        predictions.take(np.resize(asked, num)),
    )


async def main(options: argparse.Namespace) -> None:
    """Measures and prints."""
    splits, asked = split(two_tiers(options.dataset), options.requests, options.seed)
    targets = Targets(max_loss=0.01, delta=0.1)
    policy = fit_policy(splits, targets, Conditions(), name="deadline", seed=options.seed)
    # What travels through the runtime is the float32 that a model would give.
    asked = replace(asked, score=as_seen(asked))
    trace = (
        np.resize(read_trace(options.trace, ("edge", "cloud"))[:, 0], options.requests)
        if options.trace
        else made_up_trace(options.requests, options.seed)
    )
    async with AsyncExitStack() as entered:
        stacks = [
            await entered.enter_async_context(Hierarchy(asked, policy, trace)) for _ in BUDGETS_MS
        ]
        began_s = time.monotonic() + 0.1
        all_seen = await asyncio.gather(
            *(
                # One after the other within the 20 ms, so that they do not wait for one another.
                run(
                    stack,
                    asked,
                    options.requests,
                    budget_ms,
                    began_s + position * EVERY_S / len(BUDGETS_MS),
                )
                for position, (stack, budget_ms) in enumerate(zip(stacks, BUDGETS_MS, strict=True))
            )
        )
    found = {}
    for budget_ms, seen in zip(BUDGETS_MS, all_seen, strict=True):
        accuracy_oracle, asked_oracle = oracle(asked, policy, options.requests, trace, budget_ms)
        over = np.maximum(0.0, np.asarray(seen.elapsed_ms) - budget_ms)
        found[f"{budget_ms:g}"] = {
            "in_budget": float((over == 0).mean()),
            "overshoot_ms_p999": round(float(np.quantile(over, 0.999)), 3),
            "accuracy": round(float(np.mean(seen.is_right)), 4),
            "accuracy_oracle": round(accuracy_oracle, 4),
            "wasted": round(seen.num_wasted / max(1, seen.num_asked), 4),
            "asked": round(seen.num_asked / options.requests, 4),
            "asked_oracle": round(asked_oracle, 4),
        }
    if options.json:
        print(json.dumps(found))
        return
    columns = list(next(iter(found.values())))
    print("budget", *columns)
    for budget, row in found.items():
        print(f"{budget:>6}", *(f"{row[column]:{len(column)}g}" for column in columns))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", type=Path, help="predictions as .npz")
    parser.add_argument("--trace", type=Path, help="round trips as .csv")
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    asyncio.run(main(parser.parse_args()))
