"""A model in a process of its own: what it does to itself, it does to nobody else.

A keeper thread starts the process, watches its memory and starts it again when it has ended, later
each time (``runtime.core.restarts``). Meanwhile, and when a run takes too long, ``run`` raises
``BackendError`` at once, so that a request can climb or go on with the other members.
"""

from __future__ import annotations

import os
import selectors
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import structlog

from runtime.adapters.artifacts import ModelFolder
from runtime.adapters.engine_options import EngineOptions
from runtime.adapters.engines import load_member
from runtime.adapters.fallback_backend import OnFallback
from runtime.adapters.model_worker import Ready, Start, TimedBackend
from runtime.adapters.worker_process import Cause, WorkerProcess
from runtime.core.providers import EngineReport
from runtime.core.restarts import Restarts
from runtime.errors import BackendError, StartError, TierwiseError
from runtime.manifest import Member, encode_manifest
from runtime.messages import Tensors, TensorSpec
from runtime.tensors import num_examples

# A run gets this much of what its examples usually take, on top of the time that is set.
PATIENCE = 20.0
# Callers in line for one model; one more is refused.
MAX_WAITING = 16
LOADER = "runtime.adapters.engines:load_member"
_MEMORY_POLL_S = 0.05
_MB = 1 << 20
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ProcessOptions:
    """How a model's process is started and kept.

    ``loader`` names the function that loads the model in there. ``memory_limit_mb`` 0 is none.
    ``on_end`` hears from the keeper thread why a process ended, ``on_fallback`` from a caller's
    that its model runs on something else now.
    """

    engine: EngineOptions = field(default_factory=EngineOptions)
    memory_limit_mb: int = 0
    run_timeout_ms: float = 500.0
    start_timeout_s: float = 60.0
    loader: str = LOADER
    restarts: Callable[[], Restarts] = Restarts
    on_end: Callable[[str, Cause], None] = field(default=lambda _member, _cause: None)
    on_fallback: OnFallback = field(default=lambda _member, _report: None)


@dataclass(frozen=True, slots=True)
class _End:
    """How a process ended, what it said last, and how long it was of use."""

    cause: Cause
    how: str
    said: str
    ran_s: float = 0.0


