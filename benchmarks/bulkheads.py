"""What a process for each model costs, and what it keeps from the others.

First: one run of each bundled regional and cloud model, inline and in a process; wall time and the
CPU time of both processes together. Then: the cloud's ensemble with its members in processes of
their own, one picture every ``--every-ms``, where the first member is well, wedged (asleep, or
busy for ever), leaking over its memory limit, or crashing in every run. Compared are the times of
the *other* members' runs, and of whole requests, which stop to wait for the bad one.

The conditions take turns, because the machine is shared: the 99th percentile is the median of the
rounds', and so is its ratio to the healthy one of the same round.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import psutil
import structlog

from model_zoo.catalog import bundled_model
from runtime.adapters.artifacts import ModelFolder, open_model
from runtime.adapters.clock import SystemClock
from runtime.adapters.engine_options import EngineOptions
from runtime.adapters.engines import load_member, load_members
from runtime.adapters.model_process import (
    LOADER,
    ProcessBackend,
    ProcessOptions,
    start_members,
)
from runtime.adapters.model_worker import TimedBackend
from runtime.core.providers import EngineReport
from runtime.deadline import Deadline
from runtime.errors import BackendError, TooLateError
from runtime.local_model import LoadedMember, LocalModel
from runtime.messages import Tensors, TensorSpec, Tier

PICTURE: Tensors = {"image": np.zeros((1, 28, 28), np.float32)}
BUDGET_MS = 200.0
MEMORY_LIMIT_MB = 200
LEAK_BYTES = 10 << 20
HEALTHY = "healthy"
DEEDS = ("asleep", "busy", "leaking", "crashing")


@dataclass
class Bad:
    """A real model that does something worse as soon as it is asked."""

    inner: TimedBackend
    deed: str
    leaked: list[bytearray] = field(default_factory=list)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """As of the model."""
        return self.inner.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """As of the model."""
        return self.inner.outputs

    @property
    def typical_ms(self) -> float:
        """As of the model."""
        return self.inner.typical_ms

    @property
    def report(self) -> EngineReport:
        """As of the model."""
        return self.inner.report

    def run(self, inputs: Tensors) -> Tensors:
        """Misbehaves."""
        if self.deed == "crashing":
            os._exit(1)
        if self.deed == "asleep":
            time.sleep(3600)
        while self.deed == "busy":
            pass
        self.leaked.append(bytearray(b"x" * LEAK_BYTES))
        return self.inner.run(inputs)

    def close(self) -> None:
        """Frees the model."""
        self.inner.close()


def load_asleep(model: ModelFolder, member: str, options: EngineOptions) -> Bad:
    """A loader, as a model's process takes it."""
    return Bad(load_member(model, member, options), "asleep")


def load_busy(model: ModelFolder, member: str, options: EngineOptions) -> Bad:
    """A loader."""
    return Bad(load_member(model, member, options), "busy")


def load_leaking(model: ModelFolder, member: str, options: EngineOptions) -> Bad:
    """A loader."""
    return Bad(load_member(model, member, options), "leaking")


def load_crashing(model: ModelFolder, member: str, options: EngineOptions) -> Bad:
    """A loader."""
    return Bad(load_member(model, member, options), "crashing")


@dataclass
class Timed:
    """A backend whose runs are timed."""

    inner: ProcessBackend
    times_ms: list[float] = field(default_factory=list)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """As of the model."""
        return self.inner.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """As of the model."""
        return self.inner.outputs

    def run(self, inputs: Tensors) -> Tensors:
        """As of the model."""
        began_s = time.perf_counter()
        try:
            return self.inner.run(inputs)
        finally:
            self.times_ms.append((time.perf_counter() - began_s) * 1000)

    def close(self) -> None:
        """Ends the process."""
        self.inner.close()


def overhead(rounds: int, num: int) -> list[dict[str, object]]:
    """Inline and process for each member, in turn."""
    rows: list[dict[str, object]] = []
    for tier in (Tier.REGIONAL, Tier.CLOUD):
        model = open_model(bundled_model(tier))
        processes, inline = start_members(model, ProcessOptions()), load_members(model)
        for index, member in enumerate(model.manifest.members):
            times: dict[str, list[float]] = defaultdict(list)
            cpu_s: dict[str, float] = defaultdict(float)
            for _ in range(rounds):
                for name, backend in (("inline", inline[index]), ("process", processes[index])):
                    pids = [os.getpid()]
                    if isinstance(backend, ProcessBackend) and backend.pid is not None:
                        pids.append(backend.pid)
                    backend.run(PICTURE)
                    before_s = _cpu_s(pids)
                    for _ in range(num):
                        began_s = time.perf_counter()
                        backend.run(PICTURE)
                        times[name].append((time.perf_counter() - began_s) * 1e6)
                    cpu_s[name] += _cpu_s(pids) - before_s
            rows += [
                {
                    "tier": tier.value,
                    "member": member.name,
                    "how": name,
                    "p50_us": round(float(np.quantile(times[name], 0.5))),
                    "p99_us": round(float(np.quantile(times[name], 0.99))),
                    "cpu_us": round(cpu_s[name] / (rounds * num) * 1e6),
                }
                for name in ("inline", "process")
            ]
        for one in processes:
            one.close()
    return rows


