"""The model of one tier: one file, or an ensemble whose members run side by side.

A member that fails, is late or gives something that is no answer is left out and named; the rest
answers. One that often does is not even run for a while (``runtime.member_guard``). One that is
much slower than it usually is and cannot change the label any more is not waited for. Nothing here
waits past the deadline it is given.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from runtime.core.breaker import Change, Pass
from runtime.core.confidence import Confidence, Floats, softmax
from runtime.core.ensemble import MemberVote, combine, is_decided, is_usable
from runtime.deadline import Deadline
from runtime.errors import BackendError, LeftOutError, TooLateError
from runtime.manifest import Member, ModelManifest
from runtime.member_guard import MemberGuard, mark_of
from runtime.messages import Residency, Tensors
from runtime.ports import Backend, Clock
from runtime.task_answers import Judged
from runtime.task_rules import rule_of
from runtime.tensors import num_examples

INLINE_LIMIT_MS = 1.0
# Of a new run in what runs are expected to take.
SERVICE_GAIN = 0.1
STALE_AFTER_S = 1.0
# So many times its typical time, a member that cannot change the label is waited for.
PATIENCE = 3.0


class MemberRun(NamedTuple):
    """When a member of an ensemble has run, in seconds of the monotonic clock."""

    member: str
    started_s: float
    ended_s: float


@dataclass(frozen=True, slots=True)
class LocalResult:
    """What a tier's own model says; times in microseconds.

    ``averaged`` says that outputs and confidence are of an average with tiers below. ``said_by`` is
    the model that has answered where it is not the one that was asked. ``told`` is what a task
    without a single label says (``Answer.result``). ``overrides`` are the ids of those that have
    changed it. ``runs`` are those of the members of an ensemble that gave something.
    """

    outputs: Tensors
    confidence: Confidence
    left_out: tuple[str, ...]
    service_us: int
    queue_us: int
    averaged: bool = False
    said_by: ModelManifest | None = None
    told: str = ""
    overrides: tuple[str, ...] = ()
    runs: tuple[MemberRun, ...] = ()


@dataclass(frozen=True, slots=True)
class LoadedMember:
    """A member that is ready to run; ``typical_ms`` is its median time for one example.

    ``may_block`` says that a run may wait for another process, however short it usually is.
    ``residency`` is how far up it runs: with us, if it is not a server elsewhere.
    """

    name: str
    weight: float
    backend: Backend
    typical_ms: float
    may_block: bool = False
    residency: Residency = Residency.DEVICE

    @classmethod
    def of(
        cls, member: Member, backend: Backend, typical_ms: float, *, may_block: bool
    ) -> LoadedMember:
        """As the manifest describes it; a server is as far away as it says there."""
        residency = member.residency if member.file is None else Residency.DEVICE
        return cls(member.name, member.weight, backend, typical_ms, may_block, residency)


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
        on_breaker: Callable[[Change], None] | None = None,
        prototypes: Floats | None = None,
    ) -> None:
        self.manifest = manifest
        self.accept_at = manifest.accept_at if accept_at is None else accept_at
        self._rule = rule_of(manifest, prototypes)
        # Members of other tasks have no label to vote for.
        self._is_voting = manifest.task == "classification"
        self._members = tuple(members)
        self._by_name = {member.name: member for member in self._members}
        self._is_spread = any(one.residency is not Residency.DEVICE for one in self._members)
        self._guard = MemberGuard(self._by_name, on_breaker)
        self._clock = clock
        self._is_closed = False
        self._num_runs = 0
        self._ran_at_s = -math.inf
        self._service_ms = max(member.typical_ms for member in self._members)
        # A thread starts with its first work, so what always runs inline has none.
        self._threads = {
            member.name: ThreadPoolExecutor(1, thread_name_prefix=f"{manifest.name}.{member.name}")
            for member in self._members
        }

    @property
    def label_names(self) -> tuple[str, ...]:
        """The classes, in the order of the scores."""
        return self.manifest.labels

    def confidence(self, scores: Floats, agreement: float) -> Confidence:
        """How sure the model is with these scores."""
        outputs: Tensors = {self.manifest.outputs[0].name: scores}
        return self._rule.judge(outputs, agreement).confidence

    def expected_ms(self, inputs: Tensors) -> float:
        """How long a run that was asked for now would take, with those that are before it.

        0 for an idle model after a while: what it took when it ran last says little by then.
        """
        if not self._num_runs and self._clock.monotonic_s() - self._ran_at_s > STALE_AFTER_S:
            return 0.0
        return (self._num_runs + num_examples(inputs)) * self._service_ms

    async def infer(
        self, inputs: Tensors, deadline: Deadline, residency: Residency = Residency.DEVICE
    ) -> LocalResult:
        """Runs all members on inputs that fit the manifest, and may go as far as they are.

        Raises:
            BackendError: no member gave a usable answer, or the model is closed.
            LeftOutError: no member may run for now.
            TooLateError: no member was done by the deadline.
        """
        if self._is_closed:
            raise BackendError(f"{self.manifest.name} {self.manifest.version} is closed")
        asked_s = self._clock.monotonic_s()
        passes = self._guard.enter(asked_s)
        if self._is_spread:
            self._keep_near(passes, residency)
        if not passes:
            raise LeftOutError(f"every member of {self.manifest.name} is left out for now")
        said: dict[str, bool] = {}
        try:
            return await self._infer(inputs, deadline, passes, said)
        finally:
            self._guard.leave(passes, self._clock.monotonic_s(), said)

    def _keep_near(self, passes: dict[str, Pass], residency: Residency) -> None:
        """Leaves out who is further up than these inputs may go."""
        order = list(Residency)
        far = {
            name: given
            for name, given in passes.items()
            if order.index(self._by_name[name].residency) > order.index(residency)
        }
        for name in far:
            del passes[name]
        self._guard.leave(far, self._clock.monotonic_s(), {})

    async def _infer(
        self,
        inputs: Tensors,
        deadline: Deadline,
        passes: Mapping[str, Pass],
        said: dict[str, bool],
    ) -> LocalResult:
        """Runs who may; ``said`` takes in who gave an answer and who failed."""
        asked_s = self._clock.monotonic_s()
        late: frozenset[str] = frozenset()
        if self._is_short(inputs):
            member = self._members[0]
            # Until it is back, or for ever.
            said[member.name] = False
            runs = {member.name: self._run(member, inputs)}
        else:
            self._num_runs += 1
            try:
                runs, late = await self._run_in_threads(inputs, deadline, passes, said)
            finally:
                self._num_runs -= 1
        if not runs:
            raise BackendError(f"no member of {self.manifest.name} gave an answer")
        judged, left_out = self._combine(runs, late)
        confidence = judged.confidence
        started_s = min(run.started_s for run in runs.values())
        ended_s = max(run.ended_s for run in runs.values())
        self._ran_at_s = ended_s
        took_ms = (ended_s - started_s) * 1000 / max(1, num_examples(inputs))
        self._service_ms += SERVICE_GAIN * (took_ms - self._service_ms)
        self._watch(inputs, runs, said, confidence, left_out)
        return LocalResult(
            outputs=judged.outputs,
            confidence=confidence,
            left_out=left_out,
            service_us=round((ended_s - started_s) * 1e6),
            queue_us=max(0, round((started_s - asked_s) * 1e6)),
            told=judged.told,
            runs=self._timed(runs),
        )

    def _timed(self, runs: Mapping[str, _Run]) -> tuple[MemberRun, ...]:
        if len(self._members) == 1:
            return ()
        return tuple(MemberRun(name, run.started_s, run.ended_s) for name, run in runs.items())

    def _watch(
        self,
        inputs: Tensors,
        runs: Mapping[str, _Run],
        said: dict[str, bool],
        combined: Confidence,
        left_out: Sequence[str],
    ) -> None:
        """Whether what members said can be used, and is more than the same of everything."""
        answers: dict[str, tuple[float, int]] = {}
        if len(self._members) == 1:
            name = self._members[0].name
            said[name] = combined.is_valid
            if combined.label is not None:
                answers[name] = combined.probability, combined.label
        elif not self._is_voting:
            said.update({member: member not in left_out for member in runs})
        else:
            for vote in self._votes(dict(runs)):
                said[vote.name] = is_usable(vote)
                if said[vote.name]:
                    label = int(vote.probabilities[0].argmax())
                    answers[vote.name] = float(vote.probabilities[0, label]), label
        if num_examples(inputs) != 1:
            return
        now_s, mark = self._clock.monotonic_s(), mark_of(inputs)
        for name, (probability, label) in answers.items():
            if self._guard.is_stuck_at(name, probability):
                said[name] = False
            self._guard.watch(name, now_s, probability, label, mark)

    def _is_short(self, inputs: Tensors) -> bool:
        """Whether a run holds up the event loop for no longer than handing it to a thread is worth.

        The time of a batch is taken to grow with its size; a large one is never short.
        """
        first = self._members[0]
        if len(self._members) > 1 or first.may_block:
            return False
        return first.typical_ms * num_examples(inputs) <= INLINE_LIMIT_MS

    def _run(self, member: LoadedMember, inputs: Tensors) -> _Run:
        started_s = self._clock.monotonic_s()
        self._guard.begin(member.name, started_s, member.typical_ms * num_examples(inputs))
        try:
            outputs = member.backend.run(inputs)
        finally:
            self._guard.end(member.name)
        return _Run(started_s, self._clock.monotonic_s(), outputs)

    async def _run_in_threads(
        self,
        inputs: Tensors,
        deadline: Deadline,
        passes: Mapping[str, Pass],
        said: dict[str, bool],
    ) -> tuple[dict[str, _Run], frozenset[str]]:
        """What members said, and who was not waited for any longer."""
        loop = asyncio.get_running_loop()
        futures = {
            loop.run_in_executor(self._threads[name], self._run, self._by_name[name], inputs): name
            for name in passes
        }
        asked_s = self._clock.monotonic_s()
        runs: dict[str, _Run] = {}
        late: set[asyncio.Future[_Run]] = set(futures)
        until_s = deadline.at_s
        try:
            while late:
                timeout_s = max(0.0, until_s - self._clock.monotonic_s())
                done, late = await asyncio.wait(
                    late, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    break
                for future in done:
                    if isinstance(future.exception(), BackendError):
                        said[futures[future]] = False
                    else:
                        runs[futures[future]] = future.result()
                missing = [futures[future] for future in late]
                if missing and self._is_decided(runs, missing):
                    usual_ms = max(self._by_name[name].typical_ms for name in missing)
                    until_s = min(deadline.at_s, asked_s + PATIENCE * usual_ms / 1000)
        finally:
            # What has not started leaves the queue; what runs cannot be stopped and is not heard.
            for future in futures:
                future.cancel()
        if len(late) == len(futures):
            raise TooLateError(f"{self.manifest.name} was not done in time")
        return runs, frozenset(futures[future] for future in late)

    def _is_decided(self, runs: dict[str, _Run], missing: Sequence[str]) -> bool:
        if not self._is_voting:
            return False
        return is_decided(self._votes(runs), sum(self._by_name[name].weight for name in missing))

    def _votes(self, runs: dict[str, _Run]) -> list[MemberVote]:
        name = self.manifest.outputs[0].name
        return [
            MemberVote(member.name, softmax(runs[member.name].outputs[name]), member.weight)
            for member in self._members
            if member.name in runs
        ]

    def _combine(
        self, runs: dict[str, _Run], late: frozenset[str]
    ) -> tuple[Judged, tuple[str, ...]]:
        """What all say together, and who was missed."""
        if len(self._members) == 1:
            return self._rule.judge(runs[self._members[0].name].outputs), ()
        if not self._is_voting:
            return self._combine_outputs(runs)
        votes = self._votes(runs)
        combined = combine(votes)
        if combined is None:
            raise BackendError(f"no member of {self.manifest.name} gave a usable answer")
        left_out = [m for m in self._members if m.name not in combined.members]
        if left_out and is_decided(votes, sum(member.weight for member in left_out)):
            # Whoever is late would not have changed the label; who is broken is told all the same.
            left_out = [member for member in left_out if member.name not in late]
        outputs: Tensors = {self.manifest.outputs[0].name: combined.logits}
        judged = self._rule.judge(outputs, combined.agreement)
        return judged, tuple(member.name for member in left_out)

    def _combine_outputs(self, runs: dict[str, _Run]) -> tuple[Judged, tuple[str, ...]]:
        """The same of a task without votes."""
        heard = [member for member in self._members if member.name in runs]
        together = self._rule.judge_all(
            [runs[member.name].outputs for member in heard], [member.weight for member in heard]
        )
        if together is None:
            raise BackendError(f"no member of {self.manifest.name} gave a usable answer")
        used = {heard[place].name for place in together.used}
        left_out = tuple(member.name for member in self._members if member.name not in used)
        return together.judged, left_out

    def close(self) -> None:
        """Frees the models and the threads; work in progress ends by itself, or with its model."""
        self._is_closed = True
        for thread in self._threads.values():
            thread.shutdown(wait=False, cancel_futures=True)
        for member in self._members:
            # Before the threads are waited for: one may wait for a process that is stuck.
            member.backend.close()
        for thread in self._threads.values():
            thread.shutdown(wait=True)
