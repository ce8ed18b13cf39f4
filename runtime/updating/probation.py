"""The probation of a model that answers: kept, or sent back, by what it does on this device.

No network is needed for any of it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from msgspec.structs import replace

from runtime.adapters.off_loop import in_thread
from runtime.core.activation import confirm
from runtime.core.obeying import give_up
from runtime.core.releases import Record
from runtime.core.rollout_states import Execution
from runtime.core.trial import Decision, Verdict, judge, slow_limit_ms
from runtime.errors import ReleaseError
from runtime.logs import get_logger
from runtime.ports import Clock
from runtime.updating.exchange import Exchange
from runtime.updating.settings import UpdateSettings
from runtime.updating.telling import Teller
from runtime.updating.trial_file import Compared, TrialFile


class Probation:
    """Watches one trial until it is over, however it ends.

    Args:
        exchange: what answers.
        generation: of the trial.
        compared: what it is compared with; None where that is on disk.
        file: where that is kept.
        settings: when it is over.
        teller: tells of the end.
        clock: how long it lasts.
    """

    def __init__(
        self,
        exchange: Exchange,
        generation: int,
        compared: Compared | None,
        *,
        file: TrialFile,
        settings: UpdateSettings,
        teller: Teller,
        clock: Clock,
    ) -> None:
        self._exchange, self._generation = exchange, generation
        # It answers since a moment ago.
        self._watch = watch = exchange.watches[0]
        self._compared, self._file, self._settings = compared, file, settings
        self._teller, self._clock = teller, clock
        self._began_s, self._num_looks = clock.monotonic_s(), 0
        self._has_trouble = asyncio.Event()
        watch.on_trouble = self._has_trouble.set

    async def run(self) -> None:
        """Judges again and again, and at once after a failure; returns when the trial is over."""
        compared = await self._known()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.judge_interval_s):
                    await self._has_trouble.wait()
            self._has_trouble.clear()
            slot = self._exchange.shelf.slot
            is_ours = slot.trial is not None and slot.trial.generation == self._generation
            if not is_ours or not self._exchange.is_on_trial:
                return
            verdict = self._judged(compared)
            try:
                if await self._obeyed(verdict, slot.seq):
                    return
            except ReleaseError as error:
                # Somebody else has ended it meanwhile.
                get_logger().info("trial.over", because=error.because)
                return

    async def _known(self) -> Compared:
        """What it is compared with, also in the next life."""
        compared = self._compared
        if compared is None:
            compared = await asyncio.to_thread(self._file.read, self._generation)
        else:
            await in_thread(self._file.write, compared)
        limits = self._settings.trial_limits()
        self._watch.slow_limit_ms = slow_limit_ms(compared.before, limits)
        return compared

    def _judged(self, compared: Compared) -> Verdict:
        window = self._watch.window()
        if compared.seen is not None:
            num, num_agreed = compared.seen.num_shadowed, compared.seen.num_agreed
            window = replace(window, num_shadowed=num, num_agreed=num_agreed)
        elapsed_s = self._clock.monotonic_s() - self._began_s
        limits = self._settings.trial_limits()
        verdict = judge(window, compared.before, elapsed_s, limits, num_looks=self._num_looks)
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
