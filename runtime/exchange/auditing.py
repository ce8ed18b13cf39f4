"""Asks all tiers about a few answers that stood, after the caller has them.

Rules of this file:
  * an audit starts when the answer has left this process, and neither delays nor fails a request:
    it has a budget and places of its own, teaches the link estimate nothing, and says everywhere
    that it is an audit, so that tiers above serve it last and do not count it as an escalation;
  * residency holds for an audit as for an escalation;
  * every audit that was drawn ends in the log and in a counter, also when it did not come back;
  * what runs is ended at shutdown, before the way up is closed.
"""

from __future__ import annotations

import asyncio
import random

import msgspec
import structlog

from runtime.adapters.metrics import TierMetrics
from runtime.core.audit import (
    NOT_DRAWN,
    AuditDraws,
    AuditSettings,
    Draw,
    LossEstimate,
    is_auditable,
    went_as_meant,
)
from runtime.core.gearbox import Gearbox
from runtime.core.seen import parse_seen, seen_in, seen_text
from runtime.deadline import Deadline
from runtime.exchange.course import Course, Identity
from runtime.exchange.pilot import Pilot
from runtime.exchange.sampling import Sampler
from runtime.exchange.uplink import Uplink, UpstreamReply
from runtime.messages import Answer, InferenceRequest, Outcome, Reason
from runtime.ports import AuditRecord, Clock, DecisionLog, DecisionRecord

# By then the answer is on its way to the caller.
START_AFTER_S = 0.01
_log = structlog.get_logger()


class Auditor:
    """Draws audits at the tier where journeys begin, and sees them through."""

    def __init__(
        self,
        identity: Identity,
        settings: AuditSettings,
        *,
        gearbox: Gearbox,
        min_chance: float,
        uplink: Uplink,
        clock: Clock,
        metrics: TierMetrics,
        log: DecisionLog,
        chooser: random.Random | None = None,
        pilot: Pilot | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        self._identity, self._settings, self._gearbox = identity, settings, gearbox
        self._min_chance, self._uplink = min_chance, uplink
        self._clock, self._metrics, self._log = clock, metrics, log
        self._pilot, self._sampler = pilot, sampler
        # Nobody gains by guessing which request is audited.
        self._draws = AuditDraws(settings, chooser or random.Random())  # noqa: S311
        self._loss = LossEstimate()
        self._running: set[asyncio.Task[UpstreamReply]] = set()
        self._is_closed = False

    @property
    def num_in_progress(self) -> int:
        """Audits on their way."""
        return len(self._running)

    def draw(self, course: Course, answer: Answer) -> Draw:
        """Whether the answer to a request is audited, and how likely that was."""
        seen = course.seen(self._identity.tier)
        result = course.result
        auditable = self._gearbox.begins(course.request.hop) and is_auditable(
            course.decision,
            Outcome.ANSWERED if went_as_meant(answer.outcome, answer.reason) else answer.outcome,
            seen=seen,
            residency=course.request.residency,
            route=self._gearbox.above,
        )
        # A batch has not been seen, and what no single label stands for cannot be compared.
        if not auditable or result is None or self._identity.tier not in seen:
            return NOT_DRAWN
        chance = course.chance or 0.0
        draw = self._draws.draw(
            0.0 if answer.confidence is None else answer.confidence,
            can_ask=chance > 0 and chance >= self._min_chance and not self._is_closed,
            num_in_progress=self.num_in_progress,
        )
        if draw.chance:
            self._loss.note_request()
        if draw.is_skipped:
            self._metrics.count_audit("skipped")
        return draw

    def start(
        self, course: Course, decided: DecisionRecord, request: InferenceRequest | None
    ) -> None:
        """Audits a request that was drawn, soon.

        Args:
            course: of the request.
            decided: what the log says of it.
            request: what of it climbs; None: nothing can, and the audit does not come back.
        """
        if request is None:
            self._note(decided, None, None)
            return
        travels = course.engaged.travels
        tier, label = self._identity.tier, None
        if course.result is not None:
            label = course.result.confidence.label
        onward = msgspec.structs.replace(
            request,
            # Copies: the caller has its answer and may use its arrays for something else.
            inputs={name: array.copy() for name, array in request.inputs.items()},
            route=self._gearbox.above,
            gear=travels,
            earlier=((tier, label),) if travels else (),
            beliefs=(),
            audit=True,
        )
        task = asyncio.get_running_loop().create_task(
            self._ask(onward), name=f"audit {request.request_id}"
        )
        self._running.add(task)
        kept = self._sampler.kept(course) if self._sampler else None
        task.add_done_callback(lambda ended: self._on_end(decided, ended, kept))

    async def _ask(self, request: InferenceRequest) -> UpstreamReply:
        await asyncio.sleep(START_AFTER_S)
        gateway = self._uplink.choose()
        if gateway is None:
            return UpstreamReply(Outcome.FAILED, Reason.NO_UPSTREAM)
        now_s = self._clock.monotonic_s()
        deadline = Deadline.after(now_s, self._settings.budget_ms)
        return await self._uplink.ask(request, deadline, gateway)

    def _on_end(
        self, decided: DecisionRecord, task: asyncio.Task[UpstreamReply], kept: Course | None
    ) -> None:
        self._running.discard(task)
        reply = None
        if not task.cancelled():
            error = task.exception()
            if error is None:
                reply = task.result()
            else:
                _log.error("audit.crashed", request_id=decided.request_id, exc_info=error)
        self._note(decided, reply, kept)

    def _note(
        self, decided: DecisionRecord, reply: UpstreamReply | None, kept: Course | None
    ) -> None:
        """Writes down how an audit ended."""
        text, agrees = decided.seen, None
        if reply is not None and reply.answer is not None:
            above = seen_in(reply.answer.hops, above=self._identity.tier)
            text = seen_text({**parse_seen(decided.seen), **above})
            # A degraded reply is that of a tier below the top, or of half an ensemble.
            if reply.outcome is Outcome.ANSWERED and set(self._gearbox.above) <= above.keys():
                top = self._gearbox.above[-1]
                agrees = above[top].label == decided.label
                if not agrees and kept is not None and self._sampler:
                    self._sampler.audited(kept, top, above[top].label)
        ended = AuditRecord(
            wall_s=decided.wall_s,
            request_id=decided.request_id,
            site=decided.site,
            policy=decided.policy,
            gear=decided.gear,
            chance=decided.audit_chance,
            seen=text,
            agrees=agrees,
        )
        self._log.append(ended)
        if agrees is None:
            self._metrics.count_audit("failed")
        else:
            self._metrics.count_audit("agreed" if agrees else "disagreed")
        self._loss.note_audit(decided.audit_chance, agrees=agrees)
        self._metrics.set_audit_loss(self._loss.value)
        if self._pilot:
            self._pilot.note_audit(ended, decided.seen)

    async def close(self) -> None:
        """Ends what runs; it is written down as not come back."""
        self._is_closed = True
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if self._sampler:
            await self._sampler.close()
