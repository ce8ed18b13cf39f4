"""A release that answers a share of the requests: how that begins, and how a device ends it.

Rules of this file:
  * it is watched like one on probation, against what answers beside it in the same time, and no
    network is needed for that;
  * it is never kept by this: whoever assigned it looks at all devices, and says what becomes of it;
  * with a fault it answers nothing from the next request on, and is given up on record.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from msgspec.structs import replace

from runtime.assignments import Assignment
from runtime.core.obeying import give_up
from runtime.core.releases import Record, Release, Split, Trial
from runtime.core.splitting import divide
from runtime.core.trial import TrialLimits, Verdict, Window, judge, slow_limit_ms
from runtime.errors import ReleaseError
from runtime.updating.counting import Watch, WatchedModel
from runtime.updating.exchange import Exchange
from runtime.updating.settings import UpdateSettings
from runtime.updating.telling import Teller

# It lasts for as long as it is assigned: no time is too long, and none is enough.
_NEVER_S = 1e12
_NUM_LOOKS = 32


async def record_split(exchange: Exchange, assignment: Assignment, release: Release) -> Split:
    """Puts on record that a release answers the share of an assignment.

    Raises:
        ReleaseError: refused.
        StorageError: it could not be written.
    """
    name = exchange.shelf.name
    asked = Split(Trial(0, release), assignment.share, assignment.experiment, assignment.split_by)
    seq, clears_bad = assignment.seq, assignment.clears_bad
    await exchange.commit(
        lambda record: divide(record, name, asked, seq=seq, clears_bad=clears_bad)
    )
    split = exchange.shelf.slot.split
    if split is None:
        raise ReleaseError("somebody else has ended the split meanwhile", because="cancelled")
    return split


class SplitWatch:
    """Watches one split until it is over, however it ends.

    Args:
        exchange: what answers.
        generation: of the split.
        settings: what a release may do at most, and how often that is looked at.
        teller: tells of the end.
    """

    def __init__(
        self, exchange: Exchange, generation: int, *, settings: UpdateSettings, teller: Teller
    ) -> None:
        self._exchange, self._generation = exchange, generation
        self._settings, self._teller = settings, teller
        self._num_looks = 0
        self._limits: TrialLimits = replace(
            settings.trial_limits(), soak_s=_NEVER_S, deadline_s=_NEVER_S, num_looks=_NUM_LOOKS
        )
        self._has_trouble = asyncio.Event()

    async def run(self) -> None:
        """Judges again and again, and at once after a failure; returns when the split is over."""
        while (watch := self._watch()) is not None:
            watch.on_trouble = self._has_trouble.set
            verdict = self._judged(watch)
            if verdict.fault is not None:
                await self._end(verdict)
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.judge_interval_s):
                    await self._has_trouble.wait()
            self._has_trouble.clear()

    def _watch(self) -> Watch | None:
        """The counts of what is watched; None where it is over."""
        split, beside = self._exchange.shelf.slot.split, self._exchange.beside
        if split is None or beside is None or split.trial.generation != self._generation:
            return None
        return beside.model.watch if isinstance(beside.model, WatchedModel) else None

    def _judged(self, watch: Watch) -> Verdict:
        base = self._exchange.serving.current.model
        before: Window | None = None
        if isinstance(base, WatchedModel):
            before = base.watch.window(self._settings.latency_floor_ms)
        if watch.slow_limit_ms is None:
            watch.slow_limit_ms = slow_limit_ms(before, self._limits)
        verdict = judge(watch.window(), before, 0.0, self._limits, num_looks=self._num_looks)
        self._num_looks = verdict.num_looks
        return verdict

    async def _end(self, verdict: Verdict) -> None:
        exchange, name, fault = self._exchange, self._exchange.shelf.name, verdict.fault
        if fault is None:
            return
        exchange.serving.unite()
        seq = exchange.shelf.slot.seq

        def given_up(record: Record) -> Record:
            split = record.slot(name).split
            if split is None or split.trial.generation != self._generation:
                return record
            return give_up(record, name, split.release, fault)

        await exchange.change(given_up)
        self._teller.given_up(seq, fault, verdict.detail)
        await exchange.collect()
