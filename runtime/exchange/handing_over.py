"""The margin of a tier, kept up with how late its event loop runs."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from runtime.core.escalation import EscalationPolicy
from runtime.core.handover import Handover
from runtime.deadline import Deadline
from runtime.ports import Clock

# Often enough to see a stall that would make answers late, seldom enough to cost nothing.
LOOK_EVERY_S = 0.05


class HandingOver:
    """Says by when all is to be over, for an answer to be with its caller in time."""

    def __init__(self, stated: EscalationPolicy, clock: Clock) -> None:
        self._stated, self._clock = stated, clock
        self._handover = Handover(stated.margin_ms)
        self._policy = stated

    def policy(self) -> EscalationPolicy:
        """The numbers of the decision, with the margin as it is now, to the millisecond."""
        margin_ms = self._handover.margin_ms(self._clock.monotonic_s())
        if margin_ms == self._stated.margin_ms:
            self._policy = self._stated
        elif abs(margin_ms - self._policy.margin_ms) >= 1.0:
            self._policy = replace(self._stated, margin_ms=margin_ms)
        return self._policy

    def until(self, deadline: Deadline) -> Deadline:
        """By when all is to be over here."""
        return deadline.earlier_by_ms(self.policy().margin_ms)

    def ended(self, until: Deadline) -> None:
        """Something that had until then has ended now."""
        now_s = self._clock.monotonic_s()
        self._handover.note(-until.remaining_ms(now_s), now_s)

    async def watch(self) -> None:
        """Looks how late the event loop runs, until cancelled."""
        while True:
            due = Deadline.after(self._clock.monotonic_s(), LOOK_EVERY_S * 1000)
            await asyncio.sleep(LOOK_EVERY_S)
            self.ended(due)
