"""The process that times a model, so that its memory is its own and nobody else works in it.

python -m hardware_profiles.bench_worker < task.json
"""

from __future__ import annotations

import itertools
import os
import resource
import signal
import statistics
import sys
import time
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from hardware_profiles.bench_protocol import Failed, Progress, Said, Task, Timed
from hardware_profiles.measurement import BatchTimes
from hardware_profiles.reading import field_of, text_of, whole_number
from runtime.errors import TierwiseError
from runtime.messages import Tensors, TensorSpec
from runtime.supervise import stop_with_parent
from runtime.tensors import dtype_of

MAX_RUNS = 1_000_000
# Windows of the warm-up: it is over when the medians of the last ones are alike.
_WINDOW_S = 0.02
_NUM_WINDOWS = 3
_ALIKE = 1.05
_MAX_WARM_UP_SHARE = 0.5
_TELL_EVERY_S = 0.1
_MOST_TOLD = 100
_SEED = 20_240_601


def main() -> int:
    """Times what the standard input says; tells lines on the standard output."""
    stop_with_parent(os.getppid(), signal.SIGKILL)
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    try:
        _tell(_time(task))
    except TierwiseError as error:
        _tell(Failed(error.code, str(error)))
        return 1
    return 0


def _tell(said: Said) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(said) + b"\n")
    sys.stdout.buffer.flush()


def _time(task: Task) -> Timed:
    # Here, so that the memory before is that of Python and numpy alone.
    base_rss_bytes = _status_bytes("VmRSS")
    start_s = time.perf_counter()
    from runtime.adapters.artifacts import open_model  # noqa: PLC0415
    from runtime.adapters.engine_options import EngineOptions  # noqa: PLC0415
    from runtime.adapters.engines import load_members  # noqa: PLC0415

    model = open_model(Path(task.folder))
    members = load_members(model, EngineOptions(threads=task.threads))
    load_ms = (time.perf_counter() - start_s) * 1e3

    def run(inputs: Tensors) -> None:
        for member in members:
            member.run(inputs)

    used = _Used()
    batches = tuple(
        _time_batch(run, example(members[0].inputs, batch), task, position, used)
        for position, batch in enumerate(task.batches)
    )
    engine, _, version = members[0].report.engine.partition(" ")
    return Timed(
        batches,
        load_ms,
        base_rss_bytes,
        _status_bytes("VmHWM"),
        used.cpu_s,
        used.wall_s,
        used.num_preempted,
        engine,
        version,
    )


class _Used:
    """Adds up what the timed runs used."""

    def __init__(self) -> None:
        self.cpu_s = self.wall_s = 0.0
        self.num_preempted = 0

    def add(self, times: Callable[[], array[float]]) -> array[float]:
        before, start_s = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        found = times()
        after = resource.getrusage(resource.RUSAGE_SELF)
        self.wall_s += time.perf_counter() - start_s
        self.cpu_s += after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        self.num_preempted += after.ru_nivcsw - before.ru_nivcsw
        return found


def _time_batch(
    run: Callable[[Tensors], None], inputs: Tensors, task: Task, position: int, used: _Used
) -> BatchTimes:
    def tell(share: float, *, is_measuring: bool) -> None:
        _tell(Progress((position + share) / len(task.batches), is_measuring))

    tell(0.0, is_measuring=False)
    num_warm_up, is_warm = _warm_up(lambda: run(inputs), task.seconds * _MAX_WARM_UP_SHARE)
    tell(0.0, is_measuring=True)
    times = used.add(
        lambda: _times(
            lambda: run(inputs), task.seconds, lambda share: tell(share, is_measuring=True)
        )
    )
    tell(1.0, is_measuring=True)
    return _summary(task.batches[position], times, num_warm_up, is_warm=is_warm)


def _warm_up(run: Callable[[], None], limit_s: float) -> tuple[int, bool]:
    """Runs until windows of runs take alike; returns the number of runs, and whether they do."""
    medians: list[float] = []
    num_runs = 0
    start_s = time.perf_counter()
    while True:
        window: list[float] = []
        while sum(window) < _WINDOW_S or len(window) < _NUM_WINDOWS:
            one_s = time.perf_counter()
            run()
            window.append(time.perf_counter() - one_s)
        num_runs += len(window)
        medians = [*medians, statistics.median(window)][-_NUM_WINDOWS:]
        if len(medians) == _NUM_WINDOWS and max(medians) <= min(medians) * _ALIKE:
            return num_runs, True
        if time.perf_counter() - start_s > limit_s and len(medians) == _NUM_WINDOWS:
            return num_runs, False


def _times(run: Callable[[], None], seconds: float, tell: Callable[[float], None]) -> array[float]:
    """Seconds of each run, one after the other, for so long; at least two runs."""
    times = array("d")
    every_s = max(_TELL_EVERY_S, seconds / _MOST_TOLD)
    start_s = told_s = time.perf_counter()
    for _ in itertools.repeat(None, MAX_RUNS):
        one_s = time.perf_counter()
        run()
        now_s = time.perf_counter()
        times.append(now_s - one_s)
        if now_s - start_s >= seconds and len(times) > 1:
            break
        if now_s - told_s >= every_s:
            told_s = now_s
            tell(min(1.0, (now_s - start_s) / seconds))
    return times


def _summary(batch: int, times: Sequence[float], num_warm_up: int, *, is_warm: bool) -> BatchTimes:
    ms = np.asarray(times) * 1e3
    half = len(ms) // 2
    p50, p90, p99 = np.percentile(ms, (50, 90, 99), method="inverted_cdf").tolist()
    return BatchTimes(
        batch=batch,
        num_runs=len(ms),
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        examples_per_s=batch * len(ms) / float(ms.sum()) * 1e3,
        first_half_ms=float(np.median(ms[:half])),
        second_half_ms=float(np.median(ms[half:])),
        num_warm_up=num_warm_up,
        is_warm=is_warm,
    )


def example(specs: Sequence[TensorSpec], batch: int) -> Tensors:
    """Random values between 0 and 1, the same in every run; whole numbers are 0 or 1."""
    random = np.random.default_rng(_SEED)
    found: Tensors = {}
    for spec in specs:
        sizes = [1 if size < 0 else size for size in spec.shape]
        if spec.shape[:1] == (-1,):
            sizes[0] = batch
        kind = dtype_of(spec.datatype)
        is_real = np.issubdtype(kind, np.floating)
        values = random.random(sizes) if is_real else random.integers(0, 2, sizes)
        found[spec.name] = values.astype(kind)
    return found


def _status_bytes(name: str) -> int:
    """Resident memory now (VmRSS) or at most (VmHWM); 0 where the system does not say.

    ``ru_maxrss`` would begin with the peak of the parent.
    """
    told = field_of(text_of(Path("/proc/self/status")), name)
    return (whole_number(told.removesuffix(" kB").strip()) or 0) * 1024


if __name__ == "__main__":
    sys.exit(main())