def _cpu_s(pids: list[int]) -> float:
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


@dataclass
class Seen:
    """Times of one condition, of all rounds."""

    others_ms: list[float] = field(default_factory=list)
    requests_ms: list[float] = field(default_factory=list)
    # The 99th percentile of each round.
    p99s_ms: list[float] = field(default_factory=list)
    num_failed: int = 0
    num_ends: int = 0


async def serve(condition: str, num: int, every_s: float, seen: Seen) -> None:
    """One ensemble under one condition."""
    model = open_model(bundled_model(Tier.CLOUD))
    names = [member.name for member in model.manifest.members]

    def options(name: str) -> ProcessOptions:
        is_bad = name == names[0] and condition != HEALTHY
        return ProcessOptions(
            loader=f"bulkheads:load_{condition}" if is_bad else LOADER,
            memory_limit_mb=MEMORY_LIMIT_MB,
            on_end=lambda _member, _cause: ends.append(1),
        )

    ends: list[int] = []
    backends = [Timed(ProcessBackend(model, name, options(name))) for name in names]
    clock = SystemClock()
    members = [
        LoadedMember(one.name, one.weight, backend, backend.inner.typical_ms, may_block=True)
        for one, backend in zip(model.manifest.members, backends, strict=True)
    ]
    local = LocalModel(model.manifest, members, clock)
    try:
        asked: list[asyncio.Task[None]] = []
        began_s = clock.monotonic_s()
        for number in range(num):
            await asyncio.sleep(max(0.0, began_s + number * every_s - clock.monotonic_s()))
            asked.append(asyncio.create_task(_ask(local, clock, seen)))
        await asyncio.gather(*asked)
    finally:
        await asyncio.to_thread(local.close)
    times_ms = [ms for backend in backends[1:] for ms in backend.times_ms]
    seen.others_ms += times_ms
    seen.p99s_ms.append(float(np.quantile(times_ms, 0.99)))
    seen.num_ends += len(ends)


async def _ask(local: LocalModel, clock: SystemClock, seen: Seen) -> None:
    began_s = clock.monotonic_s()
    try:
        await local.infer(PICTURE, Deadline.after(began_s, BUDGET_MS))
    except (BackendError, TooLateError):
        seen.num_failed += 1
    seen.requests_ms.append((clock.monotonic_s() - began_s) * 1000)


def bulkheads(rounds: int, num: int, every_s: float) -> list[dict[str, object]]:
    """Every condition in turn, so many rounds."""
    seen: dict[str, Seen] = defaultdict(Seen)
    for _ in range(rounds):
        for condition in (HEALTHY, *DEEDS):
            asyncio.run(serve(condition, num, every_s, seen[condition]))
    usual_ms = np.array(seen[HEALTHY].p99s_ms)
    rows: list[dict[str, object]] = []
    for condition, one in seen.items():
        ratios = np.array(one.p99s_ms) / usual_ms
        rows.append(
            {
                "first_member": condition,
                "others_p50_ms": round(float(np.quantile(one.others_ms, 0.5)), 2),
                "others_p99_ms": round(float(np.median(one.p99s_ms)), 2),
                "ratio": round(float(np.median(ratios)), 2),
                "requests_p99_ms": round(float(np.quantile(one.requests_ms, 0.99)), 2),
                "failed": one.num_failed,
                "ends": one.num_ends,
            }
        )
    return rows


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--runs", type=int, default=300, help="runs a round for the overhead")
    parser.add_argument("--requests", type=int, default=200, help="requests a round and condition")
    parser.add_argument("--every-ms", type=float, default=25.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    tables = {
        "overhead": overhead(options.rounds, options.runs),
        "bulkheads": bulkheads(options.rounds, options.requests, options.every_ms / 1000),
    }
    if options.json:
        print(json.dumps(tables))
        return
    for rows in tables.values():
        print("  ".join(f"{name:>15}" for name in rows[0]))
        for row in rows:
            print("  ".join(f"{value!s:>15}" for value in row.values()))
        print()


if __name__ == "__main__":
    main()