class ProcessBackend:
    """A backend whose model runs in a child process; implements ``runtime.ports.Backend``."""

    def __init__(
        self, model: ModelFolder, member: str, options: ProcessOptions | None = None
    ) -> None:
        """Starts the process and returns once its model is warm.

        Raises:
            ArtifactError: the model file cannot be used.
            BackendError: the warm-up failed.
            StartError: the process ended at its start, or was not ready in time.
        """
        self._options = options or ProcessOptions()
        self._member = member
        self._source = f"{model.folder} ({member})"
        self._start = Start(
            folder=str(model.folder.resolve()),
            manifest=encode_manifest(model.manifest),
            member=member,
            engine=self._options.engine,
            loader=self._options.loader,
            memory_limit_mb=self._options.memory_limit_mb,
        )
        self._turn = threading.Lock()
        self._waiting = threading.BoundedSemaphore(MAX_WAITING)
        self._worker: WorkerProcess | None = None
        self._stop = threading.Event()
        # Wakes the keeper out of waiting for its process.
        self._wake_r, self._wake_w = os.pipe()
        self._first: Ready | TierwiseError | None = None
        self._has_started = threading.Event()
        self._thread = threading.Thread(
            target=self._keep, name=f"{model.manifest.name}.{member}.keeper", daemon=True
        )
        self._thread.start()
        ready = self._wait_first()
        self.inputs: tuple[TensorSpec, ...] = ready.inputs
        self.outputs: tuple[TensorSpec, ...] = ready.outputs
        self.typical_ms: float = ready.typical_ms
        self.report: EngineReport = ready.report

    def _wait_first(self) -> Ready:
        self._has_started.wait()
        if isinstance(self._first, Ready):
            return self._first
        self.close()
        raise self._first or RuntimeError("the keeper did not start a process")

    @property
    def pid(self) -> int | None:
        """The process that is ready; None while there is none."""
        worker = self._worker
        return worker.pid if worker else None

    def run(self, inputs: Tensors) -> Tensors:
        """One inference; others wait for their turn.

        Raises:
            BackendError: the model or its process failed, is not back yet, or is closed.
        """
        if not self._waiting.acquire(blocking=False):
            raise BackendError(f"{self._source} has {MAX_WAITING} callers in line")
        try:
            timeout_s = self._timeout_s(inputs)
            if not self._turn.acquire(timeout=timeout_s):
                raise BackendError(f"{self._source} was busy for {timeout_s:g} s")
            try:
                worker = self._worker
                if worker is None:
                    how = "closed" if self._stop.is_set() else "being started again"
                    raise BackendError(f"{self._source} is {how}")
                outputs = worker.run(inputs, timeout_s)
                if worker.news is not None:
                    self._report(worker)
                return outputs
            finally:
                self._turn.release()
        finally:
            self._waiting.release()

    def _report(self, worker: WorkerProcess) -> None:
        """Passes on that the model runs on something else; the next process tries again."""
        self.report, worker.news = worker.news or self.report, None
        _log.warning("model.engine_fell_back", member=self._member, runs=str(self.report))
        self._options.on_fallback(self._member, self.report)

    def _timeout_s(self, inputs: Tensors) -> float:
        usual_ms = self.typical_ms * max(1, num_examples(inputs))
        return (self._options.run_timeout_ms + PATIENCE * usual_ms) / 1000

    def close(self) -> None:
        """Ends the process, also one that works, and the keeper; safe to call twice."""
        if self._stop.is_set():
            return
        self._stop.set()
        os.write(self._wake_w, b"x")
        self._thread.join()
        os.close(self._wake_r)
        os.close(self._wake_w)

    def _keep(self) -> None:
        """The keeper: one process after the other until it is told to stop."""
        restarts = self._options.restarts()
        try:
            while not self._stop.is_set():
                end = self._keep_one()
                if self._stop.is_set() or not isinstance(self._first, Ready):
                    return
                wait_s = restarts.wait_s(end.ran_s)
                self._options.on_end(self._member, end.cause)
                _log.warning(
                    "model.process_ended",
                    member=self._member,
                    cause=end.cause,
                    how=end.how,
                    ran_s=round(end.ran_s, 3),
                    said=end.said,
                    restart_in_s=wait_s,
                )
                self._stop.wait(wait_s)
        finally:
            self._has_started.set()

    def _keep_one(self) -> _End:
        """One process from its start to its end."""
        try:
            worker = WorkerProcess(self._start)
        except StartError as error:
            self._first = self._first or error
            return _End("crashed", "did not start", str(error))
        try:
            ready = worker.wait_ready(self._options.start_timeout_s, self._wake_r)
            ran_s = self._serve(worker, ready)
            how = worker.end(gently=self._stop.is_set())
            return _End(worker.cause, how, worker.tail, ran_s)
        except TierwiseError as error:
            self._first = self._first or error
            return _End("crashed", "did not start", str(error))
        except OSError as error:  # of ours: no more file descriptors, for one
            self._first = self._first or StartError(f"{self._source}: {error}")
            return _End("crashed", "could not be watched", str(error))
        finally:
            worker.kill("crashed")
            worker.end()

    def _serve(self, worker: WorkerProcess, ready: Ready) -> float:
        """Lets callers use a process until it ends or is to end; returns how long that was."""
        ready_s = time.monotonic()
        self._worker = worker
        if self._first is None:
            self._first = ready
            self._has_started.set()
        else:
            _log.info("model.process_started", member=self._member, pid=worker.pid)
        try:
            self._watch(worker)
        finally:
            self._worker = None
        if self._stop.is_set():
            worker.cause = "closed"
        return time.monotonic() - ready_s

    def _watch(self, worker: WorkerProcess) -> None:
        """Returns when the process has ended, is over its memory limit, or we are closed."""
        limit_bytes = self._options.memory_limit_mb * _MB
        with selectors.DefaultSelector() as selector:
            selector.register(worker.output_fd, selectors.EVENT_READ)
            selector.register(self._wake_r, selectors.EVENT_READ)
            while not self._stop.is_set():
                selector.select(_MEMORY_POLL_S if limit_bytes else None)
                if not worker.read_output():
                    return
                if limit_bytes and worker.rss_bytes > limit_bytes:
                    worker.kill("memory")
                    return


def start_members(model: ModelFolder, options: ProcessOptions) -> tuple[TimedBackend, ...]:
    """A process for each member, in the manifest's order; they load side by side.

    A member that is a server has its process elsewhere, and is asked from here.

    Raises:
        ArtifactError: a model file cannot be used.
        BackendError: a warm-up failed.
        StartError: a process ended at its start, or was not ready in time.
    """
    members = model.manifest.members

    def start(member: Member) -> TimedBackend:
        if member.file is None:
            return load_member(model, member.name, options.engine)
        return ProcessBackend(model, member.name, options)

    with ThreadPoolExecutor(len(members)) as pool:
        starting = [pool.submit(start, member) for member in members]
    failed = [error for one in starting if (error := one.exception()) is not None]
    if failed:
        for one in starting:
            if one.exception() is None:
                one.result().close()
        raise failed[0]
    return tuple(one.result() for one in starting)
