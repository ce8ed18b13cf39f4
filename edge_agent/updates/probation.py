"""The probation of a model that answers: kept, or sent back, by what it does on this device.

No network is needed for any of it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from msgspec.structs import replace

from edge_agent.updates.counting import Watch
from edge_agent.updates.exchange import Exchange
from edge_agent.updates.settings import UpdateSettings
from edge_agent.updates.telling import Teller
from runtime.core.activation import confirm
from runtime.core.obeying import give_up
from runtime.core.releases import Record
from runtime.core.rollout_states import Execution
from runtime.core.trial import Decision, Verdict, Window, judge
from runtime.errors import ReleaseError
from runtime.logs import get_logger
from runtime.ports import Clock


class Probation:
    """Watches one trial until it is over, however it ends.

    Args:
        exchange: what answers.
        generation: of the trial.
        watch: what it does.
        before: what the model before it did; None where that is not known any more.
        seen: what it did in shadow; None where it was in none.
        settings: when it is over.
        teller: tells of the end.
        clock: how long it lasts.
    """

    def __init__(
        self,
        exchange: Exchange,
        generation: int,
        watch: Watch,
        *,
        before: Window | None,
        seen: Window | None,
        settings: UpdateSettings,
        teller: Teller,
        clock: Clock,
    ) -> None:
        self._exchange, self._generation, self._watch = exchange, generation, watch
        self._before, self._seen, self._settings = before, seen, settings
        self._teller, self._clock = teller, clock
        self._began_s, self._num_looks = clock.monotonic_s(), 0
        self._has_trouble = asyncio.Event()
        watch.on_trouble = self._has_trouble.set

    async def run(self) -> None:
        """Judges again and again, and at once after a failure; returns when the trial is over."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.judge_interval_s):
                    await self._has_trouble.wait()
            self._has_trouble.clear()
            slot = self._exchange.shelf.slot
            is_ours = slot.trial is not None and slot.trial.generation == self._generation
            if not is_ours or not self._exchange.is_on_trial:
                return
            verdict = self._judged()
            try:
                if await self._obeyed(verdict, slot.seq):
                    return
            except ReleaseError as error:
                # Somebody else has ended it meanwhile.
                get_logger().info("trial.over", because=error.because)
                return

    def _judged(self) -> Verdict:
        window = self._watch.window()
        if self._seen is not None:
            num, num_agreed = self._seen.num_shadowed, self._seen.num_agreed
            window = replace(window, num_shadowed=num, num_agreed=num_agreed)
        elapsed_s = self._clock.monotonic_s() - self._began_s
        limits = self._settings.trial_limits()
        verdict = judge(window, self._before, elapsed_s, limits, num_looks=self._num_looks)
        self._num_looks = verdict.num_looks
        return verdict

    async def _obeyed(self, verdict: Verdict, seq: int) -> bool:
        """Whether that was the end of it."""
        exchange, generation, name = self._exchange, self._generation, self._exchange.shelf.name
        if verdict.decision is Decision.KEEP:
            await exchange.change(lambda record: confirm(record, name, generation))
            self._teller.tell(Execution.CONFIRMED, seq=seq, reason=verdict.detail)
        elif verdict.fault is not None:
            fault = verdict.fault
            exchange.go_back_at_once()

            def given_up(record: Record) -> Record:
                trial = record.slot(name).trial
                if trial is None or trial.generation != generation:
                    return record
                return give_up(record, name, trial.release, fault)

            await exchange.change(given_up)
            self._teller.given_up(seq, fault, verdict.detail)
        else:
            return False
        await exchange.collect()
        return True
