"""Shows a candidate some of the requests that were answered, and compares the labels.

Rules of this file:
  * the candidate never answers, and no request waits for it: it is asked after the answer went out,
    in a process of the lowest priority;
  * one at a time: what is drawn meanwhile is dropped and counted;
  * only single examples with an answer that has a meaning are compared.
"""

from __future__ import annotations

import asyncio
import random

from runtime.adapters.update_metrics import UpdateMetrics
from runtime.core.trial import Window
from runtime.deadline import Deadline
from runtime.errors import BackendError, TooLateError
from runtime.local_model import LocalResult
from runtime.messages import Tensors
from runtime.ports import Clock
from runtime.updating.candidate import Candidate
from runtime.updating.counting import Watch

# By then the answer is on its way to the caller.
START_AFTER_S = 0.01
BUDGET_MS = 5000.0


class Shadow:
    """One candidate beside what serves; ``seen`` is to be told of every run of that."""

    def __init__(
        self,
        candidate: Candidate,
        share: float,
        *,
        clock: Clock,
        metrics: UpdateMetrics,
        chooser: random.Random | None = None,
    ) -> None:
        self.watch = Watch(candidate.release.name)
        self.num_dropped = 0
        self._candidate, self._share, self._clock = candidate, share, clock
        self._metrics = metrics
        # Nobody gains by guessing which request is drawn.
        self._chooser = chooser or random.Random()  # noqa: S311
        self._running: asyncio.Task[None] | None = None

    def seen(self, inputs: Tensors, result: LocalResult) -> None:
        """A request was run by what serves; draws whether the candidate sees it as well."""
        label = result.confidence.label
        if label is None or self._chooser.random() >= self._share:
            return
        if self._running is not None and not self._running.done():
            self.num_dropped += 1
            self._metrics.count_shadowed("dropped")
            return
        # Copies: the caller may use its arrays for something else.
        copied = {name: array.copy() for name, array in inputs.items()}
        loop = asyncio.get_running_loop()
        self._running = loop.create_task(self._compare(copied, label), name="shadow")

    def window(self) -> Window:
        """What the candidate did so far."""
        watch = self.watch
        return Window(
            num_requests=watch.requests,
            num_invalid=watch.invalid,
            num_errors=watch.errors,
            num_shadowed=watch.shadowed,
            num_agreed=watch.shadowed - watch.disagreed,
        )

    async def close(self) -> None:
        """Ends what runs."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])

    async def _compare(self, inputs: Tensors, label: int) -> None:
        await asyncio.sleep(START_AFTER_S)
        watch, now_s = self.watch, self._clock.monotonic_s()
        try:
            result = await self._candidate.model.infer(inputs, Deadline.after(now_s, BUDGET_MS))
        except BackendError:
            watch.failed()
            self._metrics.count_shadowed("failed")
            return
        except TooLateError:
            # At the lowest priority that says nothing of the model.
            self._metrics.count_shadowed("late")
            return
        watch.requests += 1
        if not result.confidence.is_valid:
            watch.invalid += 1
            self._metrics.count_shadowed("invalid")
            return
        watch.shadowed += 1
        watch.disagreed += result.confidence.label != label
        agrees = result.confidence.label == label
        self._metrics.count_shadowed("agreed" if agrees else "disagreed")
