"""What requests come to at a process that an operator has stopped, or lets answer alone only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from runtime.core.escalation import Action, Decision, Settlement, keep
from runtime.core.gearbox import Engaged
from runtime.deadline import Deadline
from runtime.exchange.course import Course, stands
from runtime.exchange.handing_over import HandingOver
from runtime.exchange.stopping import StopSwitch
from runtime.local_model import LocalResult
from runtime.manifest import ModelManifest
from runtime.messages import InferenceRequest, Outcome, Reason, Stop, StopMode
from runtime.ports import Clock

_STOPPED = Decision(Action.ANSWER, Reason.STOPPED, Outcome.ABSTAINED)
_WITHHELD = Settlement(takes_upstream=False, outcome=Outcome.ABSTAINED, reason=Reason.STOPPED)
Infer = Callable[[InferenceRequest, Deadline], Awaitable[LocalResult | Reason]]


class Halting:
    """Obeys a switch, before and after everything else; without a switch nothing is stopped."""

    def __init__(
        self,
        switch: StopSwitch | None,
        handing_over: HandingOver,
        clock: Clock,
        digest: str,
        manifest: ModelManifest,
    ) -> None:
        self._switch, self._handing_over, self._clock = switch, handing_over, clock
        self._manifest = manifest
        # No gear is followed, but the log says under which policy that was.
        self._engaged = Engaged(label=f"{digest}/")

    async def course(
        self,
        request: InferenceRequest,
        deadline: Deadline,
        needed_ms: Callable[[InferenceRequest], float],
        infer: Infer,
    ) -> Course | None:
        """The course of a request where something is stopped here; None where nothing is.

        Args:
            request: just come in.
            deadline: of the request.
            needed_ms: says what our own model takes; so much of the budget is not waited away.
            infer: asks our own model.
        """
        if self._switch is None:
            return None
        if not self._switch.is_heard:
            reserve_ms = self._handing_over.policy().margin_ms + needed_ms(request)
            await self._switch.heard(deadline, reserve_ms=reserve_ms)
        stop = self._switch.stop_of(self._manifest)
        if stop is None:
            return None
        remaining_ms = deadline.remaining_ms(self._clock.monotonic_s())
        if stop.mode is StopMode.STOP:
            return self._stopped(request, stop, remaining_ms)
        return self._alone(request, stop, await infer(request, deadline), remaining_ms)

    def ended(self, course: Course) -> Course:
        """A course at its end: an answer that was stopped on its way does not go out."""
        stop = self._switch.stop_of(self._manifest) if self._switch else None
        if stop is None or stop.mode is not StopMode.STOP:
            return course
        return replace(
            self._stopped(course.request, stop, course.remaining_ms), chance=course.chance
        )

    def _stopped(self, request: InferenceRequest, stop: Stop, remaining_ms: float) -> Course:
        return Course(
            request=request,
            engaged=self._engaged,
            own=Reason.STOPPED,
            decision=_STOPPED,
            settlement=_WITHHELD,
            remaining_ms=remaining_ms,
            chance=None,
            stop=stop,
        )

    def _alone(
        self, request: InferenceRequest, stop: Stop, own: LocalResult | Reason, remaining_ms: float
    ) -> Course:
        """Our own model's answer; degraded even where the model is sure.

        No rule, gear or tier above has had its say, and a caller should know.
        """
        confidence = own.confidence if isinstance(own, LocalResult) else None
        kept = keep(self._handing_over.policy(), confidence, Reason.FALLBACK)
        decision = Decision(Action.ANSWER, kept.reason, kept.outcome)
        return Course(
            request=request,
            engaged=self._engaged,
            own=own,
            decision=decision,
            settlement=stands(decision, own),
            remaining_ms=remaining_ms,
            chance=None,
            stop=stop,
        )
