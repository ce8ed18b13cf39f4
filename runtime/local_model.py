"""The model of one tier: one file, or an ensemble whose members run side by side.

A member that fails, is late or gives something that is no answer is left out and named; the rest
answers. Nothing here waits past the deadline it is given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from runtime.core.confidence import Confidence, confidence_of_batch, softmax
from runtime.core.ensemble import MemberVote, combine
from runtime.deadline import Deadline
from runtime.errors import BackendError, TooLateError
from runtime.manifest import ModelManifest
from runtime.messages import Tensors
from runtime.ports import Backend, Clock

INLINE_LIMIT_MS = 1.0


@dataclass(frozen=True, slots=True)
class LocalResult:
    """What a tier's own model says; times in microseconds.

    ``averaged`` says that outputs and confidence are of an average with tiers below.
    """

    outputs: Tensors
    confidence: Confidence
    left_out: tuple[str, ...]
    service_us: int
    queue_us: int
    averaged: bool = False


@dataclass(frozen=True, slots=True)
class LoadedMember:
    """A member that is ready to run; ``typical_ms`` is its median time for one example."""

    name: str
    weight: float
    backend: Backend
    typical_ms: float


@dataclass(frozen=True, slots=True)
class _Run:
    started_s: float
    ended_s: float
    outputs: Tensors


class LocalModel:
    """Runs a model's members: what is short on the event loop, the rest in a thread per member.

    Each member has a thread of its own, so that one that is slow or stuck holds up only itself.
    """

    def __init__(
        self,
        manifest: ModelManifest,
        members: Sequence[LoadedMember],
        clock: Clock,
        *,
        accept_at: float | None = None,
    ) -> None:
        self.manifest = manifest
        self.accept_at = manifest.accept_at if accept_at is None else accept_at
        self._members = tuple(members)
        self._clock = clock
        # A thread starts with its first work, so what always runs inline has none.
        self._threads = {
            member.name: ThreadPoolExecutor(1, thread_name_prefix=f"{manifest.name}.{member.name}")
            for member in self._members
        }

    @property
    def label_names(self) -> tuple[str, ...]:
        """The classes, in the order of the scores."""
        return self.manifest.labels

    async def infer(self, inputs: Tensors, deadline: Deadline) -> LocalResult:
        """Runs all members on inputs that fit the manifest.

        Raises:
            BackendError: no member gave a usable answer.
            TooLateError: no member was done by the deadline.
        """
        asked_s = self._clock.monotonic_s()
        if self._is_short(inputs):
            runs = {self._members[0].name: self._run(self._members[0].backend, inputs)}
        else:
            runs = await self._run_in_threads(inputs, deadline)
        if not runs:
            raise BackendError(f"no member of {self.manifest.name} gave an answer")
        outputs, left_out, agreement = self._combine(runs)
        scores = outputs[self.manifest.outputs[0].name]
        started_s = min(run.started_s for run in runs.values())
        ended_s = max(run.ended_s for run in runs.values())
        return LocalResult(
            outputs=outputs,
            confidence=confidence_of_batch(scores, self.manifest.temperature, agreement=agreement),
            left_out=left_out,
            service_us=round((ended_s - started_s) * 1e6),
            queue_us=max(0, round((started_s - asked_s) * 1e6)),
        )

    def _is_short(self, inputs: Tensors) -> bool:
        """Whether a run holds up the event loop for no longer than handing it to a thread is worth.

        The time of a batch is taken to grow with its size; a large one is never short.
        """
        batch = max((array.shape[0] for array in inputs.values() if array.ndim), default=1)
        is_single = len(self._members) == 1
        return is_single and self._members[0].typical_ms * batch <= INLINE_LIMIT_MS

    def _run(self, backend: Backend, inputs: Tensors) -> _Run:
        started_s = self._clock.monotonic_s()
        outputs = backend.run(inputs)
        return _Run(started_s, self._clock.monotonic_s(), outputs)

    async def _run_in_threads(self, inputs: Tensors, deadline: Deadline) -> dict[str, _Run]:
        loop = asyncio.get_running_loop()
        futures = {
            loop.run_in_executor(
                self._threads[member.name], self._run, member.backend, inputs
            ): member.name
            for member in self._members
        }
        remaining_s = max(0.0, deadline.remaining_ms(self._clock.monotonic_s()) / 1000)
        try:
            done, late = await asyncio.wait(futures, timeout=remaining_s)
        finally:
            # What has not started leaves the queue; what runs cannot be stopped and is not heard.
            for future in futures:
                future.cancel()
        if not done and late:
            raise TooLateError(f"{self.manifest.name} was not done in time")
        return {
            futures[future]: future.result()
            for future in done
            if not isinstance(future.exception(), BackendError)
        }

    def _combine(self, runs: dict[str, _Run]) -> tuple[Tensors, tuple[str, ...], float]:
        """The outputs, who was left out, and the share of the others that chose the label."""
        if len(self._members) == 1:
            return runs[self._members[0].name].outputs, (), 1.0
        name = self.manifest.outputs[0].name
        votes = [
            MemberVote(member.name, softmax(runs[member.name].outputs[name]), member.weight)
            for member in self._members
            if member.name in runs
        ]
        combined = combine(votes)
        if combined is None:
            raise BackendError(f"no member of {self.manifest.name} gave a usable answer")
        left_out = tuple(m.name for m in self._members if m.name not in combined.members)
        return {name: combined.logits}, left_out, combined.agreement

    def close(self) -> None:
        """Frees the threads and the models; work in progress ends by itself."""
        for thread in self._threads.values():
            thread.shutdown(wait=True, cancel_futures=True)
        for member in self._members:
            member.backend.close()
