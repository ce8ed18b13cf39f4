"""What one loaded model does, counted for its trial and for reports; counting never fails."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

from runtime.assignments import Counted
from runtime.core.trial import Window
from runtime.deadline import Deadline
from runtime.errors import BackendError, TooLateError
from runtime.exchange.serving import is_apart
from runtime.local_model import LocalModel, LocalResult
from runtime.messages import Residency, Tensors
from runtime.ports import AuditRecord, DecisionLog, DecisionRecord

# Of so many runs the 95th percentile is known well enough.
MAX_TIMES = 1024
MIN_TIMES = 20
LEARNED_FROM = 200
_PARTS = {
    "requests": ("invalid", "errors", "escalated", "slow"),
    "shadowed": ("disagreed",),
    "audited": ("audited_wrong",),
}
_COUNTS = tuple(name for name in Counted.__struct_fields__ if name not in ("release", "over_s"))
OnRan = Callable[[Tensors, LocalResult], None]


class Usual:
    """What a run takes on this device, learned once in the life of a process.

    Releases that answer one after the other are held to the same limit, so that their counts of
    slow runs can be compared: the 95th percentile of the first ``LEARNED_FROM`` runs, or
    ``floor_ms``, times ``max_slowdown``.
    """

    def __init__(self, max_slowdown: float = 1.25, floor_ms: float = 2.0) -> None:
        self._max_slowdown, self._floor_ms = max_slowdown, floor_ms
        self._times_ms: list[float] = []
        self.limit_ms: float | None = None

    def is_slow(self, took_ms: float) -> bool:
        """Whether a run was slow; none is before that is known."""
        if self.limit_ms is not None:
            return took_ms > self.limit_ms
        self._times_ms.append(took_ms)
        if len(self._times_ms) == LEARNED_FROM:
            self.limit_ms = max(_p95(self._times_ms), self._floor_ms) * self._max_slowdown
            self._times_ms.clear()
        return False


@dataclass(eq=False)
class Watch:
    """The counts of one release since it was loaded; those of ``Window`` are about its runs.

    ``slow`` is by what is ``usual`` on this device, ``over_limit`` by the limit of a trial.
    """

    release: str
    slow_limit_ms: float | None = None
    usual: Usual = field(default_factory=Usual)
    over_limit: int = 0
    requests: int = 0
    invalid: int = 0
    errors: int = 0
    escalated: int = 0
    slow: int = 0
    audited: int = 0
    audited_wrong: int = 0
    shadowed: int = 0
    disagreed: int = 0
    times_ms: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_TIMES))
    on_trouble: Callable[[], None] | None = None

    def ran(self, result: LocalResult) -> None:
        """A run that gave something."""
        took_ms = result.service_us / 1000
        self.requests += 1
        self.times_ms.append(took_ms)
        if not result.confidence.is_valid:
            self.invalid += 1
            self._tell()
        self.over_limit += self.slow_limit_ms is not None and took_ms > self.slow_limit_ms
        self.slow += self.usual.is_slow(took_ms)

    def failed(self) -> None:
        """A run that gave nothing."""
        self.requests += 1
        self.errors += 1
        self._tell()

    def late(self) -> None:
        """A run that was not done in time: that is slow by any limit."""
        self.requests += 1
        self.over_limit += 1
        self.slow += 1

    def _tell(self) -> None:
        if self.on_trouble is not None:
            self.on_trouble()

    @property
    def p95_ms(self) -> float | None:
        """Of the latest runs; None where there were too few."""
        if len(self.times_ms) < MIN_TIMES:
            return None
        return _p95(self.times_ms)

    def window(self, floor_ms: float = 0.0) -> Window:
        """The counts so far; runs up to ``floor_ms`` count as equally fast."""
        p95_ms = self.p95_ms
        return Window(
            num_requests=self.requests,
            num_invalid=self.invalid,
            num_errors=self.errors,
            # It is counted at the end of a request, and its run before that.
            num_escalated=min(self.escalated, self.requests),
            num_slow=self.over_limit,
            p95_ms=None if p95_ms is None else max(p95_ms, floor_ms),
        )

    def counted(self, since: Counted | None, over_s: float) -> Counted:
        """What happened since an earlier value, over so many seconds.

        What a request came to may be known before, or after, its run was counted: no part is said
        to be more than the whole, and the rest is said the next time.
        """
        before = since or Counted(self.release, 0.0)
        more = {name: getattr(self, name) - getattr(before, name) for name in _COUNTS}
        for whole, parts in _PARTS.items():
            for part in parts:
                more[part] = min(more[part], more[whole])
        return Counted(release=self.release, over_s=max(0.0, over_s), **more)

    def totals(self) -> Counted:
        """All since it was loaded."""
        return self.counted(None, 0.0)


def added(before: Counted | None, more: Counted) -> Counted:
    """All that was said so far."""
    so_far = before or Counted(more.release, 0.0)
    return Counted(
        more.release, 0.0, **{name: getattr(so_far, name) + getattr(more, name) for name in _COUNTS}
    )


def _p95(times_ms: Collection[float]) -> float:
    return sorted(times_ms)[int(0.95 * (len(times_ms) - 1))]


class WatchedModel(LocalModel):
    """A model whose runs are counted, and shown to whoever compares models.

    While it is on probation it has a ``spare``, the model before it: what it cannot answer, that
    one does, and the answer says so. What is in no arm of a split, or in the other one, counts
    ``apart``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 those of LocalModel
        super().__init__(*args, **kwargs)
        self.watch = self.apart = Watch("")
        self.on_ran: OnRan | None = None
        self.spare: LocalModel | None = None

    @property
    def counts(self) -> Watch:
        """Where the request in progress is counted."""
        return self.apart if is_apart.get() else self.watch

    async def infer(
        self, inputs: Tensors, deadline: Deadline, residency: Residency = Residency.DEVICE
    ) -> LocalResult:
        """See ``LocalModel``."""
        # That of the time when it began: the probation may end meanwhile.
        spare, watch = self.spare, self.counts
        try:
            result = await super().infer(inputs, deadline, residency)
        except BackendError:
            watch.failed()
            if spare is None:
                raise
            return await _instead(spare, inputs, deadline, residency)
        except TooLateError:
            watch.late()
            raise
        watch.ran(result)
        if spare is not None and not result.confidence.is_valid:
            return await _instead(spare, inputs, deadline, residency)
        if self.on_ran is not None:
            self.on_ran(inputs, result)
        return result


async def _instead(
    spare: LocalModel, inputs: Tensors, deadline: Deadline, residency: Residency
) -> LocalResult:
    # That it had to is no sign of how the other one does with what it is asked itself.
    token = is_apart.set(True)
    try:
        answer = await spare.infer(inputs, deadline, residency)
        return replace(answer, said_by=spare.manifest)
    finally:
        is_apart.reset(token)


class WatchedLog:
    """A ``DecisionLog`` that also counts what one model's requests came to."""

    def __init__(self, log: DecisionLog, counts: Callable[[], Watch]) -> None:
        self._log, self._counts = log, counts

    @property
    def num_dropped(self) -> int:
        """See the port."""
        return self._log.num_dropped

    def append(self, record: DecisionRecord | AuditRecord) -> None:
        """See the port."""
        self._log.append(record)
        watch = self._counts()
        if isinstance(record, DecisionRecord):
            # Of those that climbed without it the model knows nothing.
            watch.escalated += record.action == "escalate" and record.service_us > 0
        elif record.agrees is not None:
            watch.audited += 1
            watch.audited_wrong += not record.agrees

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """The log is closed by whoever opened it."""
